"""Read the layout of UltraWiki: a folder with

======================  =====================================================================
``entities.txt``        a name a line
``ent2sents.json``      ``{name: [sentence, …]}``
``ent2text.json``       ``{name: description}`` (may be missing)
``attributes.json``     ``{class: {name: {attribute: [value, …]}}}`` (may be missing); the class
                        is kept as one more attribute, "class"
======================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import ijson

from engine.corpus.positions import AfterPosition, KeyPosition, LinePosition, SentencePosition
from engine.corpus.readers.base import Entity, RefusedRecord, Sentence
from engine.corpus.readers.json_stream import (
    decode,
    expect_object,
    fault_of_json,
    json_events,
    json_members,
    json_value,
    lines,
    wrong_type,
)
from engine.corpus.readers.source_files import layout_files
from engine.corpus.readers.values import (
    NO_CONTENT,
    Faults,
    attributes_of,
    details,
    dumps,
    is_missing,
    optional_text,
)
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.text.spelling import SpellingTable, clean_name

REQUIRED, OPTIONAL = ("entities.txt", "ent2sents.json"), ("ent2text.json", "attributes.json")
CLASS = "class"
Attributes = dict[str, dict[str, list[str]]]


class UltraWikiReader:
    """A folder in the layout of UltraWiki (see the module)."""

    def __init__(self, folder: Store) -> None:
        if folder.size() >= 0:
            raise FormatError(
                f"{folder.uri}: a file; --format ultrawiki needs a folder with entities.txt and "
                "ent2sents.json; a file of sentences is read with --format auto"
            )
        self._files, self.unread = layout_files(folder, "ultrawiki", REQUIRED, OPTIONAL)

    def files(self) -> list[Store]:
        """Return the files of the layout that are there."""
        return list(self._files.values())

    def entities(self) -> Iterator[Entity | RefusedRecord]:
        """Yield the lines of entities.txt, with what the other files know of each."""
        descriptions: dict[str, str] = {}
        attributes: Attributes = {}
        yield from self._descriptions(descriptions)
        yield from self._attributes(attributes)
        source = "entities.txt"
        for line in lines(self._files[source]):
            text, fault = decode(line)
            position = LinePosition(line.number, line.offset)
            if fault:
                yield RefusedRecord(source, position, fault, text, "entity")
            elif text.strip():
                name = clean_name(text)
                about = descriptions.pop(name, None), attributes.pop(name, {})
                yield Entity(name, [], *about, source, position, text.strip())
        for name in descriptions:
            yield unknown("ent2text.json", name, source)
        for name in attributes:
            yield unknown("attributes.json", name, source)

    @cached_property
    def _spellings(self) -> SpellingTable[None]:
        """The names of entities.txt."""
        found: SpellingTable[None] = SpellingTable()
        for line in lines(self._files["entities.txt"]):
            text, fault = decode(line)
            if not fault:
                found.add(clean_name(text), None)
        return found

    def _listed(self, name: str) -> str:
        """Return a name of another file as entities.txt spells it, if it does."""
        name = clean_name(name)
        return self._spellings.spelt(name) or name

    def _descriptions(self, found: dict[str, str]) -> Iterator[RefusedRecord]:
        source = "ent2text.json"
        if source not in self._files:
            return
        last = ""
        try:
            for name, text in json_members(self._files[source]):
                last, faults = name, Faults()
                description = optional_text(text, "description", faults)
                yield from details(faults, source, KeyPosition(name))
                listed = self._listed(name)
                if description is not None and found.setdefault(listed, description) != description:
                    reason = Refusal(Code.CONFLICTING_FIELDS, "is described twice; the first text stays")
                    yield RefusedRecord(source, KeyPosition(name), reason, description, "detail")
        except ijson.JSONError as error:
            place = AfterPosition(KeyPosition(last))
            yield RefusedRecord(source, place, fault_of_json(error), of="file")

    def _attributes(self, found: Attributes) -> Iterator[RefusedRecord]:
        source = "attributes.json"
        if source not in self._files:
            return
        last = ""
        try:
            for group, members in json_members(self._files[source]):
                last = group
                kind = clean_name(group)
                if is_missing(members):
                    continue
                if not isinstance(members, dict):
                    reason = wrong_type("a class must be {name: {attribute: [values]}}", members)
                    yield RefusedRecord(source, KeyPosition(group), reason, dumps(members), "detail")
                    continue
                for name, given in members.items():
                    faults = Faults()
                    own = attributes_of(given, faults)
                    yield from details(faults, source, KeyPosition(name))
                    known = found.setdefault(self._listed(name), {})
                    for attribute, values in [(CLASS, [kind] if kind else []), *own.items()]:
                        merged = known.get(attribute, []) + values
                        known[attribute] = list(dict.fromkeys(merged))
        except ijson.JSONError as error:
            place = AfterPosition(KeyPosition(last))
            yield RefusedRecord(source, place, fault_of_json(error), of="file")

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Yield the sentences of ent2sents.json in its order; a name that comes twice is one entity."""
        source = "ent2sents.json"
        events = json_events(self._files[source])
        name, place, inside = "", 0, False
        try:
            expect_object(events)
            for event, value in events:
                if event == "string" and inside:
                    position = SentencePosition(name, place)
                    yield Sentence(name, str(value), None, None, None, source, position)
                    place += 1
                elif event == "map_key":
                    name, place = clean_name(str(value)), 0
                elif event == "start_array" and not inside:
                    inside = True
                elif event == "end_array":
                    inside = False
                elif event == "null" and not inside:
                    pass  # a missing list
                elif event != "end_map":
                    yield _wrong(source, name, place, json_value(events, event, value), inside)
                    place += 1
        except (ijson.JSONError, StopIteration) as error:
            after = AfterPosition(SentencePosition(name, place - 1))
            yield RefusedRecord(source, after, fault_of_json(error), of="file")


def _wrong(source: str, name: str, place: int, value: object, inside: bool) -> RefusedRecord:
    expected = "a sentence must be a text" if inside else "an entity must have a list of sentences"
    fault = NO_CONTENT if value is None else wrong_type(expected, value)
    return RefusedRecord(source, SentencePosition(name, place), fault, dumps(value))


def unknown(source: str, name: str, entities: str) -> RefusedRecord:
    """Return the refusal of what a file holds on a name that the file of entities lacks."""
    refusal = Refusal(Code.UNKNOWN_ENTITY, f"not in {entities}")
    return RefusedRecord(source, KeyPosition(name), refusal, name, "detail")
