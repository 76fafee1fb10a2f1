"""Read tables of sentences and entities, as JSON lines or Parquet.

Sentences (``sentences*.jsonl`` or ``sentences/**.jsonl``, with .gz, .zst, .bz2, .xz or .lz4 behind where
they are compressed; ``sentences*.parquet``, ``sentences/**.parquet`` or ``sentences.parquet/*``):

===============  ========  ==================================================================
``entity``       required  the name of the entity that the sentence mentions
``sentence``     required  the text; may be missing where there is an image
``start end``    optional  characters of the mention, end exclusive; found by us where missing
``image``        optional  an image: path from the source's folder on, local path or s3:// address; or
                           {bytes, path}, as Hugging Face datasets have it
``image_bytes``  optional  in its place the image's bytes; in JSON lines as base64. 32 MiB at most
===============  ========  ==================================================================

Entities (files likewise: ``entities*.jsonl``, ``entities/**.parquet`` …; optional: without them, those of the
sentences in order of first appearance):

===============  ========  ========================================
``name``         required  unique
``aliases``      optional  list of other spellings
``description``  optional  a text
``attributes``   optional  ``{attribute: [value, …]}``
===============  ========  ========================================

null and NaN are missing values. Folders ``column=value`` give a column that the files in them lack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.image_addresses import address_in
from engine.corpus.positions import LinePosition, Position, RowPosition
from engine.corpus.readers.base import Entity, RefusedRecord, Sentence
from engine.corpus.readers.compression import ENDINGS, head_of, without_ending
from engine.corpus.readers.json_stream import BLOCK, line_object, lines
from engine.corpus.readers.source_files import list_source, partition_of, refuse_left_out
from engine.corpus.readers.values import (
    NO_CONTENT,
    BadDetail,
    Faults,
    Values,
    details,
    dumps,
    entity_of_row,
    image_of,
    offsets_of,
    required_text,
    text_of,
)
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.text.spelling import clean_name

BATCH = 8192
IMAGE_BATCH = 16
"""Rows that are held at once where they hold images."""

SENTENCE_COLUMNS = ("entity", "sentence", "start", "end", "image", "image_bytes")
ENTITY_COLUMNS = ("name", "aliases", "description", "attributes")

JSONL, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
"""Endings of a table's files."""

Row = tuple[Values | Refusal, Position, str]
"""A row's values (or why there are none), its place, and its text for the quarantine ("" = the values)."""

NO_VALUES: Mapping[str, str | None] = {}

Read = Callable[[Store, tuple[str, ...], Mapping[str, str | None]], Iterator[Row]]
"""A reader of a file: the file, its columns, and values of columns that it may lack."""


