"""Read the table of records whose images are to be selected, and write the selected ones.

=================  ========  ==================================================================
``entity``         required  the name of the entity
``sentence``       required  the text
``start end``      optional  characters of the mention, end exclusive; handed on as they are
``candidates``     optional  addresses of images: paths from the table's folder on, local paths or s3://
``typical``        optional  address of an image that shows the entity and little else
=================  ========  ==================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from engine.corpus.image_addresses import address_in
from engine.corpus.positions import Position
from engine.corpus.readers.base import RefusedRecord
from engine.corpus.readers.json_stream import is_whole_number
from engine.corpus.readers.tables import BrokenFileError, Values, read_jsonl, read_parquet
from engine.corpus.text import MAX_SENTENCE_CHARACTERS, fault_of_name, fault_of_text
from engine.errors import FormatError, StorageError
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.vocabulary import MAX_NAME_LENGTH

COLUMNS = ("entity", "sentence", "start", "end", "candidates", "typical")

MAX_CANDIDATES = 64
"""Limit on a record's candidates; search engines give ten on a page."""

SCORE_SCHEMA = pa.schema(
    [
        pa.field("record", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("agreement", pa.float32(), nullable=False),
        pa.field("similarity", pa.float32()),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
    ]
)
"""``scores/part-NNNNN.parquet``: every usable candidate. ``record`` counts the table's rows from 0, refused
ones too; ``similarity`` is null without a typical image; ``rank`` counts from 1, the chosen one."""


class SelectionRecord(NamedTuple):
    """A record of the table; ``number`` counts its rows from 0, ``position`` says where it stands.

    The images' addresses are whole ones, which hold wherever they are read.
    """

    number: int
    position: str
    entity: str
    sentence: str
    start: int | None
    end: int | None
    candidates: list[str]
    typical: str | None

    def to_line(self) -> str:
        """Return the record as a line that :meth:`of_line` reads."""
        return json.dumps(self._asdict(), ensure_ascii=False) + "\n"

    @classmethod
    def of_line(cls, line: str) -> SelectionRecord:
        """Return the record of a line."""
        return cls(**json.loads(line))


def read_table(table: Store) -> Iterator[SelectionRecord | RefusedRecord]:
    """Yield the records of a table, in the place of one that cannot be used its refusal.

    Args:
        table: a file whose name ends in .jsonl or .parquet.

    Raises:
        FormatError: the name ends otherwise, or a required column is missing.
        StorageError: there is no such file.
    """
    readers = {"jsonl": read_jsonl, "parquet": read_parquet}
    reader = readers.get(table.name.rpartition(".")[2])
    if reader is None:
        raise FormatError(f"{table.uri}: not a table that is known; it must end in .jsonl or .parquet")
    if table.size() < 0:
        raise StorageError(f"{table.uri}: no such file")
    folder = Store(table.fs, table.path.rpartition("/")[0], table.is_local)
    try:
        for number, (row, position, text) in enumerate(reader(table, COLUMNS)):
            record = row if isinstance(row, Refusal) else _record(row, number, position, folder)
            if isinstance(record, Refusal):
                yield RefusedRecord(table.name, position, record, text or str(row))
            else:
                yield record
    except BrokenFileError as error:
        yield RefusedRecord(table.name, error.position, error.refusal, of="file")


def _record(row: Values, number: int, position: Position, folder: Store) -> SelectionRecord | Refusal:
    if fault := _fault(row):
        return fault
    return SelectionRecord(
        number,
        str(position),
        row["entity"],
        row["sentence"],
        row.get("start"),
        row.get("end"),
        list(dict.fromkeys(address_in(folder, c) for c in row.get("candidates") or [])),
        address_in(folder, row["typical"]) if row.get("typical") else None,
    )


def _fault(row: Values) -> Refusal | None:
    """Return why a row cannot be used, if it cannot."""
    for column in ("entity", "sentence"):
        if not isinstance(row.get(column), str):
            return Refusal(Code.WRONG_TYPE, f"{column} must be a text")
    if fault := fault_of_name(row["entity"].strip(), MAX_NAME_LENGTH):
        return fault.about("entity")
    if fault := fault_of_text(row["sentence"], MAX_SENTENCE_CHARACTERS):
        return fault.about("sentence")
    for column in ("start", "end"):
        value = row.get(column)
        if value is not None and not is_whole_number(value):
            return Refusal(Code.WRONG_TYPE, f"{column} must be a whole number")
    candidates = row.get("candidates") or []
    if not isinstance(candidates, list) or not all(isinstance(c, str) and c for c in candidates):
        return Refusal(Code.WRONG_TYPE, "candidates must be a list of addresses")
    if len(candidates) > MAX_CANDIDATES:
        reason = f"{len(candidates)} candidates; at most {MAX_CANDIDATES} are taken"
        return Refusal(Code.TOO_MANY_CANDIDATES, reason)
    if not isinstance(row.get("typical"), str | None):
        return Refusal(Code.WRONG_TYPE, "typical must be an address")
    return None
