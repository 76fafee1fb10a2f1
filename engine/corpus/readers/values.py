"""Take values out of records as JSON, pandas, Arrow and Hugging Face write them, one detail at a time.

What is missing (null, NaN) is None. A detail of another type than it must have is left out and named among
the record's faults; what is good of the record stays. All readers of outside formats use these functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from engine.corpus.positions import Position
from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.readers.json_stream import wrong_type
from engine.refusals import Code, Refusal
from engine.text.spelling import clean_name

Values = dict[str, Any]

NO_CONTENT = Refusal(Code.NO_CONTENT, "neither a sentence nor an image")

_DATA_ADDRESS = re.compile(r"data:[^,]*;base64,")

ALIAS_SEPARATOR = "|"
"""What parts aliases in a cell of a table of texts."""

WHOLE = 2**63
"""Bound of whole numbers that are given with a decimal point."""


class BadDetail(NamedTuple):
    """A detail of a record that cannot be used: the reason, and its value for the quarantine."""

    refusal: Refusal
    record: str


Faults = list[BadDetail]


class Image(NamedTuple):
    """An image as a record has it: an address, or its bytes (a text is base64); nothing: no image."""

    address: str | None = None
    content: bytes | str | None = None


NO_IMAGE = Image()


def dumps(value: object) -> str:
    """Return a refused value as text for the quarantine."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def details(faults: Faults, source: str, position: Position, about: str = "") -> Iterator[RefusedRecord]:
    """Yield the faults as refusals of details; ``about`` is said before each reason."""
    for refusal, record in faults:
        yield RefusedRecord(source, position, refusal.about(about) if about else refusal, record, "detail")


def is_missing(value: object) -> bool:
    """Return whether a value stands for none: null, or the NaN that pandas writes in its place."""
    return value is None or (isinstance(value, float) and value != value)


def text_of(value: object, what: str) -> str | Refusal | None:
    """Return a text, None where it is missing, or why it is none; bytes are taken as UTF-8."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            return Refusal(Code.NOT_UTF8, f"not valid UTF-8 at byte {error.start} of {what}")
    return wrong_type(f"{what} must be a text", value)


def required_text(value: object, what: str) -> str | Refusal:
    """Return a text, or why there is none."""
    found = text_of(value, what)
    return wrong_type(f"{what} must be a text", None) if found is None else found


def number_of(value: object, what: str) -> int | Refusal | None:
    """Return a whole number, None where it is missing, or why it is none; 12.0 is 12.

    true and false, integers to Python, are none.
    """
    if is_missing(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float | Decimal) and -WHOLE < value < WHOLE and value == int(value):
        return int(value)
    return wrong_type(f"{what} must be a whole number", value)


def flag_of(value: object, what: str, faults: Faults) -> bool:
    """Return whether a flag is set; what is neither true nor false goes to ``faults``."""
    if isinstance(value, bool) or is_missing(value):
        return value is True
    faults.append(BadDetail(wrong_type(f"{what} must be true or false", value), dumps(value)))
    return False


def offsets_of(row: Values, faults: Faults) -> tuple[int, int] | tuple[None, None]:
    """Return a row's ``start`` and ``end``; none of them where one is missing or cannot be used."""
    first, last = row.get("start"), row.get("end")
    if first is None and last is None:
        return None, None
    start, end = number_of(first, "start"), number_of(last, "end")
    if isinstance(start, int) and isinstance(end, int):
        return start, end
    given = dumps({"start": first, "end": last})
    for found in (start, end):
        if isinstance(found, Refusal):
            faults.append(BadDetail(found, given))
            return None, None
    if start is not None or end is not None:
        reason = "start and end belong together: give both or none"
        faults.append(BadDetail(Refusal(Code.CONFLICTING_FIELDS, reason), given))
    return None, None


def image_of(row: Values, faults: Faults) -> Image:
    """Return the image of a row's ``image`` or ``image_bytes``; no image where both are given."""
    found = NO_IMAGE
    for column in ("image", "image_bytes"):
        value = row.get(column)
        if value is None:
            continue
        one = _image(value, column)
        if isinstance(one, Refusal):
            faults.append(BadDetail(one, dumps(value)))
        elif any(one) and any(found):
            reason = Refusal(Code.CONFLICTING_FIELDS, "image and image_bytes: give one of them")
            faults.append(BadDetail(reason, dumps(row.get("image"))))
            return NO_IMAGE
        elif any(one):
            found = one
    return found


