"""Carry the rows of a part from process to process, as an Arrow table or a file of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from engine.queries.rows import EXPANSION_SCHEMA
from engine.query_rows import from_rows, to_rows
from engine.refusals import Code, Refusal
from jobs.workers.chain import Row

_OWN = [
    pa.field("method", pa.string()),
    pa.field("explain", pa.bool_()),
    pa.field("remaining", pa.float64()),
    pa.field("code", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("source", pa.string()),
    pa.field("position", pa.int64()),
]

PART_SCHEMA = pa.schema([("part", pa.string()), ("rows", pa.list_(pa.struct([*EXPANSION_SCHEMA, *_OWN])))])
"""Schema of a table between pools: a part's name, and its rows, each with its expansion as
:func:`engine.query_rows.to_rows` has it."""


def pack(part: str, rows: Sequence[Row]) -> pa.Table:
    """Return a part as a table of one row, see :data:`PART_SCHEMA`."""
    packed = to_rows([row.expansion for row in rows])
    for record, row in zip(packed, rows, strict=True):
        refusal = row.refusal
        record |= {"method": row.method, "explain": row.explain, "remaining": row.remaining}
        record |= {"code": refusal and refusal.code.value, "reason": refusal and refusal.detail}
        record |= {"source": row.place[0], "position": row.place[1]}
    return pa.table({"part": [part], "rows": [packed]}, schema=PART_SCHEMA)


def unpack(table: pa.Table) -> list[tuple[str, list[Row]]]:
    """Return the parts of a table (see :func:`pack`)."""
    return [
        (
            str(part["part"]),
            [
                Row(
                    expansion,
                    str(record["method"]),
                    bool(record["explain"]),
                    record["remaining"],
                    Refusal(Code(record["code"]), record["reason"]) if record["code"] else None,
                    (str(record["source"]), int(record["position"])),
                )
                for record, expansion in zip(part["rows"], from_rows(part["rows"]), strict=True)
            ],
        )
        for part in table.to_pylist()
    ]


def write_rows(path: Path, part: str, rows: Sequence[Row]) -> None:
    """Write a part's rows into a file of this machine."""
    table = pack(part, rows)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path) -> pa.Table:
    """Return the table that :func:`write_rows` wrote."""
    with pa.ipc.open_file(str(path)) as reader:
        return reader.read_all()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a part's file."""
    ((_, rows),) = unpack(read_table(path))
    return rows
