"""Link raw texts: find the entities of a table in them, and write what `seedset import` reads.

::

    entities.parquet              the table
    sentences/part-NNNNN.parquet  the mentions that were drawn: entity, sentence, start, end, document
    report.md report.csv          what was found: for people, and a row an entity
    quarantine/*.jsonl            refused rows and sentences, with their reason
    _found/                       what was found in each part of the texts; a rerun makes what is missing
    _redirects.parquet            titles that lead to entities, where links mark the mentions
    _manifest.json                written last: without it the output is unfinished
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from engine.corpus.importing.writer import write_entities
from engine.corpus.linking.found import FOUND_SCHEMA, PartCollector, PartSummary
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.markup import Link, MarkedText, Markup, ReadMarkup
from engine.corpus.linking.matcher import Match, Matcher
from engine.corpus.linking.rules import LinkRules
from engine.corpus.linking.splitting import one_line, sentence_spans
from engine.corpus.linking.titles import Titles, read_redirects, write_redirects
from engine.corpus.linking.wikiextractor import read_wikiextractor
from engine.corpus.linking.wikitext import read_wikitext
from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.readers.row_files import Form, RowFile
from engine.corpus.readers.rows import Piece
from engine.corpus.readers.values import required_text
from engine.corpus.text import MAX_SENTENCE_CHARACTERS, fault_of_text
from engine.refusals import Refusal
from engine.storage.parts import MANIFEST, PartFolder, content_key
from engine.storage.sources import source_store
from engine.storage.store import Store, machine_cache
from engine.text.spelling import is_blank
from engine.vocabulary import Vocabulary
from jobs.workers.executor import Executor, make_parts

FOUND, ENTITIES, QUARANTINE, REDIRECTS = "_found", "entities.parquet", "quarantine", "_redirects.parquet"
_REFUSED, _MENTIONS, _SUMMARY = ".jsonl", ".parquet", ".json"

VERSION = 1
"""Raised where the same texts are linked otherwise: what was found before is made again."""

ROWS_IN_MEMORY = 50_000
"""Mentions that are held at once."""

MARKUPS: dict[Markup, ReadMarkup] = {"wikitext": read_wikitext, "wikiextractor": read_wikiextractor}


class LinkSettings(BaseModel):
    """The settings by which texts are read and linked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: LinkRules = LinkRules()
    markup: Markup = Field(
        default="none",
        description="Take the links of texts for the mentions, and nothing else: texts in MediaWiki's markup "
        "(wikitext), or as WikiExtractor writes them with --json --links.",
    )
    split: bool = Field(default=True, description="Split the texts into sentences; else each is one.")
    language: str = Field(
        default="en",
        description="Language of the texts, by its code: what ends no sentence, as in Mr. or z.B. Of one "
        "without such rules those of English are taken.",
    )
    max_sentence_characters: int = Field(
        default=MAX_SENTENCE_CHARACTERS, ge=1, description="Refuse sentences of more characters."
    )


class LinkTask(NamedTuple):
    """A part of the texts: a file, or a piece of one."""

    name: str
    address: str
    source: str
    form: Form
    columns: Mapping[str, str]
    piece: Piece | None
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

    @cached_property
    def _titles(self) -> Titles:
        return Titles(self._lexicon, read_redirects((self._output / REDIRECTS).local_copy(machine_cache())))

    def __call__(self, task: LinkTask) -> PartSummary:
        """Write the part, and return its summary."""
        by_links = self._settings.markup != "none"
        found = PartCollector(self._lexicon.names, self._settings.rules.ambiguous, by_links)
        with ExitStack() as files:
            path = files.enter_context(self._parts.writing(task.name, _REFUSED))
            refused = files.enter_context(path.open("wb"))
            table = files.enter_context(self._parts.writing(task.name, _MENTIONS))
            options: Any = {"compression": "zstd", "use_dictionary": ["entity_id", "key"]}
            writer = files.enter_context(pq.ParquetWriter(table, FOUND_SCHEMA, **options))
            for one in self._read(task, found):
                if one is not None:
                    found.refuse(one)
                    refused.write(_line(one))
                if found.rows >= ROWS_IN_MEMORY:
                    writer.write_table(found.take())
            writer.write_table(found.take())
        summary = found.finished()
        with self._parts.writing(task.name, _SUMMARY) as path:
            path.write_text(summary.model_dump_json(), encoding="utf-8")
        return summary

    def _read(self, task: LinkTask, found: PartCollector) -> Iterator[RefusedRecord | None]:
        """Link a part's texts; yield what is refused of them, and None after each text."""
        file = RowFile(source_store(task.address), task.source, task.form)
        for values, position, record in file.rows(task.columns, task.piece):
            if isinstance(values, Refusal):
                yield RefusedRecord(task.source, position, values, record)
                continue
            found.summary.texts += 1
            text = required_text(values.get("text"), "text")
            if isinstance(text, Refusal):
                yield RefusedRecord(task.source, position, text, record)
                continue
            document = str(values.get("document") or f"{task.source}, {position}")
            for sentence, links in self._sentences(text):
                fault = fault_of_text(sentence, self._settings.max_sentence_characters)
                if fault:
                    yield RefusedRecord(task.source, position, fault, sentence)
                else:
                    found.add(sentence, self._matches(sentence, links, found), document)
            yield None

    def _matches(self, sentence: str, links: Sequence[Link], found: PartCollector) -> list[Match]:
        """Return the mentions of a sentence: its links, where these mark them, else the names in it."""
        if self._settings.markup == "none":
            return self._matcher.find(sentence)
        return self._titles.matches(links, found.summary.links)

    def _sentences(self, text: str) -> Iterator[tuple[str, list[Link]]]:
        """Yield a text's sentences, composed and in one line each, with their links."""
        read = MARKUPS.get(self._settings.markup)
        text, links = read(text) if read else MarkedText(text, [])
        whole = [(one.start, one.end) for one in links]
        spans = (
            sentence_spans(text, self._settings.language, whole) if self._settings.split else [(0, len(text))]
        )
        place = 0
        for first, last in spans:
            own: list[Link] = []
            while place < len(links) and links[place].end <= last:
                own.append(links[place])
                place += 1
            places = [(one.start - first, one.end - first) for one in own]
            sentence, places = one_line(text[first:last], places)
            if not is_blank(sentence):
                yield (
                    sentence,
                    [Link(a, b, one.target) for (a, b), one in zip(places, own, strict=True) if a < b],
                )