class BrokenFileError(Exception):
    """The rest of a file cannot be read."""

    def __init__(self, position: Position, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.position, self.refusal = position, refusal


class TableReader:
    """A folder (or one file) with tables of sentences and, if it has one, of entities.

    Args:
        place: the folder or the file. A folder whose own name is that of a table of sentences is one.
        endings: of the files of a table; those of JSON lines may be compressed.
        read: reads a file.

    Raises:
        FormatError: there are no sentences, or a file that belongs to the tables would not be read.
    """

    def __init__(self, place: Store, endings: tuple[str, ...], read: Read) -> None:
        self._read, self._endings = read, endings
        self.unread: list[str] = []
        if place.size() >= 0:
            self._sentences, self._entities = [place], []
            self._root = place.parent
            self.unread = self._entities_beside(place)
            return
        self._root = place
        listing = list_source(place)
        sentences = listing.matching(lambda name: self._is_of("sentences", name))
        entities = listing.matching(lambda name: self._is_of("entities", name))
        stems = ["sentences", "entities"]
        if not sentences and self._is_itself_a_table():
            sentences, entities, stems = listing.matching(self._is_readable), {}, [""]
            self.unread = self._entities_beside(place)
        suffix = endings[0]
        expected = (
            f"--format {suffix[1:]} reads sentences*{suffix}, sentences/*{suffix}, entities*{suffix} and "
            f"entities/*{suffix}" + (f", also compressed ({', '.join(ENDINGS)})" if endings == JSONL else "")
        )
        self.unread += refuse_left_out(listing, {*sentences, *entities}, stems, expected)
        if not sentences:
            raise FormatError(
                f"{place.uri}: no sentences{suffix} and no sentences/*{suffix} here (found: "
                f"{listing.shown()}); see --help for the formats"
            )
        self._sentences, self._entities = list(sentences.values()), list(entities.values())

    def _is_readable(self, name: str) -> bool:
        name = without_ending(name) if self._endings == JSONL else name.lower()
        return name.endswith(self._endings)

    def _is_of(self, table: str, name: str) -> bool:
        """Return whether a path is a file of a table: ``table*.ending``, or in a folder of the table."""
        first, inside, _ = name.lower().partition("/")
        if inside:
            return self._is_readable(name) and first in (table, *(table + ending for ending in self._endings))
        return self._is_readable(name) and first.startswith(table)

    def _is_itself_a_table(self) -> bool:
        name = self._root.name.lower()
        return not name.startswith("entities") and (name == "sentences" or name.endswith(self._endings))

    def _entities_beside(self, table: Store) -> list[str]:
        """Return the tables of entities beside a table that is read alone."""
        names = [f"entities{ending}" for ending in ("", *self._endings)]
        return [f"../{name}" for name in names if (table.parent / name).exists()]

    def files(self) -> list[Store]:
        """Return the files that are read."""
        return self._entities + self._sentences

    def _name(self, file: Store) -> str:
        return file.path[len(self._root.path) + 1 :]

    def entities(self) -> Iterator[Entity | RefusedRecord] | None:
        """Yield the rows of the entity tables; None where there is none."""
        return self._entity_rows() if self._entities else None

    def _entity_rows(self) -> Iterator[Entity | RefusedRecord]:
        for file in self._entities:
            source = self._name(file)
            for row, position, text in self._rows_of(file, ENTITY_COLUMNS):
                if isinstance(row, Refusal):
                    yield _refused(source, position, row, row, text, "entity")
                    continue
                one, refused = entity_of_row(row, source, position, text)
                yield from refused
                if one:
                    yield one

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Yield the rows of the sentence tables, file by file in the order of their names."""
        for file in self._sentences:
            source = self._name(file)
            for row, position, text in self._rows_of(file, SENTENCE_COLUMNS):
                if isinstance(row, Refusal):
                    yield _refused(source, position, row, row, text, "sentence")
                    continue
                faults = Faults()
                one = self._sentence(row, source, position, faults)
                if isinstance(one, Refusal):
                    yield _refused(source, position, one, row, text, "sentence")
                else:
                    if faults:
                        yield from details(faults, source, position)
                    yield one

    def _sentence(self, row: Values, source: str, position: Position, faults: Faults) -> Sentence | Refusal:
        entity = required_text(row.get("entity"), "entity")
        if isinstance(entity, Refusal):
            return entity
        sentence = text_of(row.get("sentence"), "sentence")
        image = image_of(row, faults)
        if not (sentence and isinstance(sentence, str)) and not any(image):
            if isinstance(sentence, Refusal):
                return sentence
            return faults[0].refusal if faults else NO_CONTENT
        if isinstance(sentence, Refusal):
            faults.append(BadDetail(sentence, dumps(row["sentence"])))
            sentence = None
        start, end = offsets_of(row, faults)
        if not sentence and (start or end):
            reason = Refusal(Code.CONFLICTING_FIELDS, "start and end of a mention, but no sentence")
            faults.append(BadDetail(reason, dumps({"start": start, "end": end})))
        if not sentence:
            start, end = None, None
        address = address_in(self._root, image.address) if image.address else None
        name = clean_name(entity)
        return Sentence(
            name, sentence or "", start, end, address, source, position, image_bytes=image.content
        )

    def _rows_of(self, file: Store, columns: tuple[str, ...]) -> Iterator[Row]:
        """Yield the rows of a file; of a broken one a last refusal, that of the file."""
        try:
            yield from self._read(file, columns, partition_of(self._name(file)))
        except BrokenFileError as error:
            yield error.refusal, error.position, ""


def _refused(
    source: str,
    position: Position,
    refusal: Refusal,
    row: Values | Refusal,
    text: str,
    of: Literal["entity", "sentence"],
) -> RefusedRecord:
    record = text if text or isinstance(row, Refusal) else dumps(row)
    return RefusedRecord(source, position, refusal, record, of)


def read_jsonl(
    file: Store, columns: tuple[str, ...], given: Mapping[str, str | None] = NO_VALUES
) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines; blank lines are skipped.

    Args:
        file: as it is, or compressed.
        columns: bytes that are not UTF-8 cost the row in one of the first two.
        given: values of columns that a row may lack.
    """
    for line in lines(file):
        if line.is_blank:
            continue
        row, text = line_object(line, columns[:2])
        position = LinePosition(line.number, line.offset)
        yield {**given, **row} if given and isinstance(row, dict) else row, position, text


def read_parquet(
    file: Store,
    columns: tuple[str, ...],
    given: Mapping[str, str | None] = NO_VALUES,
    groups: Sequence[int] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a Parquet file, read a batch at a time.

    Args:
        file: as it is.
        columns: what is read of it, if it is there.
        given: values of columns that the file may lack.
        groups: neighbouring row groups to read; None: all.

    Raises:
        BrokenFileError: it is no Parquet file, or not a whole one.
        FormatError: a required column is missing.
    """
    number = 0
    try:
        with file.open_input() as stream:
            head_of(file, stream)
            # Read ahead, every row group would stay in memory to the end; unbuffered, a whole row group.
            table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK)
            there = table.schema_arrow.names
            if missing := _missing(columns, [*there, *given]):
                raise FormatError(
                    f"{file.uri}: no column {' and no column '.join(missing)} (found: {', '.join(there)})"
                )
            wanted = [c for c in columns if c in there]
            size = IMAGE_BATCH if any(map(_holds_images, table.schema_arrow)) else BATCH
            if groups is not None:
                number = sum(table.metadata.row_group(group).num_rows for group in range(groups[0]))
            for batch in table.iter_batches(batch_size=size, columns=wanted, row_groups=groups):
                for row in batch_rows(batch):
                    yield {**given, **row} if given else row, RowPosition(number), ""
                    number += 1
    except (pa.ArrowException, OSError) as error:
        reason = f"no readable Parquet from here on ({str(error).partition(chr(10))[0]}); is the file whole?"
        raise BrokenFileError(RowPosition(number), Refusal(Code.FILE_BROKEN, reason)) from None


def _missing(columns: tuple[str, ...], there: Sequence[str]) -> list[str]:
    """Return the required columns that a table lacks."""
    required = columns[:1]
    if columns == SENTENCE_COLUMNS and not {"image", "image_bytes"} & set(there):
        required = columns[:2]
    return [column for column in required if column not in there]


def _holds_images(column: pa.Field) -> bool:
    """Return whether a column may hold images' bytes: it is image_bytes, or an image that is no text."""
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    return column.name == "image_bytes" or (column.name == "image" and not is_text)


def batch_rows(batch: pa.RecordBatch) -> Iterator[Values]:
    """Yield the rows of a batch; a value that cannot be read costs none of the others, see :func:`_value`."""
    try:
        yield from batch.to_pylist()
        return
    except ValueError:  # not UTF-8, or a value that Python has no type for
        pass
    columns = {field.name: column for field, column in zip(batch.schema, batch.columns, strict=True)}
    for i in range(batch.num_rows):
        yield {name: _value(column[i : i + 1]) for name, column in columns.items()}


def _value(column: pa.Array) -> object:
    """Return the value of a column of one row; of a value that Python has no type for, its type.

    Texts that are not all UTF-8 are bytes, so that each can be looked at by itself.
    """
    for kind in (column.type, _as_bytes(column.type)):
        try:
            return column.cast(kind).to_pylist()[0]
        except (ValueError, pa.ArrowException):
            pass
    return column.type


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """Return a type with bytes in the place of texts."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return _as_bytes(kind.value_type)
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(_as_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    return kind
