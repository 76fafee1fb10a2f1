"""Read the layout of MESED: a folder with

==================  ======================================================================================
``entity2id.txt``   name TAB id a line; the ids are the layout's own
``sentences.json``  an object a line: ``tokens``, ``entityMentions`` [{``entityId``, ``start``, ``end``}], the
                    places of the mention's first and last token, and ``image``, a path from the folder on,
                    a local path or an s3:// address. Either of tokens and image may be missing
``attributes.json`` ``{name: {attribute: [value, …]}}`` (may be missing)
==================  ======================================================================================

A sentence is its tokens with a space between them, once for each entity that it mentions. Its spans were
marked by people, so they hold also where the name is spelt in another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import ijson

from engine.corpus.image_addresses import address_in
from engine.corpus.positions import AfterPosition, KeyPosition, LinePosition, MentionPosition
from engine.corpus.readers.base import Entity, RefusedRecord, Sentence
from engine.corpus.readers.json_stream import (
    decode,
    fault_of_json,
    is_whole_number,
    json_members,
    lines,
    parsed_object,
    wrong_type,
)
from engine.corpus.readers.ultrawiki import detail, dumps, is_attributes, unknown
from engine.corpus.text import nfc
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store

ENTITIES, SENTENCES, ATTRIBUTES = "entity2id.txt", "sentences.json", "attributes.json"


class EntityLine(NamedTuple):
    """A line of ``entity2id.txt``; ``fault`` says why it names no entity, None where it does."""

    number: int
    offset: int
    text: str
    name: str
    id: int
    fault: Refusal | None


def entity_lines(file: Store) -> Iterator[EntityLine]:
    """Yield the lines of ``entity2id.txt``, blank ones left out; names and ids come once."""
    names: dict[str, int] = {}
    ids: dict[int, int] = {}
    for line in lines(file):
        text, fault = decode(line)
        if not fault and not text.strip():
            continue
        name, _, number = text.rpartition("\t")
        name, given = nfc(name.strip()), whole_number(number)
        if not fault and not name:
            fault = Refusal(Code.WRONG_LAYOUT, "a line must be name TAB id")
        elif not fault and given is None:
            reason = f"the id must be a whole number, not {number.strip()[:40]!r}"
            fault = Refusal(Code.WRONG_TYPE, reason)
        for known, what, value in ((names, "name", name), (ids, "id", given)):
            if not fault and value in known:
                reason = f"the same {what} as in line {known[value]}"  # type: ignore[index]
                fault = Refusal(Code.DUPLICATE_ENTITY, reason)
        if not fault and given is not None:
            names[name] = ids[given] = line.number
        yield EntityLine(line.number, line.offset, text, name, -1 if given is None else given, fault)


def whole_number(text: str) -> int | None:
    """Return the number that a text of digits holds, or None."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


