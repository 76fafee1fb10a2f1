from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import QueryError
from engine.query import Expansion, Query, Ranking
from engine.stages.base import LocalPipeline, Stage, Worker, finish, timed
from engine.storage.bundle import Bundle
from tests.support.bundles import random_bundle


class Append(Stage):
    """Puts an entity at the end of every list."""

    entity: int = 0

    def open(self, bundle: Bundle) -> Worker:
        def run(expansions: list[Expansion]) -> list[Expansion]:
            return [replace(e, ranking=self._longer(e.ranking)) for e in expansions]

        return run

    def _longer(self, ranking: Ranking) -> Ranking:
        ids = np.append(ranking.ids, np.int32(self.entity))
        return Ranking(ids, np.zeros(len(ids), np.float32))


def test_stages_compose_in_order_and_print_what_is_set(tmp_path: Path) -> None:
    pipeline = Append(entity=1) >> Append(entity=2) >> (Append() >> Append(entity=3))
    assert str(pipeline) == "Append(entity=1) >> Append(entity=2) >> Append() >> Append(entity=3)"
    run = pipeline.open(random_bundle(tmp_path, n=5))
    found = run([Query("a", (1,)), Query("b", (2,), top_k=2)])
    assert [e.ranking.ids.tolist() for e in found] == [[1, 2, 0, 3], [1, 2]]
    assert [e.query.id for e in found] == ["a", "b"]
    assert list(found[0].seconds) == ["Append"]
    assert run([]) == []


def test_a_description_survives_serialisation() -> None:
    stage = Append(entity=7)
    assert Append.model_validate_json(stage.model_dump_json()) == stage
    assert hash(stage) == hash(Append(entity=7))


def test_time_is_shared_evenly() -> None:
    worker = timed(Append(), lambda expansions: expansions)
    found = worker([Expansion(Query(name, (1,))) for name in "ab"])
    assert found[0].seconds["Append"] == found[1].seconds["Append"] >= 0
    assert timed(Append(), lambda expansions: expansions)([]) == []


def test_finish_cuts_to_what_was_asked_for() -> None:
    ranking = Ranking(np.arange(5, dtype=np.int32), np.zeros(5, np.float32))
    assert len(finish(Expansion(Query("q", (9,), top_k=3), ranking)).ranking) == 3


def test_a_query_that_a_stage_refuses_costs_no_other_its_answer(tmp_path: Path) -> None:
    def refuse(expansions: list[Expansion]) -> list[Expansion]:
        if bad := next((e.query.id for e in expansions if e.query.id.startswith("bad")), None):
            raise QueryError(f"query {bad!r}: too long; give less")
        return Append(entity=1).open(bundle)(expansions)

    bundle = random_bundle(tmp_path, n=2)
    queries = [Query(name, (1,)) for name in ("a", "bad1", "b", "c", "bad2")]
    pipeline = LocalPipeline([(Append(), refuse)])
    found = pipeline(queries)
    assert [len(e.ranking) for e in found] == [1, 0, 1, 1, 0]
    assert [e.degraded for e in found[1:3]] == [("Append: query 'bad1': too long; give less",), ()]
    with pytest.raises(QueryError, match="'bad1'"):
        pipeline(queries, strict=True)
