"""Read settings from a YAML file, pairs of ``--set`` and a command line, and write them as YAML.

Each value remembers its place, so that an error can name it. In a file, too, a value is text as it is
written, and its setting says what it is read as: a name may be ``no``, ``007`` or ``2026-01-01``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from cluster.options import FieldPath, Former, Option, default_of, is_choice, model_of
from engine.errors import FormatError, UserError
from engine.renames import warn_of_former
from engine.repeated_keys import MERGE, RepeatedKeyError, yaml_node, yaml_value

if TYPE_CHECKING:  # at run time where a file is read: most help texts do without
    import yaml

Settings = TypeVar("Settings", bound=BaseModel)

SHOWN_ERRORS = 3
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Given:
    """A value and where it was given: ``--epochs``, or ``train.yaml:3: epochs:``."""

    value: Any
    place: str


Values = dict[str, Given]
"""Given values by an option's key."""


def read_file(
    path: Path,
    options: Sequence[Option],
    former: Mapping[str, Former] | None = None,
    section: str | None = None,
) -> Values:
    """Return what a settings file gives, unchecked but for its keys; former names become those of now.

    Args:
        path: of the file.
        options: that it may give.
        former: former names of options.
        section: a key of a file that holds the settings of several commands; None: it holds those of one.

    Raises:
        FormatError: it is not there, not a mapping in YAML, gives a key twice, or one that is not known; it
            has no such section.
    """
    content, node = _content(path)
    if section is not None:
        content, node = _section(content, node, section, path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a mapping of settings, such as `workspace: work`")
    known = {option.key for option in options}
    found: Values = {}
    for (name, value), (key_node, _) in zip(content.items(), _pairs(node, path), strict=True):
        place, key = f"{path}:{key_node.start_mark.line + 1}", str(name).replace("-", "_")
        place_of_value = f"{place}: {name}:"
        if former and key in former:
            former_key = former[key]
            value = _of_former(former_key, value, place_of_value)
            warn_of_former(f"{place}: {name}", former_key.shown(value))
            key = former_key.now
        if key not in known:
            raise FormatError(f"{place}: {_unknown(str(name), known)}")
        if key in found:
            raise FormatError(f"{place}: {name} is given a second time")
        found[key] = Given(value, place_of_value)
    return found


def sections(path: Path) -> list[str]:
    """Return the sections of a file that holds the settings of several commands, in order.

    Raises:
        FormatError: it is not there, or is no mapping in YAML.
    """
    content, _ = _content(path)
    return list(content) if isinstance(content, dict) else []


def _content(path: Path) -> tuple[Any, yaml.Node | None]:
    """Return what a YAML file holds, every value as text, and its node."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml_value(text, scalars_as_text=True)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RepeatedKeyError as error:
        raise FormatError(f"{path}:{error.line}: {error.key} is given a second time") from None
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None
    return content, yaml_node(text, scalars_as_text=True)


def _section(content: Any, node: yaml.Node | None, section: str, path: Path) -> tuple[Any, yaml.Node | None]:
    """Return what a section of a file holds, and its node."""
    if not isinstance(content, dict) or section not in content:
        there = ", ".join(content) if isinstance(content, dict) else "none"
        raise FormatError(f"{path}: holds no settings of {section}; those of: {there}")
    values = {key.value: value for key, value in _pairs(node, path)}
    return content[section], values[section]


def _pairs(node: yaml.Node | None, path: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the keys and values of a mapping, with their lines."""
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value if node is not None else []
    for key, _ in pairs:
        if key.tag == MERGE:
            place = f"{path}:{key.start_mark.line + 1}"
            raise FormatError(f"{place}: merge keys (<<) are not taken; write the settings out")
    return pairs


def _of_former(former: Former, value: Any, place: str) -> Any:
    try:
        return former.value(value)
    except UserError as error:
        raise UserError(f"{place} {error}") from None


def _unknown(name: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f"no setting is called {name!r}; " + (f"did you mean {close[0]}?" if close else "see --help")


def nested(pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``a.b=c`` as ``{"a": {"b": "c"}}``.

    Raises:
        UserError: one is no pair, or says two things of one key.
    """
    found: dict[str, Any] = {}
    for text in pairs:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(
                f"--set {text}: write key=value, or stages.Retrieve.replicas=2 for what lies deeper"
            )
        *path, last = key.split(".")
        inner: Any = found
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set {key}: {part!r} was given a value before")
        if last in inner:
            raise UserError(f"--set {key}: {last!r} was given a value before")
        inner[last] = value
    return found


def own_pairs(
    pairs: Sequence[str], options: Sequence[Option], former: Mapping[str, Former] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Return the pairs of ``--set`` that an option of the shape "pairs" takes, and the others.

    It takes ``a.b=c`` where ``a`` is no setting of the command: a stage's, say.

    Raises:
        UserError: one of its own is given twice.
    """
    if not any(option.shape == "pairs" for option in options):
        return {}, list(pairs)
    known = {option.key for option in options if option.shape != "pairs"} | set(former or ())
    own: dict[str, str] = {}
    rest = []
    alone = all(option.shape != "nested" for option in options)
    for text in pairs:
        key, equals, value = text.partition("=")
        if not (equals and key) and alone:
            metavar = next(option.metavar for option in options if option.shape == "pairs")
            raise UserError(f"--set {text}: write {metavar.strip('<>')}")
        if not equals or (not alone and ("." not in key or key.partition(".")[0] in known)):
            rest.append(text)
        elif key in own:
            raise UserError(f"--set {key}: given a second time")
        else:
            own[key] = value
    return own, rest


def with_mapping(values: Values, given: Mapping[str, str], options: Sequence[Option]) -> Values:
    """Return the values with those that the option of the shape "pairs" takes, above a file's, key by key."""
    if not given:
        return values
    (option,) = (option for option in options if option.shape == "pairs")
    before = values.get(option.key)
    if before is None or not isinstance(before.value, dict):
        return {**values, option.key: Given(dict(given), "--set")}
    place = f"{before.place.rstrip(':')} and --set:"
    return {**values, option.key: Given(merged(before.value, given), place)}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two nested mappings as one; where both have a value the second one's counts."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def with_pairs(
    values: Values,
    pairs: Sequence[str],
    options: Sequence[Option],
    former: Mapping[str, Former] | None = None,
) -> Values:
    """Return the values with those of ``--set`` above them; former names become those of now.

    Raises:
        UserError: a pair is none, or names an unknown setting.
    """
    known = {option.key for option in options}
    found = dict(values)
    for key, value in nested(pairs).items():
        if former and key in former:
            former_key = former[key]
            value = _of_former(former_key, value, f"--set {key}:")
            warn_of_former(f"--set {key}", former_key.shown(value))
            key = former_key.now
        if key not in known:
            raise UserError(f"--set {key}: {_unknown(key, known)}")
        before = found.get(key)
        if before is not None and isinstance(before.value, dict) and isinstance(value, dict):
            found[key] = Given(merged(before.value, value), f"{before.place.rstrip(':')} and --set {key}:")
        else:
            found[key] = Given(value, f"--set {key}:")
    return found


def build_settings(model: type[Settings], options: Sequence[Option], values: Values) -> Settings:
    """Return checked settings: the values given, above the defaults.

    Raises:
        UserError: a value is missing or not allowed; names where it was given and what is allowed.
    """
    tree = _set_defaults(model, None)
    by_key = {option.key: option for option in options}
    for key, given in values.items():
        option = by_key[key]
        _check_choice(option, given)
        value = option.typed(given.value) if isinstance(given.value, str) else given.value
        for target in option.targets:
            _put(tree, target.path, value)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = dict.fromkeys(_in_words(problem, options, values) for problem in error.errors())
        raise UserError("; ".join(list(lines)[:SHOWN_ERRORS])) from None


def _check_choice(option: Option, given: Given) -> None:
    """Refuse a name that is none of the choices."""
    several = given.value if isinstance(given.value, list) else [given.value]
    for name in several:
        if isinstance(name, str) and not is_choice(option.declared, name):
            import difflib

            close = difflib.get_close_matches(name, option.choices, n=1)
            asked = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"{given.place} {name}: {asked}give {option.allowed}")


def _set_defaults(model: type[BaseModel], filled: BaseModel | None) -> dict[str, Any]:
    """Return what the default instances of groups were given, which is not in the defaults of their class."""
    tree: dict[str, Any] = {}
    for name, declared in model.model_fields.items():
        default = default_of(declared, filled, name)
        if inner := model_of(declared):
            # A group without any value is still checked: its own rules hold of its defaults too.
            tree[name] = _set_defaults(inner, default if isinstance(default, BaseModel) else None)
        elif filled is not None and name in filled.model_fields_set:
            tree[name] = default
    return tree


def _put(tree: dict[str, Any], path: FieldPath, value: Any) -> None:
    *above, last = path
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _in_words(problem: Any, options: Sequence[Option], values: Values) -> str:
    """Return one of pydantic's findings as a person reads it: the place, the value, what is allowed."""
    location = tuple(problem["loc"])
    for option in options:
        for target in option.targets:
            depth = len(target.path)
            if target.path == location[:depth]:
                return _of_option(problem, option, values.get(option.key), location[depth:])
    return str(problem["msg"]).removeprefix("Value error, ")


def _of_option(problem: Any, option: Option, given: Given | None, deeper: Sequence[str | int]) -> str:
    if given is None:
        return f"{option.flag} is required: give it here or in a settings file"
    kind, place = problem["type"], given.place
    inner = ".".join(str(part) for part in deeper if isinstance(part, str))
    if inner:
        place = f"{place.rstrip(':')}.{inner}:"
    said = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{place} no such setting"
    own = option.shape != "nested" and not kind.startswith(("value_error", "string_", "too_", "missing"))
    if kind == "string_type":
        own = True
    shown = repr(problem["input"]) if isinstance(problem["input"], dict | list) else str(problem["input"])
    shown = "(not shown)" if option.secret else shown
    shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "…"
    return f"{place} {shown}: " + (f"give {option.allowed}" if own else said)


def as_yaml(settings: BaseModel, options: Sequence[Option]) -> str:
    """Return settings as the file that :func:`read_file` takes back.

    An option whose groups hold different values was not given: it stays a comment. Beside one without a value
    stands what the program then does.
    """
    import yaml

    lines = []
    for option in options:
        values = [to_jsonable_python(_get(settings, target.path)) for target in option.targets]
        if all(value == values[0] for value in values):
            line = yaml.safe_dump({option.key: values[0]}, sort_keys=False, allow_unicode=True)
            lines.append(line if values[0] is not None else _explained(line, option))
        else:
            lines.append(f"# {option.key}: {option.default_text}\n")
    return "".join(lines)


def _explained(line: str, option: Option) -> str:
    """Return the line of an option without a value, with the default that its description ends with."""
    _, found, default = (option.declared.description or "").partition("[default: ")
    return f"{line.rstrip()}  # {default.rstrip(']')}\n" if found else line


def _get(settings: Any, path: FieldPath) -> Any:
    # Not of what is dumped: a model may leave a field out of that which names a run.
    for part in path:
        settings = getattr(settings, part)
    return settings
