"""Read tables of sentences and entities, as JSON lines, Parquet, Arrow, CSV or TSV.

Sentences (``sentences*.jsonl`` or ``sentences/**.jsonl``, with .gz, .zst, .bz2, .xz or .lz4 behind where
they are compressed; ``sentences*.parquet``, ``sentences/**.parquet`` or ``sentences.parquet/*``; likewise
.csv, .tsv and .arrow). Tables of sentences are also a file, a pattern of names, with --columns any folder,
and the folder of a Hugging Face data set, all its splits together: one that ``Dataset.save_to_disk`` wrote,
or a copy of one on the hub (``hf download NAME --repo-type dataset --local-dir FOLDER``):

===============  ========  ==================================================================
``entity``       required  the name of the entity that the sentence mentions
``sentence``     required  the text; may be missing where there is an image
``start end``    optional  characters of the mention, end exclusive; found by us where missing
``image``        optional  an image: path from the source's folder on, local path or s3:// address; or
                           {bytes, path}, as Hugging Face datasets have it
``image_bytes``  optional  in its place the image's bytes; in JSON lines as base64. 32 MiB at most
``annotated``    optional  true: people marked the mention, which so holds in any spelling
===============  ========  ==================================================================

Entities (files likewise: ``entities*.jsonl``, ``entities/**.parquet`` …; optional: without them, those of the
sentences in order of first appearance):

===============  ========  ========================================
``name``         required  unique
``aliases``      optional  list of other spellings
``description``  optional  a text
``attributes``   optional  ``{attribute: [value, …]}``
===============  ========  ========================================

null, NaN and empty cells are missing values. In CSV and TSV aliases are parted by ``|``, and attributes are
a JSON object. Folders ``column=value`` give a column that the files in them lack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from engine.corpus.image_addresses import address_in
from engine.corpus.positions import Position
from engine.corpus.readers.base import Entity, RefusedRecord, Sentence
from engine.corpus.readers.row_files import RowFile
from engine.corpus.readers.rows import Row
from engine.corpus.readers.table_files import TableFiles
from engine.corpus.readers.values import (
    NO_CONTENT,
    BadDetail,
    Faults,
    Values,
    details,
    dumps,
    entity_of_row,
    flag_of,
    image_of,
    offsets_of,
    required_text,
    text_of,
)
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.text.spelling import clean_name

SENTENCE_COLUMNS = ("entity", "sentence", "start", "end", "image", "image_bytes", "annotated")
ENTITY_COLUMNS = ("name", "aliases", "description", "attributes", "removed")

OWN_NAMES: Mapping[str, str] = {}


class TableReader:
    """Tables of sentences and, where there are any, of entities.

    Args:
        tables: their files.
        columns: names of columns in the files by ours, where they are others.
    """

    def __init__(self, tables: TableFiles, columns: Mapping[str, str] = OWN_NAMES) -> None:
        self._tables, self._columns = tables, columns
        self.unread = tables.unread

    def files(self) -> list[Store]:
        """Return the files that are read."""
        return [one.file for one in (*self._tables.entities, *self._tables.sentences)]

    def entities(self) -> Iterator[Entity | RefusedRecord] | None:
        """Yield the rows of the entity tables; None where there is none."""
        return self._entity_rows() if self._tables.entities else None

    def _entity_rows(self) -> Iterator[Entity | RefusedRecord]:
        for file in self._tables.entities:
            for row, position, text in self._rows_of(file, ENTITY_COLUMNS):
                if isinstance(row, Refusal):
                    yield _refused(file.name, position, row, row, text, "entity")
                    continue
                one, refused = entity_of_row(row, file.name, position, text)
                yield from refused
                if one:
                    yield one

    def sentences(self) -> Iterator[Sentence | RefusedRecord]:
        """Yield the rows of the sentence tables, file by file in the order of their names.

        Raises:
            FormatError: a file lacks a required column.
        """
        for file in self._tables.sentences:
            source = file.name
            for row, position, text in self._rows_of(file, SENTENCE_COLUMNS):
                if isinstance(row, Refusal):
                    yield _refused(source, position, row, row, text, "sentence")
                    continue
                faults = Faults()
                one = self._sentence(row, source, position, faults)
                if isinstance(one, Refusal):
                    yield _refused(source, position, one, row, text, "sentence")
                else:
                    if faults:
                        yield from details(faults, source, position)
                    yield one

    def _sentence(self, row: Values, source: str, position: Position, faults: Faults) -> Sentence | Refusal:
        entity = required_text(row.get("entity"), "entity")
        if isinstance(entity, Refusal):
            return entity
        sentence = text_of(row.get("sentence"), "sentence")
        image = image_of(row, faults)
        if not (sentence and isinstance(sentence, str)) and not any(image):
            if isinstance(sentence, Refusal):
                return sentence
            return faults[0].refusal if faults else NO_CONTENT
        if isinstance(sentence, Refusal):
            faults.append(BadDetail(sentence, dumps(row["sentence"])))
            sentence = None
        start, end = offsets_of(row, faults)
        if not sentence and (start or end):
            reason = Refusal(Code.CONFLICTING_FIELDS, "start and end of a mention, but no sentence")
            faults.append(BadDetail(reason, dumps({"start": start, "end": end})))
        if not sentence:
            start, end = None, None
        address = address_in(self._tables.root, image.address) if image.address else None
        name = clean_name(entity)
        marked = flag_of(row.get("annotated"), "annotated", faults) and start is not None
        return Sentence(name, sentence or "", start, end, address, source, position, marked, image.content)

    def _rows_of(self, file: RowFile, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of a file by our names of its columns; see :meth:`RowFile.rows`."""
        named = {our: self._columns.get(our, our) for our in columns}
        there = file.columns() if file.has_header else None
        if there is not None and (missing := self._missing(named, there)):
            missed = " and no column ".join(missing)
            raise FormatError(f"{file.file.uri}: no column {missed} (found: {', '.join(there)})")
        return file.rows(named)

    def _missing(self, named: Mapping[str, str], there: Sequence[str]) -> list[str]:
        """Return the columns that a table lacks: required ones, and those that the user named."""
        ours = list(named)
        required = {ours[0], *(our for our in named if our in self._columns)}
        if ours == list(SENTENCE_COLUMNS) and not {named["image"], named["image_bytes"]} & set(there):
            required.add("sentence")
        return [their for our, their in named.items() if our in required and their not in there]


def _refused(
    source: str,
    position: Position,
    refusal: Refusal,
    row: Values | Refusal,
    text: str,
    of: Literal["entity", "sentence"],
) -> RefusedRecord:
    record = text if text or isinstance(row, Refusal) else dumps(row)
    return RefusedRecord(source, position, refusal, record, of)
