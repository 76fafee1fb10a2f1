"""Read the options of a command off the pydantic model of its settings.

A field is an option: its default, its constraints and its description are the option's, so they are declared
in one place. A field that is itself a model is a group: its fields are options beside the others, under their
own names. Where two groups have a field of the same name it is one option, which sets both; what is not given
keeps the default of each group, and the help names them all.

Nothing here imports a model library, and no settings may: a help or a completion answers at once.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from engine.errors import UserError

Shape = Literal["flag", "value", "list", "nested", "pairs"]
"""Form of an option: a pair of flags; a flag and a word; the same, repeated; in files only; --set."""

FieldPath = tuple[str, ...]


INPUT_OUTPUT, RUN = "Input and output", "How it runs"

USUAL_HEADINGS = {
    **dict.fromkeys(("workers", "gpu", "processes", "batch_size", "part_size", "json_file"), RUN),
    **dict.fromkeys(("restart", "force", "overwrite", "strict", "checkpoint_seconds"), RUN),
}
"""Headings of fields that many commands have; what has none here or from the command is input or output."""


@dataclass(frozen=True)
class Former:
    """The former name of an option: it still works, and says how the option is called now.

    Args:
        now: the option's key.
        becomes: what a pair of flags stands for that became a value: when it is on, and when it is off.
    """

    now: str
    becomes: tuple[str, str] | None = None

    def value(self, given: Any) -> Any:
        """Return what the option is given, of what the former name was given.

        Raises:
            UserError: of a pair of flags: neither true nor false.
        """
        if self.becomes is None:
            return given
        if str(given).lower() not in ("true", "false"):
            raise UserError(f"{given}: give true or false")
        return self.becomes[0 if str(given).lower() == "true" else 1]

    def shown(self, value: Any) -> str:
        """Return what to write in a settings file in place of the former name."""
        return self.now if self.becomes is None else f"{self.now}: {value}"


class CommandSettings(BaseModel):
    """The base of the models of settings that become command lines."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def unused(self) -> Mapping[str, str]:
        """Return the options without effect beside the others, by key, and why (:mod:`cluster.effect`)."""
        return {}


@dataclass(frozen=True)
class Flag:
    """Writes a field's option in another way than the field is called; goes into ``Annotated``.

    Args:
        words: such as ``--json``; for a bool both, such as ``--fused/--per-stage``.
    """

    words: str


@dataclass(frozen=True)
class Choices:
    """The names that a field of text, or each of a list of texts, can be; goes into ``Annotated``.

    Args:
        names: those that are listed.
        former: others that are taken still.
        others: says whether any other name is taken, in a moment: it is asked of unknown ones alone.
        hint: of those, for errors: "or module:NAME".
    """

    names: tuple[str, ...]
    former: tuple[str, ...] = ()
    others: Callable[[str], bool] | None = None
    hint: str = ""

    def takes(self, name: str) -> bool:
        """Return whether a name is allowed."""
        return name in (*self.names, *self.former) or (self.others is not None and self.others(name))


@dataclass(frozen=True)
class Pairs:
    """Says that a field of a mapping takes the pairs of ``--set`` whose keys are no settings of the command.

    Args:
        metavar: placeholder of a pair in the help, such as ``<Stage.setting=value>``.
    """

    metavar: str


@dataclass(frozen=True)
class Secret:
    """Says that no error may show what a field was given; goes into ``Annotated``."""


