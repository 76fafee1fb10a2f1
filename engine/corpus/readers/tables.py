"""Read tables of sentences and entities, as JSON lines or Parquet.

Sentences (``sentences.jsonl`` or ``sentences/*.jsonl``; ``sentences*.parquet`` or ``sentences/*.parquet``):

===============  ========  ==================================================================
``entity``       required  the name of the entity that the sentence mentions
``sentence``     required  the text; may be missing where there is an image
``start end``    optional  characters of the mention, end exclusive; found by us where missing
``image``        optional  an image: path from the source's folder on, local path or s3:// address
``image_bytes``  optional  in its place the image's bytes; in JSON lines as base64. 32 MiB at most
===============  ========  ==================================================================

Entities (``entities.jsonl``, ``entities.parquet``; optional: without it, those of the sentences in order of
first appearance):

===============  ========  ========================================
``name``         required  unique
``aliases``      optional  list of other spellings
``description``  optional  a text
``attributes``   optional  ``{attribute: [value, …]}``
===============  ========  ========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.image_addresses import address_in
from engine.corpus.positions import LinePosition, Position, RowPosition
from engine.corpus.readers.base import Entity, RefusedRecord, Sentence
from engine.corpus.readers.json_stream import (
    BLOCK,
    decode,
    is_whole_number,
    lines,
    parsed_object,
    wrong_type,
)
from engine.corpus.readers.ultrawiki import dumps, is_attributes
from engine.corpus.text import nfc
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store

BATCH = 8192
IMAGE_BATCH = 16
"""Rows that are held at once where they hold images."""

SENTENCE_COLUMNS = ("entity", "sentence", "start", "end", "image", "image_bytes")
ENTITY_COLUMNS = ("name", "aliases", "description", "attributes")

Values = dict[str, Any]
Row = tuple[Values | Refusal, Position, str]
"""A row's values (or why there are none), its place, and its text for the quarantine ("" = the values)."""


