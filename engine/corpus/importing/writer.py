"""Write a corpus into a local folder: parts of mentions, the entity table, the quarantine."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.importing.part_keys import SUFFIX, digests_of, keys_of, write_keys
from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.schema import MENTION_SCHEMA, PART_ROWS
from engine.storage.local_files import short_name
from engine.storage.store import sha256_of
from engine.vocabulary import ENTITY_SCHEMA, REMOVED

ENTITIES = "entities.parquet"

_VARYING = re.compile(r"""'.*'|".*"|\(.*\)|U\+\w+|\d+""", re.DOTALL)
"""The parts of a reason that differ from record to record: names, numbers, a parser's own words."""


class MentionWriter:
    """A writer that collects mentions and writes ``part-NNNNN.parquet`` files of :data:`PART_ROWS` rows.

    Args:
        folder: of the parts.
        first: number of the first one.
    """

    def __init__(self, folder: Path, first: int = 0) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows: list[tuple[int, str, int, int, str | None]] = []
        self._first = first
        self.parts: list[int] = []

    def add(self, entity_id: int, sentence: str, start: int, end: int, image: str | None) -> None:
        """Add a mention."""
        self._rows.append((entity_id, sentence, start, end, image))
        if len(self._rows) == PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is left, if anything."""
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, MENTION_SCHEMA, strict=True)]
        path = self._folder / f"part-{self._first + len(self.parts):05}.parquet"
        table = pa.Table.from_arrays(arrays, schema=MENTION_SCHEMA)
        write_mentions(table, path)
        self.parts.append(len(self._rows))
        self._rows = []


def write_mentions(table: pa.Table, path: Path) -> None:
    """Write a part of mentions (:data:`MENTION_SCHEMA`), and the keys of these beside it."""
    # No dictionary for the sentences: hardly one comes twice, and looking costs a third of the writing.
    pq.write_table(table, path, use_dictionary=["entity_id", "image"])
    keys = keys_of(table, digests_of(table))
    write_keys(keys, sha256_of(path), path.stat().st_size, path.with_suffix(SUFFIX))


def write_entities(path: Path, entities: list[Entity]) -> None:
    """Write ``entities.parquet``; the id of an entity is its place in the list."""
    schema = ENTITY_SCHEMA.append(REMOVED) if any(one.removed for one in entities) else ENTITY_SCHEMA
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, len(entities), PART_ROWS):
            some = entities[first : first + PART_ROWS]
            rows = {
                "entity_id": range(first, first + len(some)),
                "name": [e.name for e in some],
                "aliases": [e.aliases for e in some],
                "description": [e.description for e in some],
                "attributes": [list(e.attributes.items()) for e in some],
                "removed": [e.removed for e in some],
            }
            writer.write_table(pa.table({name: rows[name] for name in schema.names}, schema=schema))


class Quarantine:
    """Refused records, a file of JSON lines per source file, and their number by reason."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._source = ""
        self._file: TextIO | None = None
        self.reasons: Counter[str] = Counter()
        self.first: list[dict[str, str]] = []

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, refused: RefusedRecord) -> None:
        """Write the line of a refused record."""
        line = refused.as_json()
        self.reasons[_VARYING.sub("…", refused.refusal.detail)] += 1
        if len(self.first) < 3:
            self.first.append(line)
        self._open(refused.source).write(json.dumps(line, ensure_ascii=False) + "\n")

    def _open(self, source: str) -> TextIO:
        """Return the file of a source. One is open at a time: a corpus may have thousands of parts."""
        if self._file is None or self._source != source:
            if self._file is not None:
                self._file.close()
            name = short_name(source.replace("/", "-") + ".jsonl")
            self._source, self._file = source, (self._folder / name).open("a", encoding="utf-8")
        return self._file
