"""Write the result of an image selection, part by part, and make its parts.

The parts are those of :mod:`engine.storage.parts`, spread over folders of which each has its own readers:

::

    choice.json                  what is chosen from, and with which models: a rerun must ask for the same
    records/part-NNNNN.jsonl     the table's usable records, taken apart; gone when all is done
    sentences/part-NNNNN.jsonl   the source that ``seedset import`` takes
    scores/part-NNNNN.parquet    every usable candidate (choice_table.SCORE_SCHEMA), and the part's counts
    quarantine/*.jsonl           refused records and refused candidates

A part is there once its sentences are, which are written last, and its counts can be read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from engine.corpus.positions import PrintedPosition
from engine.corpus.readers.base import RefusedRecord
from engine.errors import StorageError
from engine.images.fetch import ImageFiles
from engine.images.selection.selector import ImageSelector, SelectionResult
from engine.images.selection.settings import SelectionSettings
from engine.images.selection.table import SCORE_SCHEMA, SelectionRecord, read_table
from engine.refusals import Code
from engine.storage.parts import PartFolder, numbered, read_model, write_model
from engine.storage.store import Store
from engine.storage.workspace import Workspace

PART_RECORDS = 128
"""Records of a part: the unit of parallel work and of recovery, a thousand images or so."""

DESCRIPTION = "choice.json"
REFUSED_RECORDS = "records.jsonl"
COUNTS = ("records", "chosen", "without_image", "images_scored", "images_refused")
"""Names of a part's counts; images by record, so one that ten records name counts ten times."""


class SelectionManifest(BaseModel):
    """The manifest ``choice.json``."""

    model_config = ConfigDict(frozen=True)

    settings: SelectionSettings
    table: str
    digest: str
    """Digest of the table's records."""
    records: int
    refused: int
    parts: int
    details_refused: int = 0
    """Candidates, offsets and typical images of the records that cannot be used."""
    models: dict[str, str] = {}
    """Fingerprint of each model by its setting's name; empty: of a version that kept none."""

    def tasks(self) -> dict[str, str]:
        """Return what :class:`SelectionWorker` is to make, by the name of the part; it is that name."""
        return {numbered(part): numbered(part) for part in range(self.parts)}

    def records_of(self, part: str) -> int:
        """Return how many records a part has."""
        return min(PART_RECORDS, self.records - int(part) * PART_RECORDS)


