"""A slow first stage is asked once a query: by several pipelines, after a stop, in any batches."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import Field

from engine.errors import QueryError
from engine.evaluation.kept_stages import KeptStages, stage_key
from engine.query import Expansion, Query, Ranking
from engine.stages.base import LocalPipeline, Pipeline, Stage, Worker
from engine.storage.bundle import Bundle, Manifest
from engine.storage.store import Store

MANIFEST = Manifest(id="b", created="", files={})
QUERIES = [Query(f"q{i}", (i,), (i + 10,), class_name="birds" if i else "") for i in range(5)]


class Recall(Stage):
    """Lists the seed's neighbours, with evidence; notes what it was asked. A seed of 3 is refused."""

    width: int = 3
    address: str = Field(default="", exclude=True)
    questions: ClassVar[list[str]] = []

    def open(self, bundle: Bundle) -> Worker:
        def run(expansions: list[Expansion]) -> list[Expansion]:
            if any(e.query.positive == (3,) for e in expansions):
                raise QueryError("not this one")
            self.questions.extend(e.query.id for e in expansions)
            return [self._answer(e) for e in expansions]

        return run

    def source(self) -> str:
        return self.address

    def _answer(self, e: Expansion) -> Expansion:
        ids = np.arange(self.width, dtype=np.int32) + e.query.positive[0]
        scores = np.linspace(1, 0, self.width, dtype=np.float32)
        ranking = Ranking(ids, scores, {"likelihood": scores[::-1]})
        return Expansion(e.query, ranking, {"Recall": 0.25}, ("a note",), {"class_name": "x"}, {"made": 2})


class Backwards(Recall):
    """Turns a list around."""

    def _answer(self, e: Expansion) -> Expansion:
        order = np.arange(len(e.ranking))[::-1]
        return Expansion(e.query, e.ranking.take(order), e.seconds, e.degraded, e.reasoning, e.counts)


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    Recall.questions.clear()


def pipeline(*stages: Stage) -> LocalPipeline:
    return LocalPipeline([(stage, stage.open(Bundle(MANIFEST, Path()))) for stage in stages])


def same(one: Expansion, other: Expansion) -> None:
    np.testing.assert_array_equal(one.ranking.ids, other.ranking.ids)
    np.testing.assert_array_equal(one.ranking.scores, other.ranking.scores)
    for name, column in one.ranking.evidence.items():
        np.testing.assert_array_equal(column, other.ranking.evidence[name])
    assert (one.query, one.seconds, one.degraded) == (other.query, other.seconds, other.degraded)
    assert (one.reasoning, one.counts) == (other.reasoning, other.counts)


def test_pipelines_that_share_a_stage_run_it_once_and_answer_alike(tmp_path: Path) -> None:
    plain = [pipeline(Recall())(QUERIES), pipeline(Recall(), Backwards())(QUERIES)]
    Recall.questions.clear()
    kept = KeptStages(Store.open(tmp_path), "b")
    alone = kept.keeping(pipeline(Recall()))
    found = [*alone(QUERIES[:2]), *alone(QUERIES[1:])[1:]]
    assert Recall.questions == ["q0", "q1", "q2", "q4"]
    for one, other in zip(found, plain[0], strict=True):
        same(one, other)
    assert found[3].degraded == ("Recall: not this one",)
    # Another run, by what was written: a stage of a pipeline of two.
    Recall.questions.clear()
    longer = KeptStages(Store.open(tmp_path), "b").keeping(pipeline(Recall(), Backwards()))
    for one, other in zip(longer(QUERIES), plain[1], strict=True):
        same(one, other)
    assert Recall.questions == ["q0", "q1", "q2", "q4"], "the second stage alone, which is not kept"


def test_a_stage_is_loaded_only_for_what_it_did_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, load = list[str](), Recall.open

    def noting(self: Recall, bundle: Bundle) -> Worker:
        opened.append(self.name)
        return load(self, bundle)

    monkeypatch.setattr(Recall, "open", noting)
    both, bundle = Pipeline((Recall(), Backwards())), Bundle(MANIFEST, Path())
    plain = pipeline(Recall(), Backwards())(QUERIES)
    opened.clear()
    first = KeptStages(Store.open(tmp_path), "b").open(both, bundle)
    assert opened == ["Backwards"], "what is not kept"
    for _ in range(2):
        for one, other in zip(first(QUERIES), plain, strict=True):
            assert one.ranking.ids.tolist() == other.ranking.ids.tolist()
    assert opened == ["Backwards", "Recall"]
    KeptStages(Store.open(tmp_path), "b").open(both, bundle)(QUERIES[:2])
    assert opened == ["Backwards", "Recall", "Backwards"]


def test_other_settings_sources_bundles_and_questions_are_asked_anew(tmp_path: Path) -> None:
    KeptStages(Store.open(tmp_path), "b").keeping(pipeline(Recall()))(QUERIES[:1])
    Recall.questions.clear()
    again = KeptStages(Store.open(tmp_path), "b")
    again.keeping(pipeline(Recall()))([Query("q0", (0,), (10,), class_name="fish")])
    again.keeping(pipeline(Recall(width=2)))(QUERIES[:1])
    again.keeping(pipeline(Recall(address="https://key@there.example")))(QUERIES[:1])
    KeptStages(Store.open(tmp_path), "c").keeping(pipeline(Recall()))(QUERIES[:1])
    assert Recall.questions == ["q0"] * 4
    anew = KeptStages(Store.open(tmp_path), "b", again=True).keeping(pipeline(Recall()))
    anew(QUERIES[:1])
    anew(QUERIES[:1])
    assert Recall.questions == ["q0"] * 5
    assert "there.example" not in stage_key(Recall(address="https://key@there.example"))


@pytest.mark.parametrize("broken", ["cut off", "of other columns"])
def test_a_file_that_cannot_be_read_is_made_again(tmp_path: Path, broken: str) -> None:
    KeptStages(Store.open(tmp_path), "b").keeping(pipeline(Recall()))(QUERIES[:2])
    (file,) = tmp_path.rglob("*.parquet")
    if broken == "cut off":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        pq.write_table(pq.read_table(file).drop_columns("counts"), file)
    KeptStages(Store.open(tmp_path), "b").keeping(pipeline(Recall()))(QUERIES[:2])
    assert Recall.questions == ["q0", "q1"] * 2
    Recall.questions.clear()
    KeptStages(Store.open(tmp_path), "b").keeping(pipeline(Recall()))(QUERIES[:2])
    assert Recall.questions == []
