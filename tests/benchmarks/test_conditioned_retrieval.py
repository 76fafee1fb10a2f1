"""The settings that conditioned retrieval is compared in: short recalls are as short as they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.conditioned_retrieval import RECALLED, RecordedEncoder, authors_way, halves_of, settings
from engine.evaluation.metrics import CUTOFFS
from engine.queries.formats import LabelledQuery
from engine.query import Query
from engine.stages.conditioned_encoder import ConditionedEncoder
from engine.stages.conditioned_retrieve import ConditionedRetrieve
from engine.stages.retrieve import Retrieve


def test_queries_want_no_more_than_the_shortest_recall() -> None:
    """A stage keeps as many as a query wants; queries want 200 unless told otherwise."""
    queries = [LabelledQuery(Query(str(i), (0,)), "a class") for i in range(12)]
    halves = halves_of(queries, 3)
    ids = {half: [one.query.id for one in own.queries] for half, own in halves.items()}
    assert ids == {"even": ["0", "6"], "odd": ["3", "9"]}
    wanted = {one.query.top_k for own in halves.values() for one in own.queries}
    assert wanted == {CUTOFFS[-1]}
    assert min(RECALLED) >= CUTOFFS[-1]


@pytest.mark.parametrize(("most", "recalled"), [(101, {100}), (250, {100, 150, 200})])
def test_settings_recall_fewer_than_there_are(most: int, recalled: set[int]) -> None:
    """Recalling every entity would be the authors' way, which is measured apart."""
    first = [pipeline.stages[0] for _, pipeline in settings(most)]
    assert {stage.k for stage in first if isinstance(stage, Retrieve)} == recalled


def test_no_sentence_is_read_twice_with_the_same_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []

    def states(self: ConditionedEncoder, rows: Sequence[int], text: np.ndarray) -> np.ndarray:
        read.append(list(rows))
        return np.stack([np.array(rows), np.full(len(rows), text[0])], axis=1).astype(np.float32)

    monkeypatch.setattr(ConditionedEncoder, "states", states)
    encoder = SimpleNamespace(sentences=SimpleNamespace(starts=np.array([0, 9])))
    recorded = RecordedEncoder(encoder, tmp_path)  # type: ignore[arg-type]
    one, two = np.array([3], np.int32), np.array([4], np.int32)
    assert recorded.states([5, 2, 5], one).tolist() == [[5, 3], [2, 3], [5, 3]]
    assert recorded.states([2, 7], two).tolist() == [[2, 4], [7, 4]]
    assert recorded.states([7, 5, 0], one).tolist() == [[7, 3], [5, 3], [0, 3]]
    later = RecordedEncoder(encoder, tmp_path)  # type: ignore[arg-type]
    assert later.states([0, 2, 5, 7], one)[:, 0].tolist() == [0, 2, 5, 7]
    assert read == [[2, 5], [2, 7], [0, 7]], "a text's sentences once each, in any process"


def test_the_authors_way_reads_every_entity_whole_or_one_sentence_first() -> None:
    for whole, read in ((None, (None, 40)), (400, (1, 400))):
        stage = authors_way(whole).stages[0]
        assert isinstance(stage, ConditionedRetrieve)
        assert stage.everything
        assert (stage.sentences, stage.whole) == read
