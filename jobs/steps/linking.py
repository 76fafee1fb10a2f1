"""Link raw texts: find the entities of a table in them, and write what `seedset import` reads.

::

    entities.parquet              the table
    sentences/part-NNNNN.parquet  the mentions that were drawn: entity, sentence, start, end, document
    report.md report.csv          what was found: for people, and a row an entity
    quarantine/*.jsonl            refused rows and sentences, with their reason
    _found/                       what was found in each part of the texts; a rerun makes what is missing
    _manifest.json                written last: without it the output is unfinished
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentencex
from pydantic import BaseModel, ConfigDict, Field

from engine.corpus.importing.writer import write_entities
from engine.corpus.linking.found import PartCollector, PartSummary
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.matcher import Matcher
from engine.corpus.linking.rules import LinkRules
from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.readers.row_files import Form, RowFile
from engine.corpus.readers.values import required_text
from engine.corpus.text import MAX_SENTENCE_CHARACTERS, fault_of_text
from engine.refusals import Refusal
from engine.storage.parts import MANIFEST, PartFolder, content_key
from engine.storage.store import Store, machine_cache
from engine.text.spelling import is_blank, nfc
from engine.vocabulary import Vocabulary
from jobs.workers.executor import Executor, make_parts

FOUND, ENTITIES, QUARANTINE = "_found", "entities.parquet", "quarantine"
_REFUSED, _MENTIONS, _SUMMARY = ".jsonl", ".parquet", ".json"

VERSION = 1
"""Raised where the same texts are linked otherwise: what was found before is made again."""

GROUPS_ROWS = 50_000
"""Rows of a Parquet file that are one part's at least, but for the last."""


class LinkSettings(BaseModel):
    """The settings by which texts are read and linked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: LinkRules = LinkRules()
    split: bool = Field(default=True, description="Split the texts into sentences; else each is one.")
    language: str = Field(
        default="en",
        description="Language of the texts, by its code: what ends no sentence, as in Mr. or z.B.",
    )
    max_sentence_characters: int = Field(
        default=MAX_SENTENCE_CHARACTERS, ge=1, description="Refuse sentences of more characters."
    )


class LinkTask(NamedTuple):
    """A part of the texts: a file, or neighbouring row groups of one."""

    name: str
    address: str
    source: str
    form: Form
    columns: Mapping[str, str]
    groups: list[int] | None
    size: int


class LinkWorker:
    """A worker that links the texts of a part.

    Args:
        output: address of the output, with the table of entities.
        settings: by which it links.
    """

    def __init__(self, output: str, settings: LinkSettings) -> None:
        self._output, self._settings = Store.open(output), settings
        self._parts = found_parts(self._output)

    @cached_property
    def _lexicon(self) -> Lexicon:
        table = Vocabulary.read((self._output / ENTITIES).local_copy(machine_cache()))
        return Lexicon(table.names, table.aliases)

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self._lexicon, self._settings.rules)

    def __call__(self, task: LinkTask) -> PartSummary:
        """Write the part, and return its summary."""
        policy = self._settings.rules.ambiguous
        found = PartCollector(list(self._lexicon.names), policy == "all", policy == "nearest")
        with self._parts.writing(task.name, _REFUSED) as path, path.open("w", encoding="utf-8") as refused:
            for one in self._read(task, found):
                found.summary.refused += 1
                reasons = found.summary.reasons
                code = one.refusal.code.value
                reasons[code] = reasons.get(code, 0) + 1
                refused.write(json.dumps(one.as_json(), ensure_ascii=False) + "\n")
        with self._parts.writing(task.name, _MENTIONS) as path:
            pq.write_table(found.table(), path, compression="zstd", use_dictionary=["entity_id", "key"])
        summary = found.finished()
        with self._parts.writing(task.name, _SUMMARY) as path:
            path.write_text(summary.model_dump_json(), encoding="utf-8")
        return summary

    def _read(self, task: LinkTask, found: PartCollector) -> Iterator[RefusedRecord]:
        """Link a part's texts, and yield what is refused of them."""
        file = RowFile(Store.open(task.address), task.source, task.form)
        for values, position, record in file.rows(task.columns, task.groups):
            if isinstance(values, Refusal):
                yield RefusedRecord(task.source, position, values, record)
                continue
            found.summary.texts += 1
            text = required_text(values.get("text"), "text")
            if isinstance(text, Refusal):
                yield RefusedRecord(task.source, position, text, record)
                continue
            document = str(values.get("document") or f"{task.source}, {position}")
            for sentence in self._sentences(text):
                fault = fault_of_text(sentence, self._settings.max_sentence_characters)
                if fault:
                    yield RefusedRecord(task.source, position, fault, sentence)
                else:
                    found.add(sentence, self._matcher.find(sentence), document)

    def _sentences(self, text: str) -> Iterator[str]:
        """Yield a text's sentences, composed and in one line each."""
        pieces = sentencex.segment(self._settings.language, text) if self._settings.split else [text]
        for piece in pieces:
            sentence = " ".join(nfc(piece).split())
            if not is_blank(sentence):
                yield sentence


