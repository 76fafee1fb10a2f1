"""Draw mentions from what was found in raw texts, and write them as a corpus that can be imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from engine.corpus.drawing import drawn
from engine.corpus.linking.found import UNDECIDED, mention_draw
from engine.corpus.linking.matcher import Verdict
from engine.corpus.readers.base import Entity
from engine.storage.store import Store
from jobs.steps.linking import LinkResult, found_parts

SENTENCES = "sentences"

TEXTS = 50
"""Sentences of an entity whose words decide ambiguous places, beside its description."""

SENTENCES_SCHEMA = pa.schema(
    [
        pa.field("entity", pa.string(), nullable=False),
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("document", pa.string(), nullable=False),
    ]
)
"""The columns of ``sentences/*.parquet``: those that `seedset import` reads, and whence the sentence is."""

ANNOTATED = pa.field("annotated", pa.bool_(), nullable=False)
"""A further column where people marked the mentions, by links."""

COMMON_SENTENCES = 500
"""Sentences in which a word must stand to be too common: in a small corpus every word is a large share."""


class DrawSettings(BaseModel):
    """The settings by which mentions are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_entity: int = Field(
        default=100, ge=0, description="Keep so many sentences of an entity, drawn by a hash; 0: all."
    )
    too_common: float = Field(
        default=0.005,
        gt=0,
        le=1,
        description="Leave out ordinary words (names in lower case) that more than this share of all "
        "sentences hold, and more than 500 of them: they are hardly ever used as names. 1: none.",
    )


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Args:
        found, drawn: mentions by entity, int64 [N].
        decided: ambiguous mentions that were given to an entity by their words.
        duplicates: mentions of a sentence that is there already.
        too_common: keys that were left out.
        parts: rows of every part.
    """

    found: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.int64]
    decided: int
    duplicates: int
    too_common: list[int]
    parts: list[int]

    @property
    def mentions(self) -> int:
        """How many were drawn."""
        return sum(self.parts)


class _Rows:
    """The columns of all found mentions that the draw needs; 16 bytes a mention stay in memory."""

    def __init__(self, output: Store, names: Sequence[str]) -> None:
        parts = found_parts(output)
        self.files = [parts.file(name, ".parquet") for name in names]
        tables = [_columns(file, ["entity_id", "key", "draw"]) for file in self.files]
        self.sizes = [len(table) for table in tables]
        table = pa.concat_tables(tables)
        self.entities = table["entity_id"].to_numpy().astype(np.int32)
        self.keys = table["key"].to_numpy()
        self.draws = table["draw"].to_numpy().astype(np.uint64)

    def taken(self, kept: npt.NDArray[np.bool_], columns: list[str] | None = None) -> pa.Table:
        """Return the rows that are kept."""
        place, tables = 0, []
        for file, size in zip(self.files, self.sizes, strict=True):
            own = kept[place : place + size]
            place += size
            if own.any():
                tables.append(_columns(file, columns).filter(pa.array(own)))
        return pa.concat_tables(tables) if tables else pa.table({})


def _columns(file: Store, columns: list[str] | None) -> pa.Table:
    with file.open_input() as stream:
        return pq.read_table(stream, columns=columns)


def draw(
    output: Store,
    found: LinkResult,
    entities: Sequence[Entity],
    settings: DrawSettings,
    annotated: bool = False,
) -> Drawn:
    """Draw mentions, and write them.

    Args:
        output: with the parts of what was found.
        found: the parts, and the lexicon.
        entities: the table.
        settings: how many are drawn, and of what.
        annotated: people marked the mentions, each place of which is one; none is too common.
    """
    rows = _Rows(output, list(found.summaries))
    common = [] if annotated else _too_common(found, settings.too_common)
    rows.entities[np.isin(rows.keys, common)] = UNDECIDED - 1
    decided = _decide(rows, entities, settings.per_entity, annotated)
    kept, duplicates = drawn(rows.entities, rows.draws, settings.per_entity or None)
    n = len(entities)
    of_all, of_drawn = (
        np.bincount(some[some >= 0], minlength=n) for some in (rows.entities, rows.entities[kept])
    )
    parts = _write(output, rows, kept, [one.name for one in entities], annotated)
    return Drawn(of_all, of_drawn, decided, duplicates, common, parts)


def _too_common(found: LinkResult, share: float) -> list[int]:
    """Return the keys of ordinary words that stand in more than a share of the sentences."""
    sentences = sum(part.sentences for part in found.summaries.values())
    counts = Counter[int]()
    for part in found.summaries.values():
        for verdict in (Verdict.LINKED, Verdict.AMBIGUOUS):
            counts.update(part.places.get(verdict.name.lower(), {}))
    most = max(share * sentences, COMMON_SENTENCES)
    return sorted(key for key, n in counts.items() if n > most and share < 1 and found.lexicon.is_word(key))


def _decide(rows: _Rows, entities: Sequence[Entity], per_entity: int, annotated: bool) -> int:
    """Give undecided mentions to entities by their words; return how many were."""
    undecided = rows.entities == UNDECIDED
    if not undecided.any():
        return 0
    from engine.corpus.linking.nearest import nearest_entities  # scikit-learn takes a second to load

    asked = rows.taken(undecided, ["sentence", "start", "candidates"])
    sentences, starts, candidates = (column.to_pylist() for column in asked.columns)
    texts: dict[int, list[str]] = {}
    for entity in {entity for some in candidates for entity in some}:
        description = entities[entity].description
        texts[entity] = [description] if description else []
    sure, _ = drawn(rows.entities, rows.draws, min(per_entity or TEXTS, TEXTS))
    others = rows.taken(sure & np.isin(rows.entities, list(texts)), ["entity_id", "sentence"])
    if len(others):
        for entity, text in zip(others["entity_id"].to_pylist(), others["sentence"].to_pylist(), strict=True):
            texts[entity].append(text)
    nearest = nearest_entities(sentences, candidates, texts)
    rows.entities[undecided] = nearest
    places = np.flatnonzero(undecided)
    for place, entity, sentence, start in zip(places, nearest.tolist(), sentences, starts, strict=True):
        if entity >= 0:
            rows.draws[place] = mention_draw(entities[entity].name, sentence, start, annotated)
    return int((nearest >= 0).sum())


def _write(
    output: Store, rows: _Rows, kept: npt.NDArray[np.bool_], names: Sequence[str], annotated: bool
) -> list[int]:
    """Write the drawn mentions, a part for each part that has any; return their sizes."""
    folder, place = output / SENTENCES, 0
    sizes: list[int] = []
    named = pa.array(names, pa.string())
    for file, size in zip(rows.files, rows.sizes, strict=True):
        own, entities = kept[place : place + size], rows.entities[place : place + size]
        place += size
        if not own.any():
            continue
        table = _columns(file, ["sentence", "start", "end", "document"]).filter(pa.array(own))
        table = table.add_column(0, "entity", named.take(pa.array(entities[own])))
        table = table.cast(SENTENCES_SCHEMA)
        if annotated:
            table = table.append_column(ANNOTATED, pa.array([True] * len(table)))
        with (folder / f"part-{len(sizes):05}.parquet").writing() as path:
            pq.write_table(table, path, compression="zstd")
        sizes.append(len(table))
    for one in folder.files(".parquet"):
        if one.name >= f"part-{len(sizes):05}.parquet":
            one.delete()
    return sizes