class BrokenFileError(Exception):
    """The rest of a file cannot be read."""

    def __init__(self, position: Position, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.position, self.refusal = position, refusal


class TableReader:
    """A folder (or one file) with tables of sentences and, if it has one, of entities."""

    def __init__(self, place: Store, suffix: str, read: Callable[[Store, tuple[str, ...]], Iterator[Row]]):
        self._read = read
        if place.size() >= 0:
            self._sentences, self._entities = [place], []
            self._root = Store(place.fs, place.path.rsplit("/", 1)[0], place.is_local)
            return
        files = {f.path[len(place.path) + 1 :]: f for f in place.files(suffix)}
        self._root = place
        self._sentences = [f for name, f in files.items() if _holds_sentences(name)]
        self._entities = [f for name, f in files.items() if name == f"entities{suffix}"]
        if not self._sentences:
            there = ", ".join(f.name for f in place.files()[:8]) or "nothing"
            raise FormatError(
                f"{place.uri}: no sentences{suffix} and no sentences/*{suffix} here (found: {there}); "
                "see --help for the formats"
            )

    def files(self) -> list[Store]:
        """Return the files that are read."""
        return self._entities + self._sentences

    def _name(self, file: Store) -> str:
        return file.path[len(self._root.path) + 1 :]

    def entities(self) -> Iterator[Entity | RefusedRecord] | None:
        """Yield the rows of the entity table; None where there is none."""
        return self._entity_rows(self._entities[0]) if self._entities else None

    def _entity_rows(self, file: Store) -> Iterator[Entity | RefusedRecord]:
        for row, position in self._good_rows(file, ENTITY_COLUMNS, _fault_of_entity, "entity"):
            if isinstance(row, RefusedRecord):
                yield row
                continue
            name, about = nfc(row["name"].strip()), row.get("description")
            aliases = [nfc(a.strip()) for a in row.get("aliases") or []]
            yield Entity(name, aliases, about, row.get("attributes") or {}, self._name(file), position)

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Yield the rows of the sentence tables, file by file in the order of their names."""
        for file in self._sentences:
            source = self._name(file)
            for row, position in self._good_rows(file, SENTENCE_COLUMNS, _fault_of_sentence, "sentence"):
                yield row if isinstance(row, RefusedRecord) else self._sentence(row, source, position)

    def _sentence(self, row: Values, source: str, position: Position) -> Sentence:
        image = address_in(self._root, row["image"]) if row.get("image") else None
        return Sentence(
            nfc(row["entity"].strip()),
            row.get("sentence") or "",
            row.get("start"),
            row.get("end"),
            image,
            source,
            position,
            image_bytes=row.get("image_bytes"),
        )

    def _good_rows(
        self,
        file: Store,
        columns: tuple[str, ...],
        fault_of: Callable[[Values], Refusal | None],
        of: Literal["entity", "sentence"],
    ) -> Iterator[tuple[Values | RefusedRecord, Position]]:
        """Yield rows whose values have the right types, and a refusal in the place of each other one."""
        source = self._name(file)
        try:
            for row, position, text in self._read(file, columns):
                if isinstance(row, Refusal):
                    yield RefusedRecord(source, position, row, text, of), position
                elif fault := fault_of(row):
                    yield RefusedRecord(source, position, fault, text or dumps(row), of), position
                else:
                    yield row, position
        except BrokenFileError as error:
            yield RefusedRecord(source, error.position, error.refusal, of="file"), error.position


def _holds_sentences(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return folder == "sentences" or (not folder and file.startswith("sentences"))


def _fault_of_sentence(row: Values) -> Refusal | None:
    sentence, image, content = (row.get(column) for column in ("sentence", "image", "image_bytes"))
    if not isinstance(row.get("entity"), str):
        return wrong_type("entity must be a text", row.get("entity"))
    if not isinstance(sentence, str | None):
        return wrong_type("sentence must be a text", sentence)
    if not isinstance(image, str | None):
        return wrong_type("image must be a text", image)
    if not isinstance(content, bytes | str | None):
        return wrong_type("image_bytes must be bytes, in base64 where they are a text", content)
    if image and content:
        return Refusal(Code.CONFLICTING_FIELDS, "image and image_bytes: give one of them")
    if not (sentence or image or content):
        return Refusal(Code.NO_CONTENT, "neither a sentence nor an image")
    for column in ("start", "end"):
        value = row.get(column)
        if value is not None and not is_whole_number(value):
            return wrong_type(f"{column} must be a whole number", value)
    if (row.get("start") is None) != (row.get("end") is None):
        return Refusal(Code.CONFLICTING_FIELDS, "start and end belong together: give both or none")
    if not sentence and (row.get("start") or row.get("end")):
        return Refusal(Code.CONFLICTING_FIELDS, "start and end of a mention, but no sentence")
    return None


def _fault_of_entity(row: Values) -> Refusal | None:
    if not isinstance(row.get("name"), str):
        return wrong_type("name must be a text", row.get("name"))
    aliases = row.get("aliases") or []
    if not isinstance(aliases, list) or not all(isinstance(a, str) for a in aliases):
        return Refusal(Code.WRONG_TYPE, "aliases must be a list of texts")
    if not isinstance(row.get("description"), str | None):
        return wrong_type("description must be a text", row["description"])
    if not is_attributes(row.get("attributes") or {}):
        return Refusal(Code.WRONG_TYPE, "attributes must be {attribute: [texts]}")
    return None


def read_jsonl(file: Store, columns: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines; blank lines are skipped."""
    for line in lines(file):
        text, fault = decode(line)
        position = LinePosition(line.number, line.offset)
        if fault:
            yield fault, position, text
        elif text and not text.isspace():
            yield parsed_object(text, line.ended), position, text


def read_parquet(file: Store, columns: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a Parquet file, read a batch at a time.

    Raises:
        BrokenFileError: it is no Parquet file, or not a whole one.
        FormatError: a required column is missing.
    """
    number = 0
    try:
        with file.open_input() as stream:
            # Read ahead, every row group would stay in memory to the end; unbuffered, a whole row group.
            table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK)
            there = table.schema_arrow.names
            if missing := _missing(columns, there):
                raise FormatError(
                    f"{file.uri}: no column {' and no column '.join(missing)} (found: {', '.join(there)})"
                )
            wanted = [c for c in columns if c in there]
            size = IMAGE_BATCH if "image_bytes" in wanted else BATCH
            for batch in table.iter_batches(batch_size=size, columns=wanted):
                for row in _rows(batch):
                    yield row, RowPosition(number), ""
                    number += 1
    except (pa.ArrowException, OSError) as error:
        reason = f"no readable Parquet from here on ({str(error).splitlines()[0]}); is the file whole?"
        raise BrokenFileError(RowPosition(number), Refusal(Code.FILE_BROKEN, reason)) from None


def _missing(columns: tuple[str, ...], there: Sequence[str]) -> list[str]:
    """Return the required columns that a table lacks."""
    required = columns[:1]
    if columns == SENTENCE_COLUMNS and not {"image", "image_bytes"} & set(there):
        required = columns[:2]
    return [column for column in required if column not in there]


def _rows(batch: pa.RecordBatch) -> Iterator[Values | Refusal]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                rows = batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError as error:
                reason = f"not valid UTF-8 ({error.reason} at byte {error.start} of a value)"
                yield Refusal(Code.NOT_UTF8, reason)
            else:
                yield from map(_plain, rows)
    else:
        yield from map(_plain, rows)


def _plain(row: Values) -> Values:
    """Turn a map column, which Arrow gives as pairs, into the dictionary that JSON would hold."""
    pairs = row.get("attributes")
    if isinstance(pairs, list) and all(isinstance(p, tuple) for p in pairs):
        row["attributes"] = dict(pairs)
    elif isinstance(pairs, dict):  # a struct column: the attributes of all rows, null where a row has none
        row["attributes"] = {k: v for k, v in pairs.items() if v is not None}
    return row