@dataclass(frozen=True)
class Group:
    """Says how the fields of a model within the settings become options; goes into ``Annotated``.

    Args:
        label: when the group's defaults count, for the help: "with images 8".
        without: fields that are no options (dotted below the group): what the program finds out itself.
        flags: by field (dotted), what :class:`Flag` would say.
    """

    label: str = ""
    without: Sequence[str] = ()
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A field that an option sets: where it is, how it is declared, and what it holds by default."""

    path: FieldPath
    declared: FieldInfo
    default: Any
    label: str


@dataclass(frozen=True)
class Option:
    """One option, and one key of a settings file."""

    words: str
    targets: tuple[Target, ...]
    heading: str = INPUT_OUTPUT

    @property
    def key(self) -> str:
        """Its name in settings files: the flag with underscores."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def flag(self) -> str:
        """The flag that errors name."""
        return self.words.split("/")[0]

    @property
    def declared(self) -> FieldInfo:
        """The declaration that the help shows: the first one."""
        return self.targets[0].declared

    @property
    def _declared(self) -> list[FieldInfo]:
        return [target.declared for target in self.targets]

    @property
    def required(self) -> bool:
        """True if a run needs a value."""
        return any(target.default is PydanticUndefined for target in self.targets)

    @property
    def shape(self) -> Shape:
        """The form of the option on a command line."""
        kind = bare_type(self.declared.annotation)
        if any(isinstance(marker, Pairs) for marker in self.declared.metadata):
            return "pairs"
        if kind is bool:
            return "flag"
        if get_origin(kind) is list:
            return "list"
        if get_origin(kind) is dict:
            return "nested"
        return "value"

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        return allowed_values(self._declared)

    @property
    def secret(self) -> bool:
        """True if no error may show a value."""
        return any(isinstance(marker, Secret) for marker in self.declared.metadata)

    @property
    def choices(self) -> tuple[str, ...]:
        """Every value there is, as it is written on a command line; empty where they cannot be listed."""
        return choices_of(self.declared)

    @property
    def metavar(self) -> str:
        """The placeholder of the value in the help."""
        if pairs := next((marker for marker in self.declared.metadata if isinstance(marker, Pairs)), None):
            return pairs.metavar
        kind = _single_type(self.declared)
        if get_origin(kind) is Literal:
            return f"<{'|'.join(self.choices)}>"
        if self.choices:
            return "<name>"
        return {int: "<int>", float: "<float>", Path: "<path>"}.get(kind, "<str>")

    @property
    def default_text(self) -> str:
        """The defaults as the help shows them; empty where there is none to show."""
        first, *others = self.targets
        texts = [self._in_words(first.default)]
        for target in others:
            text = self._in_words(target.default)
            if target.label and text != texts[0]:
                texts.append(f"{target.label} {text}")
        return "; ".join(text for text in texts if text)

    def _in_words(self, value: Any) -> str:
        if self.shape == "flag" and isinstance(value, bool):
            on, _, off = self.words.partition("/")
            return (on if value else off).removeprefix("--")
        if value is PydanticUndefined or value in (None, "", (), [], {}):
            return ""
        return str(value)

    @property
    def help(self) -> str:
        """Return the line of the help: what it is, its default, its bounds."""
        facts = ["required"] if self.required else []
        facts += [f"default: {self.default_text}"] if self.default_text else []
        facts += [bounds] if (bounds := bounds_text(self._declared)) else []
        text = self.declared.description or ""
        text = text[:1].upper() + text[1:] + ("" if text.endswith((".", "]")) else ".")
        if self.choices and not is_literal(self.declared):
            text += f" One of: {', '.join(self.choices)}{other_names(self.declared)}."
        return text + (f"  [{'; '.join(facts)}]" if facts else "")

    def typed(self, word: str) -> Any:
        """Return a word of the command line as pydantic takes it: a literal number is none as text."""
        kind = bare_type(self.declared.annotation)
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        return next((choice for choice in choices if str(choice) == word), word)


def options_of(model: type[BaseModel], headings: Mapping[str, str] | None = None) -> list[Option]:
    """Return the options of a command's settings, in the order of the fields.

    Args:
        model: of the settings.
        headings: under which heading of the help the options of a field stand, by its dotted path: that of
            ``text.epochs``, else that of ``text``, else the usual one.

    Raises:
        TypeError: a field that is an option has no description, which would be its help.
    """
    found: dict[str, list[Target]] = {}
    for words, target in _targets(model, None, (), (), Group()):
        if not target.declared.description:
            raise TypeError(f"{model.__name__}: {'.'.join(target.path)} has no description")
        found.setdefault(words, []).append(target)
    headings = {**USUAL_HEADINGS, **(headings or {})}
    return [
        Option(words, tuple(targets), _heading(targets[0].path, headings)) for words, targets in found.items()
    ]


def _heading(path: FieldPath, headings: Mapping[str, str]) -> str:
    for depth in range(len(path), 0, -1):
        if (dotted := ".".join(path[:depth])) in headings:
            return headings[dotted]
    return INPUT_OUTPUT


