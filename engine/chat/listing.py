"""Read the names that a chat model lists: from JSON, numbered or bulleted lines, or words between commas.

Models are asked for JSON, and answer with text around it, with fences, cut off at their limit, or with
something else altogether. What is read here is bounded, and nothing of it is trusted: it is only compared
with the vocabulary.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.refusals import encodable
from engine.text.spelling import clean_name, is_blank

MOST_NAMES = 2_000
"""Names of one answer that are looked at."""

MOST_SIGNS = 1 << 20
"""Characters of one answer that are looked at."""

MOST_OF_NAME = 1_000
"""Characters of one name, or of the class's, that are looked at, with what the model says behind it."""

ENTITY_KEYS = ("entities", "entity_list", "names", "items", "list", "results", "result", "answer", "output")
"""Keys that models put a list under, the one that is asked for first."""

NAME_KEYS = ("name", "entity", "title", "text")
CLASS_KEYS = ("class_name", "class name", "class", "category")

_FENCE = re.compile(r"```[\w-]*\n?")
_ITEM = re.compile(r"^\s*(?:[-*•‣◦–]|\(?\d{1,4}[.):])\s+(?P<name>\S.*)$")

# No part of these patterns can take what the next one takes: an answer of any signs is read in one pass.
_CLASS_LINE = re.compile(r"^\W*class(?:[ _]name)?[^\w:]*:\W*+(?P<name>.*\w)", re.IGNORECASE)
_TEXTS = re.compile(r'(?<!\\)"((?:[^"\\]|\\.)*+)"\s*+(?=[,\]}])')
_MARKS = "*_`\"'“”«»" + string.whitespace
"""Characters that models put around names."""

_STARTS = re.compile(r"[\[{]")
_STARTS_TRIED = 50
"""Brackets at which a JSON value is looked for."""


@dataclass(frozen=True)
class Listing:
    """What an answer lists.

    Args:
        names: as the model wrote them, in its order, cut at :data:`MOST_NAMES` and :data:`MOST_OF_NAME`.
        class_name: that it gave, if it did; cut likewise.
        loose: they were words between commas, so a name that itself has a comma lies in several.
    """

    names: tuple[str, ...]
    class_name: str = ""
    loose: bool = False


def read_listing(content: str, cut: bool = False) -> Listing:
    """Return what an answer lists.

    Args:
        content: the answer's text.
        cut: it was cut off at the most tokens: the last name may not be whole, and is left out.
    """
    text = _FENCE.sub("", content[:MOST_SIGNS]).strip()
    if (value := _json_in(text)) is not None:
        names, class_name = _of_json(value)
        if names:
            return _listing(names, class_name)
    if text.lstrip()[:1] in "[{" or '"entities"' in text:  # JSON that was cut off
        names, class_name = _of_broken_json(text)
        if names:
            return _listing(names, class_name)
    return _of_lines(text, cut)


def _listing(names: Sequence[str], class_name: str, loose: bool = False) -> Listing:
    """Return names and the class's name as they can be shown and written: cut, cleaned, in UTF-8."""
    found = (clean_name(encodable(name[:MOST_OF_NAME])) for name in names[:MOST_NAMES])
    kept = tuple(name for name in found if name and not is_blank(name))
    return Listing(kept, clean_name(encodable(class_name[:MOST_OF_NAME])), loose)


def _json_in(text: str) -> Any | None:
    """Return the first JSON object in a text that lists names, else the first such list; None: neither."""
    decoder = json.JSONDecoder()
    best: Any | None = None
    places = (found.start() for found in _STARTS.finditer(text))
    end = 0
    for _, start in zip(range(_STARTS_TRIED), places, strict=False):
        if start < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start)
            names, _ = _of_json(value)
        except (ValueError, RecursionError):
            continue
        if names and isinstance(value, dict):
            return value
        if names and best is None:
            best = value
    return best


def _of_json(value: Any) -> tuple[list[str], str]:
    """Return the names and the class name of a JSON value."""
    if isinstance(value, list):
        return _names_of(value), ""
    if not isinstance(value, dict):
        return [], ""
    low = {key.casefold().strip(): one for key, one in value.items()}
    class_name = next((str(low[key]) for key in CLASS_KEYS if isinstance(low.get(key), str)), "")
    for key in ENTITY_KEYS:
        if names := _names_of(low.get(key)):
            return names, class_name
    for one in low.values():
        if names := _names_of(one):
            return names, class_name
        if isinstance(one, dict) and (inner := _of_json(one))[0]:
            return inner[0], class_name or inner[1]
    return [], class_name


def _names_of(value: Any) -> list[str]:
    """Return the names of a list of texts, or of objects that have a name."""
    if not isinstance(value, list):
        return []
    found = []
    for one in value[:MOST_NAMES]:
        if isinstance(one, dict):
            low = {key.casefold(): held for key, held in one.items()}
            one = next((low[key] for key in NAME_KEYS if isinstance(low.get(key), str)), None)
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, int | float) and not isinstance(one, bool):
            found.append(str(one))
    return found


def _of_broken_json(text: str) -> tuple[list[str], str]:
    """Return the whole texts of the list in a JSON document that does not end."""
    _, found, rest = text.partition("[")
    head, rest = (text[: len(text) - len(rest)], rest) if found else ("", text)
    names = []
    for one in _TEXTS.finditer(rest):
        try:
            names.append(str(json.loads(f'"{one.group(1)}"', strict=False)))
        except ValueError:
            continue
    class_name = re.search(r'"class_name"\s*:\s*"((?:[^"\\]|\\.)*)"', head)
    return names[:MOST_NAMES], class_name.group(1) if class_name else ""


def _of_lines(text: str, cut: bool) -> Listing:
    """Return the names of a text that is no JSON."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if cut and len(lines) > 1:
        lines = lines[:-1]
    class_name = next((found["name"] for line in lines if (found := _CLASS_LINE.match(line))), "")
    items = [found["name"] for line in lines if (found := _ITEM.match(line))]
    if items:
        return _listing(items, class_name)
    plain = [line for line in lines if not line.endswith(":") and not _CLASS_LINE.match(line)]
    if len(plain) > 1:
        return _listing(plain, class_name)
    pieces = list(_between_commas(plain[0])) if plain else []
    if cut and len(pieces) > 1:
        pieces = pieces[:-1]
    return _listing(pieces, class_name, loose=len(pieces) > 1)


def _between_commas(line: str) -> Iterator[str]:
    """Yield what stands between the commas or semicolons of a sentence that lists, after its colon."""
    before, colon, after = line.partition(": ")
    if colon and ("," in after or ";" in after) and "," not in before:
        line = after
    for piece in re.split(r"[,;]", line.strip().removesuffix(".")):
        yield re.sub(r"^\s*(?:and|or)\s+", "", piece)


def spellings(name: str) -> Iterator[str]:
    """Yield a listed name, then what it may be without marks and explanations, the longest first.

    Models write ``**Norway**``, ``"Norway"``, ``Norway - a kingdom``, ``Norway: a kingdom`` and
    ``Norway (kingdom)``.
    """
    seen: set[str] = set()
    for found in _spellings(name):
        found = found.strip()
        if found and found not in seen:
            seen.add(found)
            yield found


def _spellings(name: str) -> Iterator[str]:
    yield name
    bare = name.strip(_MARKS)
    yield bare
    yield bare.rstrip(_MARKS + ".,;")
    for sign in (" - ", " – ", " — ", ": ", " ("):
        head, found, _ = bare.partition(sign)
        if found:
            yield head.rstrip(_MARKS)
    if bare[:4].casefold() == "the ":
        yield bare[4:]
