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

from engine.corpus.image_addresses import MAX_ADDRESS, address_in
from engine.corpus.positions import Position
from engine.corpus.readers.base import RefusedRecord
from engine.corpus.readers.row_files import RowFile, form_of
from engine.corpus.readers.values import (
    BadDetail,
    Faults,
    Values,
    details,
    dumps,
    offsets_of,
    optional_text,
    required_text,
    texts_of,
)
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

    def to_line(self) -> bytes:
        """Return the record as a line that :meth:`of_lines` reads; it may hold half a surrogate pair."""
        line = json.dumps(self._asdict(), ensure_ascii=False) + "\n"
        return line.encode("utf-8", "surrogatepass")

    @classmethod
    def of_lines(cls, content: bytes) -> list[SelectionRecord]:
        """Return the records of lines, which end at line feeds: texts may hold other line separators."""
        lines = content.decode("utf-8", "surrogatepass").split("\n")
        return [cls(**json.loads(line)) for line in lines if line]


def read_table(table: Store) -> Iterator[SelectionRecord | RefusedRecord]:
    """Yield the records of a table, in the place of one that cannot be used its refusal.

    A detail that cannot be used (a candidate, an offset, the typical image) is refused before its record.

    Args:
        table: a file whose name ends in .jsonl (compressed: .jsonl.gz and so on) or .parquet.

    Raises:
        FormatError: the name ends otherwise, a required column is missing, or the file is cut off or broken.
        StorageError: there is no such file.
    """
    form = form_of(table.name)
    if form not in ("jsonl", "parquet"):
        raise FormatError(f"{table.uri}: not a table that is known; it must end in .jsonl or .parquet")
    if table.size() < 0:
        raise StorageError(f"{table.uri}: no such file")
    rows = RowFile(table, table.name, form).rows({column: column for column in COLUMNS})
    for number, (row, position, text) in enumerate(rows):
        faults = Faults()
        record = row if isinstance(row, Refusal) else _record(row, number, position, table.parent, faults)
        if isinstance(record, Refusal):
            if record.code in (Code.FILE_CUT_OFF, Code.FILE_BROKEN):
                raise FormatError(f"{table.uri}, {position}: {record}; copy or make the file again")
            yield RefusedRecord(table.name, position, record, text or dumps(row))
        else:
            yield from details(faults, table.name, position)
            yield record


def _record(
    row: Values, number: int, position: Position, folder: Store, faults: Faults
) -> SelectionRecord | Refusal:
    """Return a row's record, or why it cannot be used; details that cannot be used go to ``faults``."""
    entity, sentence = (required_text(row.get(column), column) for column in ("entity", "sentence"))
    if isinstance(entity, Refusal):
        return entity
    if isinstance(sentence, Refusal):
        return sentence
    if fault := fault_of_name(entity.strip(), MAX_NAME_LENGTH):
        return fault.about("entity")
    if fault := fault_of_text(sentence, MAX_SENTENCE_CHARACTERS):
        return fault.about("sentence")
    start, end = offsets_of(row, faults)
    given = texts_of(row.get("candidates"), "candidates", "a candidate", faults)
    candidates = [_address(one, "a candidate", folder, faults) for one in dict.fromkeys(given)]
    if len(candidates) > MAX_CANDIDATES:
        reason = f"{len(candidates)} candidates; at most {MAX_CANDIDATES} are taken"
        return Refusal(Code.TOO_MANY_CANDIDATES, reason)
    typical = optional_text(row.get("typical"), "typical", faults)
    return SelectionRecord(
        number,
        str(position),
        entity,
        sentence,
        start,
        end,
        list(dict.fromkeys(one for one in candidates if one)),
        _address(typical, "typical", folder, faults) if typical else None,
    )


def _address(image: str, what: str, folder: Store, faults: Faults) -> str | None:
    """Return the whole address of an image, or None where it goes to ``faults``.

    An address of a kind that is not known is let pass: it is refused with the images that cannot be read.
    """
    fault = fault_of_name(image, MAX_ADDRESS)
    if fault is None:
        return address_in(folder, image)
    faults.append(BadDetail(fault.about(what), dumps(image)))
    return None
