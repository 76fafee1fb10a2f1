"""Read CSV and TSV as rows by their header, and text files as a row a line.

CSV is quoted as spreadsheets do it; TSV is not quoted at all, so that a text may begin with a quotation mark.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from engine.corpus.positions import LinePosition, RecordPosition
from engine.corpus.readers.compression import BrokenStreamError, Readable, open_text
from engine.corpus.readers.json_stream import decode, lines
from engine.corpus.readers.rows import BrokenFileError, Read, Row, Wanted
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store

MAX_FIELD = 8 << 20
"""Characters of a field: a quotation mark that is never closed must not take the rest of the file as text."""


class _Raw(io.RawIOBase):
    """A stream that the standard library can wrap."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class Dialect(NamedTuple):
    """What parts the fields of a record, and whether quotation marks may stand around them (as the standard
    library has it)."""

    delimiter: str
    quoting: int


CSV, TSV = Dialect(",", csv.QUOTE_MINIMAL), Dialect("\t", csv.QUOTE_NONE)


@contextmanager
def _records(file: Store, dialect: Dialect) -> Iterator[Any]:
    """Open a file as a reader of the standard library, its errors as :class:`BrokenFileError`."""
    csv.field_size_limit(MAX_FIELD)
    with open_text(file) as stream:
        raw = io.BufferedReader(_Raw(stream))
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
        reader: Any = csv.reader(text, delimiter=dialect.delimiter, quoting=dialect.quoting)  # type: ignore[arg-type]
        try:
            yield reader
        except csv.Error as error:
            reason = f"no readable record here ({error}); is a quotation mark left open?"
            raise BrokenFileError(
                RecordPosition(reader.line_num), Refusal(Code.FILE_BROKEN, reason)
            ) from None
        except BrokenStreamError as error:
            raise BrokenFileError(RecordPosition(reader.line_num), error.refusal) from None


def header_of(file: Store, dialect: Dialect) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        BrokenFileError: it cannot be read.
    """
    with _records(file, dialect) as reader:
        return [name.strip() for name in next(reader, [])]


def _read(dialect: Dialect, file: Store, wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of a file whose first record names the columns; empty fields are missing values.

    Bytes that are not UTF-8 are U+FFFD, for which texts are refused. A piece cannot be read, as a field may
    hold line breaks.

    Raises:
        BrokenFileError: it cannot be read on.
        FormatError: the required column is missing.
    """
    columns, given, _ = wanted
    with _records(file, dialect) as reader:
        header = [name.strip() for name in next(reader, [])]
        if columns[0] not in (*header, *given):
            raise FormatError(f"{file.uri}: no column {columns[0]} (found: {', '.join(header) or 'nothing'})")
        places = [(name, header.index(name)) for name in columns if name in header]
        line = reader.line_num + 1
        for fields in reader:
            position, line = RecordPosition(line), reader.line_num + 1
            if len(fields) == len(header):
                row: dict[str, Any] = {name: fields[place] or None for name, place in places}
                yield {**given, **row}, position, ""
            elif fields:
                reason = f"has {len(fields)} fields, and the header {len(header)}"
                yield Refusal(Code.WRONG_LAYOUT, reason), position, dialect.delimiter.join(fields)


read_csv: Read = partial(_read, CSV)
read_tsv: Read = partial(_read, TSV)


def read_lines(file: Store, wanted: Wanted) -> Iterator[Row]:
    """Yield a row a line, which is the required column, whatever that is called; blank lines are skipped."""
    columns, given, piece = wanted
    for line in lines(file, piece):
        if line.is_blank:
            continue
        text, fault = decode(line)
        yield fault or {**given, columns[0]: text}, LinePosition(line.number, line.offset), text
