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

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import ijson

from engine.corpus.image_addresses import address_in
from engine.corpus.positions import AfterPosition, KeyPosition, LinePosition, MentionPosition
from engine.corpus.readers.base import Entity, RefusedRecord, Sentence
from engine.corpus.readers.json_stream import (
    decode,
    fault_of_json,
    json_members,
    line_object,
    lines,
    wrong_type,
)
from engine.corpus.readers.source_files import layout_files
from engine.corpus.readers.ultrawiki import unknown
from engine.corpus.readers.values import (
    NO_CONTENT,
    BadDetail,
    Faults,
    Image,
    Values,
    attributes_of,
    details,
    dumps,
    image_of,
    is_missing,
    number_of,
)
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.text.spelling import SpellingTable, clean_name

ENTITIES, SENTENCES, ATTRIBUTES = "entity2id.txt", "sentences.json", "attributes.json"


class EntityLine(NamedTuple):
    """A line of ``entity2id.txt``; ``fault`` says why it names no entity, None where it does."""

    number: int
    offset: int
    text: str
    name: str
    id: int
    fault: Refusal | None


class Context(NamedTuple):
    """What a line of ``sentences.json`` holds; the image's address is a whole one."""

    tokens: list[str]
    mentions: list[object]
    image: Image


class MentionSpan(NamedTuple):
    """A mention: the layout's own id of the entity, and the first and the last of its tokens."""

    entity: int
    start: int = 0
    end: int = 0


def entity_lines(file: Store) -> Iterator[EntityLine]:
    """Yield the lines of ``entity2id.txt``, blank ones left out; names and ids come once."""
    names: dict[str, int] = {}
    ids: dict[int, int] = {}
    for line in lines(file):
        text, fault = decode(line)
        if not fault and not text.strip():
            continue
        name, _, number = text.rpartition("\t")
        name, given = clean_name(name), whole_number(number)
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
    """Return the number that a text of digits holds, or None; 7.0, as pandas writes it, is 7."""
    text = re.sub(r"\.0*\Z", "", text.strip())
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


