"""Write a set of entities in the formats of programs that keep lists.

- ``csv``: a table for spreadsheets, and for `seedset import` and `link` as a table of entities.
- ``jsonl``: an object a line, with the same fields.
- ``patterns``: Prodigy's and spaCy's match patterns, one a spelling.
- ``skos``: a SKOS concept scheme (https://www.w3.org/TR/skos-reference/) in Turtle.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import quote

import regex

from engine.errors import UserError

Format = Literal["csv", "jsonl", "patterns", "skos"]
FORMATS: tuple[Format, ...] = get_args(Format)

COLUMNS = ("rank", "name", "aliases", "score", "probability", "description", "attributes")
"""Of a table."""

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets compute (OWASP, CSV injection)."""

LABEL = "ENTITY"
"""The label of patterns of a set without a name."""

# What spaCy's tokenizers take apart (signs, digits beside letters) is left to them, as a text.
_PLAIN = regex.compile(r"[\p{L}\p{M}]+|\p{N}+")
_IRI = regex.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>\"{}|^`\\]+")
_NOT_IN_TURTLE = regex.compile(r"[\x00-\x1f\\\"\x7f]")


@dataclass(frozen=True)
class Member:
    """An entity of a set; its rank, score and probability where it came from an answer."""

    name: str
    aliases: Sequence[str] = ()
    description: str = ""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rank: int | None = None
    score: float | None = None
    probability: float | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The fields as a JSON object, without those that it has not."""
        found = {name: getattr(self, name) for name in COLUMNS}
        found["aliases"], found["attributes"] = list(self.aliases), dict(self.attributes)
        return {name: value for name, value in found.items() if value not in (None, "", [], {})}

    @property
    def spellings(self) -> list[str]:
        """The name, then the aliases, each once."""
        return list(dict.fromkeys((self.name, *self.aliases)))


@dataclass(frozen=True)
class SetName:
    """The name of a set, and the address below which its entities and itself are named in SKOS."""

    label: str = ""
    base_iri: str = ""


@dataclass(frozen=True)
class _Writer:
    media_type: str
    ending: str
    lines: Callable[[Sequence[Member], SetName], Iterator[str]]


def check_base_iri(given: str) -> None:
    """Refuse what is no absolute IRI with an end at which a name can follow (UserError)."""
    if not _IRI.fullmatch(given) or given[-1] not in "/#:=":
        raise UserError(
            f"base IRI {given!r}: write an absolute address that names can follow, such as "
            "https://example.org/things/"
        )


def written(kind: Format, members: Sequence[Member], name: SetName) -> bytes:
    """Return a set in a format, in UTF-8; half a surrogate pair becomes ``?``.

    Raises:
        UserError: SKOS, without an address below which things are named.
    """
    return "".join(_WRITERS[kind].lines(members, name)).encode("utf-8", "replace")


def media_type(kind: Format) -> str:
    """Return the media type of a format."""
    return _WRITERS[kind].media_type


def ending(kind: Format) -> str:
    """Return the ending of files of a format, with the dot."""
    return _WRITERS[kind].ending


def _csv(members: Sequence[Member], _: SetName) -> Iterator[str]:
    """Yield the lines of a table as RFC 4180 has it, with the mark by which spreadsheets know UTF-8."""
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer)
    yield "\ufeff"
    table.writerow(COLUMNS)
    for one in members:
        values = one.record
        values["aliases"] = "|".join(one.aliases)
        values["attributes"] = _json(values["attributes"]) if one.attributes else ""
        # A number is none of a formula's beginnings, whatever its sign.
        table.writerow(
            _harmless(value) if isinstance(value := values.get(name, ""), str) else repr(value)
            for name in COLUMNS
        )
    yield buffer.getvalue()


def _harmless(text: str) -> str:
    """Return a cell that no spreadsheet computes: a formula's beginning gets an apostrophe in front."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text


def _jsonl(members: Sequence[Member], _: SetName) -> Iterator[str]:
    for one in members:
        yield f"{_json(one.record)}\n"


def _patterns(members: Sequence[Member], name: SetName) -> Iterator[str]:
    """Yield a pattern a spelling: of words alone in any case, else of the text as it is written."""
    label = name.label or LABEL
    known = set()
    for one in members:
        for spelling in one.spellings:
            words = spelling.split(" ")
            plain = all(_PLAIN.fullmatch(word) for word in words)
            pattern = [{"lower": word.lower()} for word in words] if plain else spelling
            line = _json({"label": label, "pattern": pattern})
            if line not in known:
                known.add(line)
                yield f"{line}\n"


def _skos(members: Sequence[Member], name: SetName) -> Iterator[str]:
    """Yield a concept scheme: names are preferred labels, aliases alternative ones, attributes notes."""
    check_base_iri(name.base_iri)
    label = name.label or "set"
    # No entity's: in a name ? is escaped.
    scheme = f"<{name.base_iri}?set={quote(label, safe='', errors='replace')}>"
    yield "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n\n"
    yield f"{scheme} a skos:ConceptScheme ;\n    skos:prefLabel {_literal(label)} .\n"
    for one in members:
        facts = [f"skos:prefLabel {_literal(one.name)}"]
        # One text is not both (SKOS S13).
        facts += [f"skos:altLabel {_literal(alias)}" for alias in one.spellings if alias != one.name]
        facts += [f"skos:definition {_literal(one.description)}"] if one.description else []
        facts += [
            f"skos:note {_literal(f'{attribute}: {value}')}"
            for attribute, values in one.attributes.items()
            for value in values
        ]
        facts += [f"skos:inScheme {scheme}", f"skos:topConceptOf {scheme}"]
        about = " ;\n    ".join(("a skos:Concept", *facts))
        yield f"\n<{name.base_iri}{quote(one.name, safe='', errors='replace')}> {about} .\n"


def _literal(text: str) -> str:
    """Return a text as Turtle writes it."""
    escaped = _NOT_IN_TURTLE.sub(lambda sign: f"\\u{ord(sign[0]):04X}", text)
    return f'"{escaped}"'


def _json(given: object) -> str:
    return json.dumps(given, ensure_ascii=False, allow_nan=False)


_WRITERS: dict[Format, _Writer] = {
    "csv": _Writer("text/csv", ".csv", _csv),
    "jsonl": _Writer("application/x-ndjson", ".jsonl", _jsonl),
    "patterns": _Writer("application/x-ndjson", ".patterns.jsonl", _patterns),
    "skos": _Writer("text/turtle", ".ttl", _skos),
}
