"""Read files of rows: JSON lines, and Parquet a batch at a time. Nothing is known here of what a row says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.positions import LinePosition, Position, RowPosition
from engine.corpus.readers.compression import head_of
from engine.corpus.readers.json_stream import BLOCK, line_object, lines
from engine.corpus.readers.values import Values
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store

BATCH = 8192
IMAGE_BATCH = 16
"""Rows that are held at once where they hold images."""

JSONL, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
"""Endings of files."""

Row = tuple[Values | Refusal, Position, str]
"""A row's values (or why there are none), its place, and its text for the quarantine ("" = the values)."""

NO_VALUES: Mapping[str, str | None] = {}

Piece = tuple[int, int]
"""A piece of a file, the end exclusive: row groups of Parquet, bytes of a file of lines."""


class Wanted(NamedTuple):
    """What is read of a file.

    Args:
        columns: the required one first. In the first two, bytes that are not UTF-8 cost a line of JSON.
        given: values of columns that the file may lack.
        piece: a piece of it; None: all.
    """

    columns: tuple[str, ...]
    given: Mapping[str, str | None] = NO_VALUES
    piece: Piece | None = None


Read = Callable[[Store, Wanted], Iterator[Row]]
"""A reader of a file."""


class BrokenFileError(Exception):
    """The rest of a file cannot be read."""

    def __init__(self, position: Position, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.position, self.refusal = position, refusal


def read_jsonl(file: Store, wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines, as it is or compressed; blank lines are skipped."""
    columns, given, piece = wanted
    for line in lines(file, piece):
        if line.is_blank:
            continue
        row, text = line_object(line, columns[:2])
        position = LinePosition(line.number, line.offset)
        yield {**given, **row} if given and isinstance(row, dict) else row, position, text


def read_parquet(file: Store, wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of a Parquet file, read a batch at a time.

    Raises:
        BrokenFileError: it is no Parquet file, or not a whole one.
        FormatError: the required column is missing.
    """
    columns, given, piece = wanted
    number = 0
    try:
        with file.open_input() as stream:
            head_of(file, stream)
            # Read ahead, every row group would stay in memory to the end; unbuffered, a whole row group.
            table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK)
            there = table.schema_arrow.names
            if columns[0] not in (*there, *given):
                raise FormatError(f"{file.uri}: no column {columns[0]} (found: {', '.join(there)})")
            own = [c for c in columns if c in there]
            size = IMAGE_BATCH if any(map(holds_images, table.schema_arrow)) else BATCH
            groups = None if piece is None else range(*piece)
            if groups:
                number = sum(table.metadata.row_group(group).num_rows for group in range(groups[0]))
            for batch in table.iter_batches(batch_size=size, columns=own, row_groups=groups):
                for row in batch_rows(batch):
                    yield {**given, **row} if given else row, RowPosition(number), ""
                    number += 1
    except (pa.ArrowException, OSError) as error:
        reason = f"no readable Parquet from here on ({str(error).partition(chr(10))[0]}); is the file whole?"
        raise BrokenFileError(RowPosition(number), Refusal(Code.FILE_BROKEN, reason)) from None


def holds_images(column: pa.Field) -> bool:
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
    for kind in (column.type, as_bytes(column.type)):
        try:
            return column.cast(kind).to_pylist()[0]
        except (ValueError, pa.ArrowException):
            pass
    return column.type


def as_bytes(kind: pa.DataType) -> pa.DataType:
    """Return a type with bytes in the place of texts."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return as_bytes(kind.value_type)
    if pa.types.is_map(kind):
        return pa.map_(as_bytes(kind.key_type), as_bytes(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(as_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(as_bytes(field.type)) for field in kind])
    return kind
