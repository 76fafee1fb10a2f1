"""Find the files of a source of queries, and read their records, whatever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.readers.compression import BrokenStreamError, open_text, without_ending
from engine.corpus.readers.json_stream import BLOCK, line_object, lines, wrong_type
from engine.corpus.readers.rows import batch_rows
from engine.corpus.readers.source_files import list_source, partition_of, refuse_left_out, shown
from engine.errors import FormatError
from engine.queries.mesed import SUFFIX, RawRecord, mesed_records, query_texts
from engine.queries.records import FIELDS, SPELLINGS
from engine.refusals import Code, Refusal
from engine.repeated_keys import json_records
from engine.storage.store import Store

SUFFIXES = (".json", ".jsonl", ".parquet")
_ENDINGS = f"{', '.join(SUFFIXES)} (the first two also compressed), or, in MESED's layout, {SUFFIX}"

MAX_LIST = 1 << 27
"""Bytes of a list in JSON, unpacked: it is read whole, and takes several times as much memory."""

BATCH = 4096
"""Rows of a Parquet file that are held at once."""


def query_files(source: Store) -> dict[str, Store]:
    """Return the query files of a source by their path from its folder on.

    Raises:
        FormatError: there is none, or one of the folder would not be read.
    """
    if source.size() >= 0:
        if not _is_query_file(source.name) and not source.name.endswith(SUFFIX):
            raise FormatError(f"{source.uri}: a query file ends in {_ENDINGS}")
        return {source.name: source}
    folder = source / "query" if (source / "query").exists() else source
    if not folder.exists():
        # A path with a typing error is the likeliest mistake: say which of the two it is.
        raise FormatError(f"{folder.uri}: no such file or folder; a query file ends in {_ENDINGS}")
    listing = list_source(folder)
    files = {name: file for name, file in listing.files.items() if _is_query_file(name)}
    if not files and (files := {file.name: file for file in query_texts(folder)}):
        deeper = [n for n in listing.files if "/" in n and n.endswith(SUFFIX) and not n.startswith("gt/")]
        if deeper:
            raise FormatError(
                f"{folder.uri}: not all of it would be read: {shown(deeper)}. Queries in MESED's layout lie "
                "in one folder; name it, or move these files out of it"
            )
    refuse_left_out(listing, files, [""], f"A query file ends in {_ENDINGS}", texts=False)
    if not files:
        raise FormatError(f"{folder.uri}: holds no query file; a query file ends in {_ENDINGS}")
    return files


def _is_query_file(name: str) -> bool:
    return name.endswith(".parquet") or without_ending(name).endswith((".json", ".jsonl"))


def records_of(files: Mapping[str, Store]) -> Iterator[RawRecord]:
    """Yield (file, position, record) of query files, in order; JSON lines and Parquet as streams."""
    listed = list(files.values())
    if listed[0].name.endswith(SUFFIX):
        yield from mesed_records(listed)
        return
    for name, file in files.items():
        given = {key: value for key, value in partition_of(name).items() if key in FIELDS}
        for position, record in _records(file):
            if isinstance(record, dict):
                for key in given.keys() - {
                    twin for pair in SPELLINGS if record.keys() & pair for twin in pair
                }:
                    record.setdefault(key, given[key])  # in place: it may be marked (repeated_keys)
            yield file, position, record


def _records(file: Store) -> Iterator[tuple[int, Any]]:
    """Yield (position, record); in the place of what cannot be read its refusal."""
    if without_ending(file.name).endswith(".jsonl"):
        for line in lines(file):
            if not line.is_blank:
                row, text = line_object(line, FIELDS)
                # One with a key twice is refused where its id is known.
                twice = isinstance(row, Refusal) and row.code is Code.CONFLICTING_FIELDS
                yield line.number, json_records(text) if twice else row
        return
    position = 0
    try:
        if file.name.endswith(".parquet"):
            for position, record in enumerate(_parquet_rows(file), 1):
                yield position, record
            return
        with open_text(file) as stream:
            content = bytearray()
            while len(content) <= MAX_LIST and (block := stream.read(BLOCK)):
                content += block
            if len(content) > MAX_LIST:
                yield 0, _too_large(file)
                return
            records = json_records(bytes(content))
    except BrokenStreamError as error:
        yield 0, error.refusal
        return
    except (ValueError, OSError, pa.ArrowException, RecursionError) as error:
        behind = f" behind row {position}" if position else ""
        yield 0, Refusal(Code.FILE_BROKEN, f"cannot be read{behind}: {error}")
        return
    if not isinstance(records, list):
        yield 0, wrong_type("a query file must be a list of queries", records)
        return
    yield from enumerate(records, 1)


def _too_large(file: Store) -> Refusal:
    """Return the refusal of a list that memory may not hold."""
    return Refusal(
        Code.FILE_TOO_LARGE,
        f"a list of more than {MAX_LIST >> 20} MiB ({file.size() >> 20} MiB on disk), which would be read "
        "whole; make JSON lines of it, which are read one by one: jq -c '.[]' queries.json > queries.jsonl",
    )


def _parquet_rows(file: Store) -> Iterator[Any]:
    with file.open_input() as stream:
        for batch in pq.ParquetFile(stream).iter_batches(BATCH):
            yield from batch_rows(batch)
