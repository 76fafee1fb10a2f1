"""Define what all manifests have in common: the version of their form, and who made what they describe.

A form has a version ``major.minor``. This program reads every minor version of its own major one:

- what a later minor version added and lists under ``optional`` is left out;
- what it lists under ``requires`` must be known here, and is refused by name if it is not;
- any other key that is not known here is refused.

What made an artifact (``made_by``) is told to people. It is part of no key and no id: after an upgrade of a
library nothing has to be made anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from engine.storage.store import Store
from engine.versions import PROGRAM, Versions, version_of

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})", re.ASCII)
_FAULT = "format_version"

Place = tuple[int | str, ...]
"""A key in a document: the keys that lead to it."""


class FormatVersion(NamedTuple):
    """The version of a manifest's form, in order of age."""

    major: int
    minor: int

    @classmethod
    def of(cls, given: object) -> FormatVersion:
        """Read "major.minor"; a whole number is the first version of that major one.

        Raises:
            ValueError: it is neither.
        """
        if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
            return cls(given, 0)
        if isinstance(given, str) and (found := _VERSION.fullmatch(given)):
            return cls(int(found[1]), int(found[2]))
        raise ValueError(f"the format_version {given!r} is not of the form major.minor")

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class VersionedManifest(BaseModel):
    """A manifest whose form has a version: the default of ``format_version`` is the one that is written.

    A manifest without a version is of before versions were written, and counts as the current one; what is
    not known of it is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    anew: ClassVar[str] = "run the command that makes it"
    """What replaces one of a former major version."""
    features: ClassVar[frozenset[str]] = frozenset()
    """What this program knows of what ``requires`` may name."""

    format_version: str
    requires: tuple[str, ...] = ()
    """Features without which this cannot be read."""
    optional: tuple[str, ...] = ()
    """Keys that a later minor version added and a reader may leave out; below others with points between, and
    ``*`` for any."""
    made_by: tuple[Versions, ...] = ()
    """The versions of program and libraries that made the files, each once, the latest last. Empty: of before
    they were noted."""

    @model_validator(mode="wrap")
    @classmethod
    def _of_a_version(cls, content: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(content, Mapping):
            return handler(content)
        ours = FormatVersion.of(cls.model_fields["format_version"].default)
        there = _checked(cls, content, ours)
        content = {**content, "format_version": str(there or ours)}
        try:
            return handler(content)
        except ValidationError as error:
            extra = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
            if there is None:
                ignored = extra
            elif there > ours:
                declared = [name.split(".") for name in map(str, content.get("optional", ()))]
                ignored = [place for place in extra if any(_is_at(place, one) for one in declared)]
            else:
                raise
            if not ignored:
                raise
            return handler(_without(content, ignored))


def _checked(
    kind: type[VersionedManifest], content: Mapping[str, Any], ours: FormatVersion
) -> FormatVersion | None:
    """Return the version of a document, None: it names none.

    Raises:
        PydanticCustomError: this program does not read it; says why, and what does or replaces it.
    """
    if "format_version" not in content:
        return None
    maker = _maker(content)
    newer = (
        f"; install {PROGRAM} {maker} or later, which made it" if maker else f"; install a later {PROGRAM}"
    )
    try:
        there = FormatVersion.of(content["format_version"])
    except ValueError as error:
        raise _fault(str(error)) from None
    if there.major != ours.major:
        way_out = newer if there.major > ours.major else f"; {kind.anew}"
        raise _fault(f"format {there}, this program reads {ours.major}.x{way_out}")
    if unknown := sorted(set(map(str, content.get("requires", ()))) - kind.features):
        named = ", ".join(map(repr, unknown))
        raise _fault(f"requires {named}, which {PROGRAM} {version_of(PROGRAM)} does not know{newer}")
    return there


def _fault(text: str) -> PydanticCustomError:
    return PydanticCustomError(_FAULT, "{text}", {"text": text})


def format_fault(error: ValidationError) -> str | None:
    """Return why a manifest is of a form that this program does not read, None: it has another fault."""
    return next((one["msg"] for one in error.errors() if one["type"] == _FAULT), None)


def _maker(content: Mapping[str, Any]) -> str:
    """Return the version of the program that wrote a document of whatever form, or ""."""
    made_by = content.get("made_by")
    last = made_by[-1] if isinstance(made_by, Sequence) and made_by else None
    found = last.get(PROGRAM) if isinstance(last, Mapping) else None
    return found if isinstance(found, str) else ""


def _is_at(place: Place, declared: Sequence[str]) -> bool:
    pairs = zip(place, declared, strict=False)
    return len(place) == len(declared) and all(name in ("*", str(key)) for key, name in pairs)


def _without(content: Any, places: Sequence[Place]) -> Any:
    """Return a document without the keys at some places."""
    here = {place[0] for place in places if len(place) == 1}
    below: dict[int | str, list[Place]] = {}
    for place in places:
        if len(place) > 1:
            below.setdefault(place[0], []).append(place[1:])
    if isinstance(content, Mapping):
        kept = {key: value for key, value in content.items() if key not in here}
        return {k: _without(value, below[k]) if k in below else value for k, value in kept.items()}
    return [_without(one, below[i]) if i in below else one for i, one in enumerate(content)]


def made_by_after(earlier: Iterable[Versions], now: Versions | None) -> tuple[Versions, ...]:
    """Return the versions that made what was kept and what was made now, each once, the latest last.

    Args:
        earlier: from :func:`makers_of` or :func:`makers_in`.
        now: None: nothing was made now.
    """
    found = [one for one in earlier if one != now] + ([] if now is None else [now])
    return tuple(one for place, one in enumerate(found) if one not in found[:place])


def makers_of(manifests: Iterable[VersionedManifest], parts: Iterable[str]) -> Iterator[Versions]:
    """Yield what made parts by what the manifests say that name any of them, too.

    Args:
        manifests: each with ``parts``.
        parts: names.
    """
    wanted = set(parts)
    for manifest in manifests:
        if not wanted.isdisjoint(getattr(manifest, "parts", ())):
            yield from manifest.made_by


class Origin(BaseModel):
    """What every manifest says of itself, of whatever kind and version."""

    model_config = ConfigDict(frozen=True)

    format_version: int | str = ""
    made_by: tuple[Versions, ...] = ()

    def __str__(self) -> str:
        """Return it in words, the latest maker first."""
        form = (
            f"format {self.format_version}" if self.format_version != "" else "of before formats had versions"
        )
        made = ["".join(f", {name} {version}" for name, version in one.items())[2:] for one in self.made_by]
        return f"{form}; " + (
            "; and with ".join(["made with " + made[-1], *made[-2::-1]]) if made else UNKNOWN
        )


UNKNOWN = "made with versions that were not noted"


def origin_of(file: Store) -> Origin | None:
    """Return what a manifest says of itself; None: it is not there, or is none."""
    content = file.read_if_there()
    with suppress(ValidationError):
        return None if content is None else Origin.model_validate_json(content)
    return None


def makers_in(file: Store) -> tuple[Versions, ...]:
    """Return what a manifest says that made its files; nothing where it is not there, or does not say."""
    found = origin_of(file)
    return found.made_by if found else ()
