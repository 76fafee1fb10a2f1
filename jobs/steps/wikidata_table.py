"""Make a table of entities of a Wikidata dump, in memory that does not grow with the dump.

The dump is read once. Labels of all its entities, and what is taken for the table, are put aside on disk; the
labels that values need are then looked up there, as any line may name an entity that a later one holds. In
memory are some hundred bytes for each entity of the table, and the labels of its attributes' values.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from engine.corpus.drawing import draw_of
from engine.corpus.readers.base import RefusedRecord
from engine.corpus.readers.row_files import RowFile
from engine.corpus.readers.rows import BATCH
from engine.corpus.readers.values import details, dumps
from engine.corpus.readers.wikidata import ALL_LANGUAGES, ENTITY_ID, DumpEntity, Wanted, entity_of, read_dump
from engine.corpus.readers.wikidata_values import Value
from engine.corpus.text import fault_of_name
from engine.refusals import Refusal
from engine.storage.store import Store
from engine.vocabulary import ENTITY_SCHEMA, MAX_NAME_LENGTH

ENTITIES, REFUSED = "entities.parquet", "_refused.jsonl"

TABLE_SCHEMA = pa.schema(
    [
        *(one for one in ENTITY_SCHEMA if one.name != "entity_id"),
        pa.field("id", pa.string()),
        pa.field("title", pa.string()),
    ]
)
"""The columns of the table: those of every table of entities; and the id and the page's title."""

T = TypeVar("T", bound=np.generic)

Progress = Callable[[int], None]
_PROGRESS_EVERY = 1000


class DumpSettings(BaseModel):
    """What is taken of a dump.

    Args:
        languages: of labels, the first that there is.
        site: whose titles are read.
        attributes: names by property; an empty one is the property's label.
        classes: ids of which an entity must be an instance of one; none: all items are taken.
        with_page: take only entities that have a page on the site.
    """

    languages: list[str]
    site: str
    attributes: dict[str, str] = {}
    classes: list[str] = []
    with_page: bool = False

    @property
    def wanted(self) -> Wanted:
        """What is read of each entity."""
        return Wanted((*self.languages, ALL_LANGUAGES), self.site, tuple(self.attributes))


class DumpCounts(BaseModel):
    """What became of a dump's entities."""

    read: int = 0
    """Items."""
    properties: int = 0
    others: int = 0
    """Neither items nor properties."""
    other_class: int = 0
    without_page: int = 0
    without_label: int = 0
    entities: int = 0
    """Those of the table."""
    refused: int = 0
    renamed: int = 0
    """Entities of the table whose label is another one's as well."""
    repeated: int = 0
    """Entities whose id an earlier one has."""
    values: int = 0
    """Values of attributes that are entities, each of which counts once."""
    values_without_label: int = 0


def number_of(entity: str) -> int:
    """Return an id as a number: ``Q31`` is 31, ``P31`` is -31; 0: none of an item or a property."""
    if ENTITY_ID.fullmatch(entity) is None:
        return 0
    return int(entity[1:]) if entity[0] == "Q" else -int(entity[1:])


class LabelFile:
    """Labels of all entities of a dump, on disk.

    Args:
        path: of the file.
    """

    SCHEMA = pa.schema([pa.field("number", pa.int64()), pa.field("label", pa.string())])

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = pq.ParquetWriter(path, self.SCHEMA, compression="zstd", use_dictionary=False)
        self._rows: list[tuple[int, str]] = []

    def add(self, entity: str, label: str) -> None:
        """Add a label."""
        self._rows.append((number_of(entity), label))
        if len(self._rows) == 8 * BATCH:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else ([], [])
        self._writer.write_table(pa.table(list(map(list, columns)), schema=self.SCHEMA))
        self._rows = []

    def labels(self, entities: Iterable[str]) -> dict[str, str]:
        """End the file, and return the labels that some entities have."""
        self._flush()
        self._writer.close()
        wanted = {number: one for one in entities if (number := number_of(one))}
        numbers = np.array(sorted(wanted), np.int64)
        found: dict[str, str] = {}
        for batch in pq.ParquetFile(self._path).iter_batches():
            kept = batch.filter(pa.array(_held(numbers, batch["number"].to_numpy())))
            for number, label in zip(*kept.to_pydict().values(), strict=True):
                found.setdefault(wanted[number], label)
        return found