class MesedReader:
    """A folder in the layout of MESED (see the module)."""

    def __init__(self, folder: Store) -> None:
        self.folder = folder
        self._files, self.unread = layout_files(folder, "mesed", (ENTITIES, SENTENCES), (ATTRIBUTES,))

    def files(self) -> list[Store]:
        """Return the files of the layout that are there; images are not among them."""
        return list(self._files.values())

    def entities(self) -> Iterator[Entity | RefusedRecord]:
        """Yield the lines of entity2id.txt, with the attributes of each."""
        attributes: dict[str, dict[str, list[str]]] = {}
        yield from self._attributes(attributes)
        for line in entity_lines(self._files[ENTITIES]):
            position = LinePosition(line.number, line.offset)
            if line.fault:
                yield RefusedRecord(ENTITIES, position, line.fault, line.text, "entity")
            else:
                yield Entity(line.name, [], None, attributes.pop(line.name, {}), ENTITIES, position)
        for name in attributes:
            yield unknown(ATTRIBUTES, name, ENTITIES)

    def _attributes(self, found: dict[str, dict[str, list[str]]]) -> Iterator[RefusedRecord]:
        if ATTRIBUTES not in self._files:
            return
        last = ""
        try:
            for name, given in json_members(self._files[ATTRIBUTES]):
                last, faults = name, Faults()
                own = attributes_of(given, faults)
                yield from details(faults, ATTRIBUTES, KeyPosition(name))
                if found.setdefault(self._listed(name), own) != own:
                    reason = Refusal(Code.CONFLICTING_FIELDS, "has attributes twice; the first ones stay")
                    yield RefusedRecord(ATTRIBUTES, KeyPosition(name), reason, dumps(given), "detail")
        except ijson.JSONError as error:
            place = AfterPosition(KeyPosition(last))
            yield RefusedRecord(ATTRIBUTES, place, fault_of_json(error), of="file")

    def _listed(self, name: str) -> str:
        """Return a name of another file as entity2id.txt spells it, if it does."""
        name = clean_name(name)
        return self._spellings.spelt(name) or name

    @cached_property
    def _spellings(self) -> SpellingTable[int]:
        return SpellingTable({name: number for number, name in self._names.items()})

    @cached_property
    def _names(self) -> dict[int, str]:
        return {line.id: line.name for line in entity_lines(self._files[ENTITIES]) if not line.fault}

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Yield the mentions of sentences.json, line by line."""
        for line in lines(self._files[SENTENCES]):
            if line.is_blank:
                continue
            position = LinePosition(line.number, line.offset)
            row, text = line_object(line, ("tokens",))
            if isinstance(row, Refusal):
                yield RefusedRecord(SENTENCES, position, row, text)
                continue
            faults = Faults()
            context = self._context(row, faults)
            if isinstance(context, Refusal):
                yield RefusedRecord(SENTENCES, position, context, text)
            else:
                yield from details(faults, SENTENCES, position)
                yield from self._mentions(context, line.number)

    def _context(self, row: Values, faults: Faults) -> Context | Refusal:
        """Return what a line holds, or why it cannot be used; bad details go to ``faults``."""
        mentions, tokens = row.get("entityMentions"), _tokens(row.get("tokens"))
        if not isinstance(mentions, list):
            return wrong_type("entityMentions must be a list", None if is_missing(mentions) else mentions)
        if not mentions:
            return Refusal(Code.NO_CONTENT, "mentions no entity")
        image = image_of(row, faults)
        if isinstance(tokens, Refusal):
            if not any(image):
                return tokens
            faults.append(BadDetail(tokens, dumps(row["tokens"])))
            tokens = []
        if not tokens and not any(image) and faults:
            return faults[0].refusal
        address = address_in(self.folder, image.address) if image.address else None
        return Context(tokens, mentions, image._replace(address=address))

    def _mentions(self, context: Context, number: int) -> Iterator[Sentence | RefusedRecord]:
        tokens, image = context.tokens, context.image
        ends = list(accumulate(tokens, lambda end, token: end + 1 + len(token), initial=-1))
        for place, mention in enumerate(context.mentions):
            position = MentionPosition(number, place)
            span = self._span(mention, tokens, any(image))
            if isinstance(span, Refusal):
                yield RefusedRecord(SENTENCES, position, span, dumps(mention))
                continue
            name, sentence, start, end = self._names[span.entity], " ".join(tokens), None, None
            if tokens:
                start, end = ends[span.start] + 1, ends[span.end + 1]
            yield Sentence(
                name, sentence, start, end, image.address, SENTENCES, position, bool(tokens), image.content
            )

    def _span(self, mention: object, tokens: list[str], has_image: bool) -> MentionSpan | Refusal:
        """Return the entity and the span of tokens that a mention names, or why it cannot be used."""
        if not isinstance(mention, dict):
            return wrong_type("a mention must be an object", mention)
        numbers = []
        for key in ("entityId", "start", "end") if tokens else ("entityId",):
            value = number_of(mention.get(key), key)
            if not isinstance(value, int):
                return value or wrong_type(f"{key} must be a whole number", None)
            numbers.append(value)
        span = MentionSpan(*numbers)
        if span.entity not in self._names:
            reason = f"entityId {span.entity} is in no usable line of {ENTITIES}"
            return Refusal(Code.UNKNOWN_ENTITY, reason)
        if not tokens:
            return span if has_image else NO_CONTENT
        if not 0 <= span.start <= span.end < len(tokens):
            reason = f"start {span.start} and end {span.end} are no span of its {len(tokens)} tokens"
            return Refusal(Code.SPAN_OUT_OF_RANGE, reason)
        return span


def _tokens(value: object) -> list[str] | Refusal:
    """Return the tokens of a line, none where they are missing, or why they cannot be used."""
    if is_missing(value):
        return []
    if not isinstance(value, list) or not all(isinstance(token, str) for token in value):
        return Refusal(Code.WRONG_TYPE, "tokens must be a list of texts")
    return value
