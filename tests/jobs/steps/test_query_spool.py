"""Tables of any length are laid down part by part, with few queries in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.methods import method
from engine.queries.formats import LabelledQuery, QuerySet, RefusedQuery
from engine.queries.results import RunDescription
from engine.query import Query
from engine.refusals import Code, Refusal
from engine.storage.bundle import Bundle
from jobs.steps import query_spool
from jobs.steps.query_spool import QuerySpool
from jobs.steps.routing import Router
from jobs.workers.part_rows import read_rows
from tests.support.bundles import method_bundle

N = 500


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("spool"), n=20, d=4)


def labelled(i: int) -> LabelledQuery:
    return LabelledQuery(Query(f"q{i}", (i % 20,)), "", deadline_ms=1500, place=("q.jsonl", i + 1))


def filled(folder: Path, bundle: Bundle, part_size: int = 0, n: int = N) -> QuerySpool:
    spool = QuerySpool(folder, batch_size=2, part_size=part_size)
    folder.mkdir()
    spool.fill(map(labelled, range(n)), Router(bundle, "retexpan", method("retexpan")))
    return spool


def run(size: int, n: int = N) -> RunDescription:
    return RunDescription(method="m", pipeline="", bundle="", queries_digest="", queries=n, part_size=size)


@pytest.mark.parametrize("size", [1, 7, N, 3 * N])
def test_rows_are_cut_as_the_run_says(bundle: Bundle, tmp_path: Path, size: int) -> None:
    given = filled(tmp_path / "given", bundle, size)
    cut = filled(tmp_path / "cut", bundle, 16)
    cut.cut(size)
    assert len(list(cut.folder.glob("*.arrow"))) == -(-N // size)
    for spool in (given, cut):
        rows = [row for task in spool.tasks(run(size)).values() for row in read_rows(task.file)]
        assert [row.expansion.query.id for row in rows] == [f"q{i}" for i in range(N)]
        assert rows[3].place == ("q.jsonl", 4)
        assert rows[3].remaining == 1.5
        assert str(spool.digest) == QuerySet([labelled(i) for i in range(N)]).digest


def test_few_queries_are_in_memory_at_once(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_spool, "MAX_PART", 8)
    monkeypatch.setattr(query_spool, "MIN_PARTS", 2)
    alive, most = weakref.WeakSet[LabelledQuery](), 0

    def streamed() -> Iterator[LabelledQuery | RefusedQuery]:
        nonlocal most
        for i in range(N):
            one = labelled(i)
            alive.add(one)
            most = max(most, len(alive))
            yield one
            if i % 2:
                yield RefusedQuery("q.jsonl", i, None, Refusal(Code.NOT_JSON, f"no {i}"))

    spool = QuerySpool(tmp_path / "spool", batch_size=2)
    spool.folder.mkdir()
    spool.fill(streamed(), Router(bundle, "retexpan", method("retexpan")))
    assert most <= 3 * 8, "one part, and what decides its size"
    assert (spool.part_size, spool.queries, spool.refused) == (8, N, N // 2)
    assert len(spool.first_refused) == query_spool.SHOWN
    assert [one.reason for one in spool.refusals()] == [f"no {i}" for i in range(1, N, 2)]
