"""A query that kills its worker is found by notes that outlive it, and the others are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.storage.store import Store
from jobs.workers.attempts import MAX_DEATHS, Attempt, attempt, died_at_work, forget
from tests.support.kills import Killed

QUERIES = ["a", "b", "killer", "c"]


def work(output: Store, done: list[str]) -> None:
    """Do the queries as a worker does; die at the one that kills."""
    current = Attempt(output / "_attempts" / "part-0.json")
    size = 1 if current.careful else len(QUERIES)
    for start in range(0, len(QUERIES), size):
        batch = QUERIES[start : start + size]
        if current.careful and current.deaths_of(batch[0]) >= MAX_DEATHS:
            continue
        current.take(batch)
        if "killer" in batch:
            raise Killed
        done += batch


def test_the_one_that_kills_is_left_out_after_bounded_deaths(tmp_path: Path) -> None:
    output, deaths = Store.open(tmp_path), 0
    while True:
        done: list[str] = []
        try:
            work(output, done)
            break
        except Killed:
            deaths += 1
            assert died_at_work(output)
    assert deaths == MAX_DEATHS + 1, "once with all, then alone in hand"
    assert done == ["a", "b", "c"]
    forget(output)
    assert not died_at_work(output)


def test_an_error_or_an_end_is_no_death(tmp_path: Path) -> None:
    output = Store.open(tmp_path)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), attempt(output, "0") as current:
            raise error
        assert not current.careful
        assert not died_at_work(output)


def test_a_note_that_was_cut_off_counts_as_a_death(tmp_path: Path) -> None:
    output = Store.open(tmp_path)
    (output / "_attempts" / "0.json").write_bytes(b'{"dea')
    with attempt(output, "0") as current:
        assert current.careful