def _image(value: object, column: str) -> Image | Refusal:
    """Return the image that a value stands for: an address, bytes, or both as Hugging Face stores them."""
    if is_missing(value):
        return NO_IMAGE
    if isinstance(value, dict) and value and value.keys() <= {"bytes", "path"}:
        content, path = value.get("bytes"), value.get("path")
        if not is_missing(content) and content:
            return _image(content, "image_bytes")
        return _image(path, "image")
    if isinstance(value, bytes):
        return Image(content=value or None)
    if not isinstance(value, str):
        expected = {"image": "image must be a text", "image_bytes": "image_bytes must be bytes or base64"}
        return wrong_type(expected[column], value)
    if found := _DATA_ADDRESS.match(value[:200]):
        return Image(content=value[found.end() :])
    return Image(value or None) if column == "image" else Image(content=value or None)


def texts_of(value: object, what: str, one: str, faults: Faults) -> list[str]:
    """Return the texts of a list; a lone text is a list of one.

    Args:
        value: as the record has it.
        what: names it in a reason, as ``aliases``.
        one: names an item, as ``an alias``.
        faults: receives the items that are no texts.
    """
    if is_missing(value):
        return []
    if not isinstance(value, str | bytes | list | tuple):
        faults.append(BadDetail(wrong_type(f"{what} must be a list of texts", value), dumps(value)))
        return []
    found = []
    for item in [value] if isinstance(value, str | bytes) else value:
        text = text_of(item, one)
        if isinstance(text, Refusal):
            faults.append(BadDetail(text, dumps(item)))
        elif text is not None:
            found.append(text)
    return found


def attributes_of(value: object, faults: Faults) -> dict[str, list[str]]:
    """Return ``{attribute: [text, …]}`` of a value; what is no such attribute or text goes to ``faults``."""
    found: dict[str, list[str]] = {}
    for key, values in _pairs(value, faults):
        name = required_text(key, "an attribute's name")
        if isinstance(name, Refusal):
            faults.append(BadDetail(name, dumps(key)))
        elif not is_missing(values):
            texts = texts_of(values, f"attribute {name!r}", f"a value of attribute {name!r}", faults)
            if texts or values in ([], ()):
                found[name] = found.get(name, []) + texts
    return found


def _pairs(value: object, faults: Faults) -> Sequence[tuple[object, object]]:
    """Return attributes with their values: of an object, or of the pairs that others make of one."""
    if is_missing(value):
        return ()
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return value
    if isinstance(value, list) and all(isinstance(p, dict) and p.keys() == {"key", "value"} for p in value):
        return [(pair["key"], pair["value"]) for pair in value]
    refusal = wrong_type("attributes must be {attribute: [texts]}", value)
    faults.append(BadDetail(refusal, dumps(value)))
    return ()


def entity_details(row: Values, faults: Faults) -> tuple[list[str], str | None, dict[str, list[str]]]:
    """Return the aliases, the description and the attributes of an entity's row."""
    aliases = texts_of(row.get("aliases"), "aliases", "an alias", faults)
    description = optional_text(row.get("description"), "description", faults)
    return aliases, description, attributes_of(row.get("attributes"), faults)


def optional_text(value: object, what: str, faults: Faults) -> str | None:
    """Return a text, None where it is missing or goes to ``faults``."""
    found = text_of(value, what)
    if isinstance(found, Refusal):
        faults.append(BadDetail(found, dumps(value)))
        return None
    return found


def entity_of_row(
    row: Values, source: str, position: Position, text: str = ""
) -> tuple[Entity | None, list[RefusedRecord]]:
    """Return the entity of a row, and what is refused of it; None: all of it."""
    name = required_text(row.get("name"), "name")
    if isinstance(name, Refusal):
        return None, [RefusedRecord(source, position, name, text or dumps(row), "entity")]
    written, name, faults = name.strip(), clean_name(name), Faults()
    aliases, description, attributes = entity_details(row, faults)
    removed = flag_of(row.get("removed"), "removed", faults)
    refused = list(details(faults, source, position, f"{name!r}:"))
    aliases = [clean_name(alias) for alias in aliases]
    return Entity(name, aliases, description, attributes, source, position, written, removed), refused


def from_cells(row: Values) -> Values:
    """Return a row of texts, as CSV has them: aliases parted; attributes, offsets and flags read.

    What cannot be read stays a text, and is refused as that.
    """
    if isinstance(aliases := row.get("aliases"), str):
        row["aliases"] = [alias.strip() for alias in aliases.split(ALIAS_SEPARATOR) if alias.strip()]
    for name in ("attributes", "start", "end", "annotated", "removed"):
        if isinstance(cell := row.get(name), str):
            with suppress(ValueError):
                row[name] = json.loads(cell)
    return row