def _targets(
    model: type[BaseModel], filled: BaseModel | None, path: FieldPath, below: FieldPath, group: Group
) -> Iterator[tuple[str, Target]]:
    """Walk the fields; ``filled`` is the model with its defaults, ``below`` the path from the group on."""
    for name, declared in model.model_fields.items():
        dotted = ".".join((*below, name))
        if dotted in group.without:
            continue
        default = default_of(declared, filled, name)
        if inner_model := model_of(declared):
            own = next((m for m in declared.metadata if isinstance(m, Group)), None)
            inner = default if isinstance(default, BaseModel) else None
            deeper = () if own else (*below, name)
            yield from _targets(inner_model, inner, (*path, name), deeper, own or group)
            continue
        flag = next((m.words for m in declared.metadata if isinstance(m, Flag)), None)
        words = flag or group.flags.get(dotted) or "--" + name.replace("_", "-")
        if bare_type(declared.annotation) is bool and "/" not in words:
            words += f"/--no-{words.removeprefix('--')}"
        yield words, Target((*path, name), declared, default, group.label)


def default_of(declared: FieldInfo, filled: BaseModel | None, name: str) -> Any:
    """Return what a field holds where nothing is given; ``PydanticUndefined`` if something must be."""
    if filled is not None:
        return getattr(filled, name)
    return declared.get_default(call_default_factory=True, validated_data={})


def declared(model: type[BaseModel], name: str) -> Any:
    """Return another model's field as the declaration of one's own: default, constraints and description."""
    return copy(model.model_fields[name])


def model_of(declared: FieldInfo) -> type[BaseModel] | None:
    """Return the model that a field holds, None of any other field."""
    kind: Any = declared.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def bare_type(annotation: Any) -> Any:
    """Return a type without its ``| None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        others = [one for one in get_args(annotation) if one is not type(None)]
        return others[0] if len(others) == 1 else annotation
    return annotation


def is_choice(declared: FieldInfo, name: str) -> bool:
    """Return whether a field takes a name; pydantic itself checks the values of literal types."""
    return all(marker.takes(name) for marker in declared.metadata if isinstance(marker, Choices))


def choices_of(declared: FieldInfo) -> tuple[str, ...]:
    """Return every value that a field, or each of its list, takes; empty where they cannot be listed."""
    for marker in declared.metadata:
        if isinstance(marker, Choices):
            return marker.names
    kind = _single_type(declared)
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def other_names(declared: FieldInfo) -> str:
    """Return what a field takes besides its choices, for the end of their list; empty where it is nothing."""
    return next((f"; {m.hint}" for m in declared.metadata if isinstance(m, Choices) and m.hint), "")


def _single_type(declared: FieldInfo) -> Any:
    """Return the type of a field's value, or of one of its list."""
    kind = bare_type(declared.annotation)
    return bare_type(get_args(kind)[0]) if get_origin(kind) is list else kind


def is_literal(declared: FieldInfo) -> bool:
    """Return whether a field's type lists its values, so that pydantic checks them."""
    return get_origin(_single_type(declared)) is Literal


def bounds_of(declared: Sequence[FieldInfo]) -> Iterator[tuple[str, Any]]:
    """Return the bounds that hold of all the fields, such as ``(">=", 1)``; the lower one first."""
    for kind, sign, name in ((Ge, ">=", "ge"), (Gt, ">", "gt"), (Le, "<=", "le"), (Lt, "<", "lt")):
        limits = [getattr(m, name) for one in declared for m in one.metadata if isinstance(m, kind)]
        if limits:
            yield sign, max(limits) if sign.startswith(">") else min(limits)


def bounds_text(declared: Sequence[FieldInfo]) -> str:
    """Return bounds as in ``0<=x<1``; empty where there are none."""
    bounds = list(bounds_of(declared))
    if len(bounds) == 1:
        return "x{}{}".format(*bounds[0])
    if len(bounds) == 2:
        (above, low), (below, high) = bounds
        return f"{low}{above.replace('>', '<')}x{below}{high}"
    return ""


def allowed_values(declared: Sequence[FieldInfo]) -> str:
    """Return what the fields take, in words: "a whole number, at least 1"."""
    kind = _single_type(declared[0])
    if choices := choices_of(declared[0]):
        return f"one of {', '.join(choices)}{other_names(declared[0])}"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    words = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
    bounds = "".join(f", {words[sign]} {limit}" for sign, limit in bounds_of(declared))
    return kinds.get(kind, "text") + bounds