class DumpTable:
    """A table of entities that is made of a dump.

    Args:
        output: folder of the table and of what is refused.
        settings: what is taken.
        progress: called with the number of lines read, some at a time.
    """

    def __init__(self, output: Store, settings: DumpSettings, progress: Progress = lambda n: None) -> None:
        self._output, self._settings, self._progress = output, settings, progress
        self._wanted, self._classes = settings.wanted, frozenset(settings.classes)
        self.counts = DumpCounts()
        self._labels, self._titles = array("Q"), array("Q")  # hashes
        self._numbers = array("q")
        self._values: set[str] = set()

    def make(self, files: Sequence[RowFile]) -> DumpCounts:
        """Read the dump's files, and write the table and what is refused."""
        with tempfile.TemporaryDirectory() as folder:
            labels, aside = LabelFile(Path(folder) / "labels.parquet"), Path(folder) / "entities.jsonl"
            with ExitStack() as open_files:
                path = open_files.enter_context((self._output / REFUSED).writing())
                refused = open_files.enter_context(path.open("w", encoding="utf-8"))
                kept = open_files.enter_context(aside.open("w", encoding="utf-8"))
                for one in self._read(files, labels):
                    if isinstance(one, RefusedRecord):
                        self.counts.refused += 1
                        refused.write(json.dumps(one.as_json(), ensure_ascii=False) + "\n")
                    else:
                        kept.write(self._aside(one) + "\n")
            properties = [one for one, name in self._settings.attributes.items() if not name]
            found = labels.labels([*self._values, *properties])
            self.counts.values = len(self._values)
            self.counts.values_without_label = len(self._values - found.keys())
            with (self._output / ENTITIES).writing() as path:
                self._write(path, aside, found)
        return self.counts

    def _read(self, files: Sequence[RowFile], labels: LabelFile) -> Iterator[DumpEntity | RefusedRecord]:
        """Yield the entities of the table, and what is refused; all labels are added to the file."""
        done = 0
        for file in files:
            for row, position, text in read_dump(file.file):
                done += 1
                if done % _PROGRESS_EVERY == 0:
                    self._progress(_PROGRESS_EVERY)
                one = row if isinstance(row, Refusal) else entity_of(row, self._wanted)
                if isinstance(one, Refusal):
                    yield RefusedRecord(file.name, position, one, text or dumps(row), "entity")
                    continue
                if one is None:
                    self.counts.others += 1
                    continue
                yield from details(one.faults, file.name, position, f"{one.id}:")
                if one.label:
                    labels.add(one.id, one.label)
                if self._takes(one):
                    fault = _fault_of_names(one)
                    yield RefusedRecord(file.name, position, fault, one.label, "entity") if fault else one

    def _takes(self, one: DumpEntity) -> bool:
        """Return whether an entity is one of the table, and count it."""
        counts = self.counts
        if not one.is_item:
            counts.properties += 1
            return False
        counts.read += 1
        if self._classes and not self._classes & one.classes:
            counts.other_class += 1
        elif self._settings.with_page and not one.title:
            counts.without_page += 1
        elif not one.label:
            counts.without_label += 1
        else:
            return True
        return False

    def _aside(self, one: DumpEntity) -> str:
        """Return a line that keeps an entity of the table, of which names and values are noted."""
        self._labels.append(draw_of(one.label))
        self._titles.append(draw_of(one.title))
        self._numbers.append(number_of(one.id))
        self._values.update(value.id for some in one.values.values() for value in some if value.id)
        return json.dumps([one.id, one.label, one.title, one.description, list(one.aliases), one.values])

    def _write(self, path: Path, aside: Path, labels: Mapping[str, str]) -> None:
        """Write the table of what was put aside, each id once."""
        _, first = np.unique(np.frombuffer(self._numbers, np.int64), return_index=True)
        self.counts.entities = len(first)
        self.counts.repeated = len(self._numbers) - len(first)
        is_first = np.zeros(len(self._numbers), np.bool_)
        is_first[first] = True
        hashes = (np.frombuffer(some, np.uint64)[is_first] for some in (self._labels, self._titles))
        names, place = _Names(*hashes), 0
        with ExitStack() as files:
            writer = files.enter_context(pq.ParquetWriter(path, TABLE_SCHEMA, compression="zstd"))
            rows: list[dict[str, Any]] = []
            for line, taken in zip(files.enter_context(aside.open(encoding="utf-8")), is_first, strict=True):
                if not taken:
                    continue
                rows.append(self._row(json.loads(line), place, names, labels))
                place += 1
                if len(rows) == BATCH:
                    writer.write_table(pa.Table.from_pylist(rows, TABLE_SCHEMA))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, TABLE_SCHEMA))

    def _row(self, kept: list[Any], place: int, names: _Names, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return a row of the table."""
        own, label, title, description, aliases, values = kept
        name = names.name(place, own, label, title)
        self.counts.renamed += name != label
        attributes: dict[str, list[str]] = {}
        for key, some in values.items():
            texts = attributes.setdefault(self._settings.attributes[key] or labels.get(key, key), [])
            texts += (text for text in _texts(some, labels) if text not in texts)
        others = dict.fromkeys(one for one in (label, title, *aliases) if one and one != name)
        return {
            "name": name,
            "aliases": list(others),
            "description": description or None,
            "attributes": list(attributes.items()),
            "id": own,
            "title": title or None,
        }


def _fault_of_names(one: DumpEntity) -> Refusal | None:
    """Return why an entity's label or its page's title cannot name it, or None."""
    faults = (fault_of_name(text, MAX_NAME_LENGTH) for text in (one.label, one.title) if text)
    return next((fault.about(f"{one.id}:") for fault in faults if fault), None)


def _texts(values: Iterable[Sequence[str]], labels: Mapping[str, str]) -> Iterator[str]:
    """Yield values as texts: an entity's label, or its id where it has none; a quantity with its unit."""
    for text, own in (Value(*one) for one in values):
        yield " ".join(filter(None, (text, labels.get(own, own))))


class _Names:
    """Names that no two entities of a table have, by the hashes of their labels and titles (uint64 [N])."""

    def __init__(self, labels: npt.NDArray[np.uint64], titles: npt.NDArray[np.uint64]) -> None:
        self._labels, self._titles = labels, titles
        found, counts = np.unique(labels, return_counts=True)
        self._known, self._shared = found, found[counts > 1]

    def name(self, place: int, own: str, label: str, title: str) -> str:
        """Return an entity's label; where another has it too its title; where that is one's label its id."""
        if not _held(self._shared, self._labels[place : place + 1]).any():
            return label
        if title and not _held(self._known, self._titles[place : place + 1]).any():
            return title
        return f"{label} ({own})"


def _held(ordered: npt.NDArray[T], values: npt.NDArray[T]) -> npt.NDArray[np.bool_]:
    """Return which values are among some, which are ascending."""
    places = np.searchsorted(ordered, values)
    found = places < len(ordered)
    found[found] = ordered[places[found]] == values[found]
    return found