def found_parts(output: Store) -> PartFolder[PartSummary]:
    """Return the parts of what was found."""
    return PartFolder(output / FOUND, (_REFUSED, _MENTIONS, _SUMMARY), _read_summary)


def _read_summary(file: Store) -> PartSummary:
    return PartSummary.model_validate_json(file.read_bytes())


def link_tasks(
    files: Sequence[RowFile], columns: Mapping[str, str], table: str, settings: LinkSettings
) -> dict[str, LinkTask]:
    """Return the parts by a name that stands for all that the part is made of, in the order of the texts.

    Args:
        files: of the texts.
        columns: of them that are read.
        table: what changes with the table of entities, and with redirects to them.
        settings: by which they are linked.
    """
    found: dict[str, LinkTask] = {}
    own = settings.model_dump_json()
    for file in files:
        stamp = file.file.stamp()
        for piece, size in file.pieces():
            made_from = json.dumps([VERSION, file.form, piece, dict(columns)])
            name = content_key(file.file.uri, stamp, made_from, table, own)
            found[name] = LinkTask(name, file.file.uri, file.name, file.form, columns, piece, size)
    return found


NO_REDIRECTS: Mapping[str, Sequence[int]] = {}


class LinkSource(NamedTuple):
    """What is linked.

    Args:
        entities: the table.
        files: of the texts.
        columns: names of ``text`` and, if there is one, ``document`` in them.
        redirects: entities by the title of a redirect, where links mark the mentions.
    """

    entities: Sequence[Entity]
    files: Sequence[RowFile]
    columns: Mapping[str, str]
    redirects: Mapping[str, Sequence[int]] = NO_REDIRECTS


class LinkResult(NamedTuple):
    """The parts of an output by name, with their summaries; and the table's lexicon."""

    summaries: Mapping[str, PartSummary]
    lexicon: Lexicon


def lexicon_of(entities: Sequence[Entity]) -> Lexicon:
    """Return the spellings of a table."""
    return Lexicon([one.name for one in entities], [one.aliases for one in entities])


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
    lexicon = lexicon_of(source.entities)
    table = lexicon.digest
    if settings.markup != "none":
        with (output / REDIRECTS).writing() as path:
            table += write_redirects(path, source.redirects)
    tasks = link_tasks(source.files, source.columns, table, settings)
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


def write_quarantine(output: Store, parts: Iterable[str], refused: Sequence[RefusedRecord]) -> int:
    """Write what is refused of the table and of the parts of the texts; return how many records that are."""
    folder, number = found_parts(output), len(refused)
    (output / QUARANTINE).delete()
    with (output / QUARANTINE / "refused.jsonl").writing() as path, path.open("wb") as file:
        file.writelines(_line(one) for one in refused)
        for name in parts:
            content = folder.file(name, _REFUSED).read_bytes()
            file.write(content)
            number += content.count(b"\n")
    return number


def _line(one: RefusedRecord) -> bytes:
    return (json.dumps(one.as_json(), ensure_ascii=False) + "\n").encode()