class SelectionFolder:
    """The folder of one image selection."""

    def __init__(self, folder: Store) -> None:
        self.folder = folder
        self.parts: PartFolder[Counter[str]] = PartFolder(folder / "sentences", (".jsonl",), self._counts)
        """The parts, each with its :data:`COUNTS`."""

    def scores(self, part: str) -> Store:
        """Return where a part's scores are."""
        return self.folder / "scores" / f"part-{part}.parquet"

    def records(self, part: str) -> Store:
        """Return where a part's records wait."""
        return self.folder / "records" / f"part-{part}.jsonl"

    def quarantine(self, name: str) -> Store:
        """Return a file of refusals."""
        return self.folder / "quarantine" / name

    def sampled_sentences(self, wanted: SelectionManifest, parts: int, rows: int) -> list[str]:
        """Return the first sentences of some parts that are spread evenly over the table."""
        names = list(wanted.tasks())
        spread = names[:: max(1, -(-len(names) // parts))]
        taken = (SelectionRecord.of_lines(self.records(name).read_bytes())[:rows] for name in spread)
        return [record.sentence for some in taken for record in some]

    def missing_images(self, part: str) -> list[str]:
        """Return the images that were not found when a part was made."""
        lines = (self.quarantine(f"part-{part}.jsonl").read_if_there() or b"").decode().split("\n")
        refused = [json.loads(line) for line in lines if line]
        return [one["source"] for one in refused if one["code"] == Code.IMAGE_MISSING.value]

    def begin(
        self,
        table: Store,
        settings: SelectionSettings,
        overwrite: bool = False,
        progress: Callable[[int], None] = lambda n: None,
        models: Mapping[str, str] | None = None,
    ) -> SelectionManifest:
        """Take the table apart and return what is to be done; what is done of the same choice stays.

        Args:
            table: a file of JSON lines or Parquet.
            settings: models and alpha.
            overwrite: remove another choice that is here.
            progress: called with the number of records read.
            models: fingerprint of each model by its setting's name.

        Raises:
            StorageError: another choice is here, or there is no table.
            FormatError: it is no table of records, or holds none that can be used.
        """
        if overwrite and (self.folder / DESCRIPTION).exists():
            self._clear()
        there = self._there()
        models = dict(models or {})
        if there is not None and (there.settings, there.table) != (settings, table.uri):
            raise self._another(there)
        if there is not None and there.models != models:
            raise StorageError(
                f"{self.folder.uri}: holds a choice by models of the same names whose files were others; add "
                "--overwrite to replace it, or name another --output"
            )
        wanted = self._take_apart(table, settings, models, progress)
        if there is not None and there != wanted:
            raise self._another(there)
        write_model(self.folder / DESCRIPTION, wanted)
        return wanted

    def finish(self, parts: Iterable[Counter[str]]) -> Counter[str]:
        """Remove what waited, and return the sum of all parts' counts."""
        (self.folder / "records").delete()
        total: Counter[str] = Counter()
        for counts in parts:
            total.update(counts)
        return total

    def _counts(self, sentences: Store) -> Counter[str]:
        """Return the counts of a part, which stand in the metadata of its scores."""
        scores = self.folder / "scores" / sentences.name.replace(".jsonl", ".parquet")
        if not scores.exists():
            raise ValueError(f"{scores.uri}: is missing")
        with scores.open_input() as stream:
            metadata = pq.read_schema(stream).metadata or {}
        counts = Counter({name: int(metadata[name.encode()]) for name in COUNTS})
        # A line ends the part, so one that was cut has a line less.
        if sentences.read_bytes().count(b"\n") != counts["records"]:
            raise ValueError(f"{sentences.uri}: has not the {counts['records']} lines of its part")
        return counts

    def _there(self) -> SelectionManifest | None:
        file = self.folder / DESCRIPTION
        if not file.exists():
            return None
        return read_model(file, SelectionManifest, "add --overwrite, or name another --output")

    def _another(self, there: SelectionManifest) -> StorageError:
        return StorageError(
            f"{self.folder.uri}: holds a choice from {there.table} (of {there.records} records, alpha "
            f"{there.settings.alpha}, CLIP {there.settings.clip}), which differs from what is asked now; add "
            "--overwrite to replace it, or name another --output"
        )

    def _clear(self) -> None:
        for name in (DESCRIPTION, "records", "sentences", "scores", "quarantine"):
            (self.folder / name).delete()

    def _take_apart(
        self,
        table: Store,
        settings: SelectionSettings,
        models: dict[str, str],
        progress: Callable[[int], None],
    ) -> SelectionManifest:
        """Write the table's records part by part, and its refusals."""
        digest, waiting, refusals, records, parts = hashlib.sha256(), [], [], 0, 0
        for one in read_table(table):
            progress(1)
            if isinstance(one, RefusedRecord):
                refusals.append(one)
                continue
            line = one.to_line()
            digest.update(line)
            waiting.append(line)
            records += 1
            if len(waiting) == PART_RECORDS:
                self.records(numbered(parts)).write_bytes(b"".join(waiting))
                waiting, parts = [], parts + 1
        if waiting:
            self.records(numbered(parts)).write_bytes(b"".join(waiting))
            parts += 1
        _write_refusals(self.quarantine(REFUSED_RECORDS), refusals)
        return SelectionManifest(
            settings=settings,
            table=table.uri,
            digest=digest.hexdigest(),
            records=records,
            refused=sum(refusal.counts_as != "detail" for refusal in refusals),
            details_refused=sum(refusal.counts_as == "detail" for refusal in refusals),
            parts=parts,
            models=models,
        )


class SelectionWorker:
    """A worker: chooses the images of a part and writes what comes of it.

    Args:
        output: address of a :class:`SelectionFolder`.
        settings: models and alpha.

    Raises:
        UserError: a model cannot be loaded.
    """

    def __init__(self, output: str, settings: SelectionSettings) -> None:
        self._folder = SelectionFolder(Store.open(output))
        self._selector = ImageSelector(settings, ImageFiles(Workspace.open(output)))

    def __call__(self, part: str) -> Counter[str]:
        """Make a part and return its :data:`COUNTS`.

        Raises:
            StorageError: a bucket cannot be used.
        """
        choices = self._selector.choose(SelectionRecord.of_lines(self._folder.records(part).read_bytes()))
        refusals = [
            RefusedRecord(
                address, PrintedPosition(choice.record.position), refusal, choice.record.sentence, "detail"
            )
            for choice in choices
            for address, refusal in choice.refused.items()
        ]
        _write_refusals(self._folder.quarantine(f"part-{part}.jsonl"), refusals)
        table, counts = _score_table(choices, len(refusals))
        with self._folder.scores(part).writing() as path:
            pq.write_table(table, path)
        lines = [json.dumps(_sentence(choice), ensure_ascii=False) + "\n" for choice in choices]
        with self._folder.parts.writing(part) as path:
            path.write_bytes("".join(lines).encode())
        return counts


def _sentence(choice: SelectionResult) -> dict[str, object]:
    """Return a record's line of the source that is written."""
    record, best = choice.record, choice.best()
    line: dict[str, object] = {"entity": record.entity, "sentence": record.sentence}
    if record.start is not None and record.end is not None:
        line |= {"start": record.start, "end": record.end}
    if best is not None:
        line |= {"image": best[0], "image_score": round(best[1], 6)}
    return line


def _score_table(choices: Iterable[SelectionResult], refused: int) -> tuple[pa.Table, Counter[str]]:
    """Return the scores of a part's usable candidates, its counts in the metadata; and the counts."""
    rows: list[dict[str, object]] = []
    counts = Counter(dict.fromkeys(COUNTS, 0) | {"images_refused": refused})
    for choice in choices:
        counts["records"] += 1
        counts["chosen" if choice.scores is not None else "without_image"] += 1
        if choice.scores is None:
            continue
        scores = choice.scores
        for rank, place in enumerate(scores.best_first(), start=1):
            rows.append(
                {
                    "record": choice.record.number,
                    "image": choice.usable[place],
                    "agreement": scores.agreement[place],
                    "similarity": None if scores.similarity is None else scores.similarity[place],
                    "score": scores.score[place],
                    "rank": rank,
                }
            )
    counts["images_scored"] = len(rows)
    metadata = {name: str(number) for name, number in counts.items()}
    return pa.Table.from_pylist(rows, schema=SCORE_SCHEMA.with_metadata(metadata)), counts


def _write_refusals(file: Store, refusals: Sequence[RefusedRecord]) -> None:
    """Write a line a refusal; where there is none, there is no file."""
    if not refusals:
        file.delete()
        return
    lines = [json.dumps(refusal.as_json(), ensure_ascii=False) + "\n" for refusal in refusals]
    file.write_bytes("".join(lines).encode())
