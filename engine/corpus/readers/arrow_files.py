"""Read Arrow files, as ``Dataset.save_to_disk`` of Hugging Face's library writes them, a batch at a time.

Both formats of Arrow's interprocess communication (IPC) are read, and told apart by their first bytes:
streams, and files, of which Feather is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from engine.corpus.positions import RowPosition
from engine.corpus.readers.compression import head_of
from engine.corpus.readers.rows import (
    BATCH,
    IMAGE_BATCH,
    BrokenFileError,
    Row,
    Wanted,
    as_bytes,
    batch_rows,
    holds_images,
)
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store

ARROW = (".arrow", ".arrows", ".feather")
"""Endings of files."""

_FILE_MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
"""First bytes of a stream, and of each of its messages, since Arrow 0.15."""
_END_OF_STREAM = _CONTINUATION + bytes(4)


def read_arrow(file: Store, wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of an Arrow file, which is read batch by batch, as it was written.

    Raises:
        BrokenFileError: it is no Arrow file, or not a whole one.
        FormatError: the required column is missing.
    """
    columns, given, _ = wanted
    number = 0
    try:
        with file.open_input() as stream:
            schema = _schema(file, stream)
            if columns[0] not in (*schema.names, *given):
                raise FormatError(f"{file.uri}: no column {columns[0]} (found: {', '.join(schema.names)})")
            size = IMAGE_BATCH if any(map(holds_images, schema)) else BATCH
            for batch in _batches(stream, [name for name in columns if name in schema.names], schema):
                for first in range(0, batch.num_rows, size):
                    for row in batch_rows(batch.slice(first, size)):
                        yield {**given, **row} if given else row, RowPosition(number), ""
                        number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column's name
        reason = f"no readable Arrow from here on ({str(error).partition(chr(10))[0]}); is the file whole?"
        raise BrokenFileError(RowPosition(number), Refusal(Code.FILE_BROKEN, reason)) from None


def arrow_columns(file: Store) -> list[str]:
    """Return the columns that an Arrow file has.

    Raises:
        ArrowException, OSError: it cannot be read.
    """
    with file.open_input() as stream:
        return list(_schema(file, stream).names)


def _schema(file: Store, stream: pa.NativeFile) -> pa.Schema:
    """Return the schema of a stream, which is then read from its beginning."""
    head_of(file, stream)
    return _reader(stream).schema


def _reader(stream: pa.NativeFile, **options: Any) -> ipc.RecordBatchFileReader | ipc.RecordBatchStreamReader:
    stream.seek(0)
    is_file = bytes(stream.read(len(_FILE_MAGIC))) == _FILE_MAGIC
    stream.seek(0)
    open_ = ipc.open_file if is_file else ipc.open_stream
    return open_(stream, options=ipc.IpcReadOptions(**options))


def _batches(stream: pa.NativeFile, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches, of these columns, each checked: what is no sound array would end the process.

    Raises:
        ArrowInvalid: a batch is not sound, or the stream has no end: cut between two batches it looks whole.
    """
    fields = [schema.get_field_index(name) for name in names]
    if -1 in fields:
        raise pa.ArrowInvalid("two columns of one name")
    reader = _reader(stream, included_fields=fields)
    if isinstance(reader, ipc.RecordBatchFileReader):
        batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
    else:
        batches = iter(reader)
    for batch in batches:
        for column in batch.columns:
            _check_sound(column)
        yield batch
    if not isinstance(reader, ipc.RecordBatchFileReader):
        _check_end(stream)


def _check_sound(column: pa.Array) -> None:
    """Check a column's offsets and indices; a text that is not UTF-8 costs no more than its row."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        column.cast(as_bytes(column.type)).validate(full=True)


def _check_end(stream: pa.NativeFile) -> None:
    end = stream.tell()
    stream.seek(0)
    if bytes(stream.read(len(_CONTINUATION))) != _CONTINUATION:
        return  # older than 0.15, whose end is told from nothing
    stream.seek(max(0, end - len(_END_OF_STREAM)))
    if bytes(stream.read(len(_END_OF_STREAM))) != _END_OF_STREAM:
        raise pa.ArrowInvalid("the stream has no end")