class MesedReader:
    """A folder in the layout of MESED (see the module)."""

    def __init__(self, folder: Store) -> None:
        self.folder = folder
        missing = [name for name in (ENTITIES, SENTENCES) if not (folder / name).exists()]
        if missing:
            there = ", ".join(f.name for f in folder.files()[:8]) or "nothing"
            raise FormatError(
                f"{folder.uri}: no {' and no '.join(missing)} here (found: {there}); --format mesed needs a "
                f"folder with {ENTITIES} and {SENTENCES}; see --help for the other formats"
            )

    def files(self) -> list[Store]:
        """Return the files of the layout that are there; images are not among them."""
        names = (ENTITIES, SENTENCES, ATTRIBUTES)
        return [self.folder / name for name in names if (self.folder / name).exists()]

    def entities(self) -> Iterator[Entity | RefusedRecord]:
        """Yield the lines of entity2id.txt, with the attributes of each."""
        attributes: dict[str, dict[str, list[str]]] = {}
        yield from self._attributes(attributes)
        for line in entity_lines(self.folder / ENTITIES):
            position = LinePosition(line.number, line.offset)
            if line.fault:
                yield RefusedRecord(ENTITIES, position, line.fault, line.text, "entity")
            else:
                yield Entity(line.name, [], None, attributes.pop(line.name, {}), ENTITIES, position)
        for name in attributes:
            yield unknown(ATTRIBUTES, name, ENTITIES)

    def _attributes(self, found: dict[str, dict[str, list[str]]]) -> Iterator[RefusedRecord]:
        if not (self.folder / ATTRIBUTES).exists():
            return
        last = ""
        try:
            for name, given in json_members(self.folder / ATTRIBUTES):
                last = name
                if not is_attributes(given):
                    yield detail(ATTRIBUTES, name, "attributes must be {attribute: [texts]}", given)
                else:
                    found[nfc(name.strip())] = given  # type: ignore[assignment]
        except ijson.JSONError as error:
            place = AfterPosition(KeyPosition(last))
            yield RefusedRecord(ATTRIBUTES, place, fault_of_json(error), of="file")

    @cached_property
    def _names(self) -> dict[int, str]:
        return {line.id: line.name for line in entity_lines(self.folder / ENTITIES) if not line.fault}

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Yield the mentions of sentences.json, line by line."""
        for line in lines(self.folder / SENTENCES):
            text, fault = decode(line)
            position = LinePosition(line.number, line.offset)
            if fault is None and (not text or text.isspace()):
                continue
            row = fault or parsed_object(text, line.ended)
            if isinstance(row, Refusal):
                yield RefusedRecord(SENTENCES, position, row, text)
            elif fault := _fault_of_row(row):
                yield RefusedRecord(SENTENCES, position, fault, text)
            else:
                yield from self._mentions(row, line.number)

    def _mentions(self, row: dict[str, Any], number: int) -> Iterator[Sentence | RefusedRecord]:
        tokens: list[str] = row.get("tokens") or []
        ends = list(accumulate(tokens, lambda end, token: end + 1 + len(token), initial=-1))
        image = address_in(self.folder, row["image"]) if row.get("image") else None
        for place, mention in enumerate(row["entityMentions"]):
            position = MentionPosition(number, place)
            if fault := self._fault_of_mention(mention, tokens, image):
                yield RefusedRecord(SENTENCES, position, fault, dumps(mention))
                continue
            name = self._names[mention["entityId"]]
            if tokens:
                start, end = ends[mention["start"]] + 1, ends[mention["end"] + 1]
                yield Sentence(name, " ".join(tokens), start, end, image, SENTENCES, position, annotated=True)
            else:
                yield Sentence(name, "", None, None, image, SENTENCES, position)

    def _fault_of_mention(self, mention: object, tokens: list[str], image: str | None) -> Refusal | None:
        if not isinstance(mention, dict):
            return wrong_type("a mention must be an object", mention)
        for key in ("entityId", "start", "end") if tokens else ("entityId",):
            value = mention.get(key)
            if not is_whole_number(value):
                return wrong_type(f"{key} must be a whole number", value)
        if mention["entityId"] not in self._names:
            reason = f"entityId {mention['entityId']} is in no usable line of {ENTITIES}"
            return Refusal(Code.UNKNOWN_ENTITY, reason)
        if not tokens:
            return None if image else Refusal(Code.NO_CONTENT, "neither a sentence nor an image")
        start, end = mention["start"], mention["end"]
        if not 0 <= start <= end < len(tokens):
            reason = f"start {start} and end {end} are no span of its {len(tokens)} tokens"
            return Refusal(Code.SPAN_OUT_OF_RANGE, reason)
        return None


def _fault_of_row(row: dict[str, Any]) -> Refusal | None:
    tokens, mentions, image = row.get("tokens"), row.get("entityMentions"), row.get("image")
    if tokens is not None and not (isinstance(tokens, list) and all(isinstance(t, str) for t in tokens)):
        return Refusal(Code.WRONG_TYPE, "tokens must be a list of texts")
    if not isinstance(mentions, list):
        return wrong_type("entityMentions must be a list", mentions)
    if not mentions:
        return Refusal(Code.NO_CONTENT, "mentions no entity")
    return None if isinstance(image, str | None) else wrong_type("image must be a text", image)