def found_parts(output: Store) -> PartFolder[PartSummary]:
    """Return the parts of what was found."""
    return PartFolder(output / FOUND, (_REFUSED, _MENTIONS, _SUMMARY), _read_summary)


def _read_summary(file: Store) -> PartSummary:
    return PartSummary.model_validate_json(file.read_bytes())


def link_tasks(
    files: Sequence[RowFile], columns: Mapping[str, str], lexicon: Lexicon, settings: LinkSettings
) -> dict[str, LinkTask]:
    """Return the parts by a name that sorts by place and stands for all that the part is made of."""
    found: dict[str, LinkTask] = {}
    table = lexicon.digest
    for file in files:
        for groups, size in _pieces(file):
            made_from = (
                file.file.uri,
                file.file.stamp(),
                json.dumps([VERSION, file.form, groups, dict(columns)]),
            )
            name = f"{len(found):05}-{content_key(*made_from, table, settings.model_dump_json())}"
            found[name] = LinkTask(name, file.file.uri, file.name, file.form, columns, groups, size)
    return found


def _pieces(file: RowFile) -> Iterator[tuple[list[int] | None, int]]:
    """Yield the row groups of each part of a file, and their bytes; None: the whole file."""
    if file.form != "parquet":
        yield None, file.file.size()
        return
    try:
        with file.file.open_input() as stream:
            about = pq.read_metadata(stream)
            sizes = [about.row_group(group) for group in range(about.num_row_groups)]
            rows_and_bytes = [(one.num_rows, one.total_byte_size) for one in sizes]
    except (pa.ArrowException, OSError):
        yield None, file.file.size()  # refused where it is read
        return
    groups: list[int] = []
    for group in range(len(rows_and_bytes)):
        groups.append(group)
        rows, size = np.sum([rows_and_bytes[one] for one in groups], axis=0)
        if rows >= GROUPS_ROWS or group == len(rows_and_bytes) - 1:
            yield groups, int(size)
            groups = []


class LinkSource(NamedTuple):
    """What is linked.

    Args:
        entities: the table.
        refused: of the table.
        files: of the texts.
        columns: names of ``text`` and, if there is one, ``document`` in them.
    """

    entities: Sequence[Entity]
    refused: Sequence[RefusedRecord]
    files: Sequence[RowFile]
    columns: Mapping[str, str]


class LinkResult(NamedTuple):
    """The parts of an output by name, with their summaries; and the table's lexicon."""

    summaries: Mapping[str, PartSummary]
    lexicon: Lexicon


def link_parts(source: LinkSource, output: Store, settings: LinkSettings, executor: Executor) -> LinkResult:
    """Find the entities in all texts; parts that are there already are kept.

    Args:
        source: table and texts.
        output: receives the table and the parts.
        settings: by which it links.
        executor: where it runs.
    """
    (output / f"_{MANIFEST}").delete()
    with (output / ENTITIES).writing() as path:
        write_entities(path, list(source.entities))
    lexicon = Lexicon([one.name for one in source.entities], [one.aliases for one in source.entities])
    tasks = link_tasks(source.files, source.columns, lexicon, settings)
    parts = found_parts(output)
    made = make_parts(
        parts,
        tasks,
        LinkWorker,
        (output.uri, settings),
        executor,
        "linking, MiB",
        lambda task: max(1, task.size >> 20),
    )
    for name in set(parts.names()) - set(tasks):
        for suffix in parts.suffixes:
            parts.file(name, suffix).delete()
    return LinkResult(made.parts, lexicon)
