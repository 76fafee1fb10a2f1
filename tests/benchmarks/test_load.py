"""The load of the serving benchmarks: what is timed, and which answers count as right."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from benchmarks.load import Sample, open_loop, poisson, steady_rate
from benchmarks.serving import agree
from engine.query import Ranking


def test_arrivals_come_at_the_rate_and_are_spread_as_a_poisson_process() -> None:
    arrivals = poisson(50, 100)
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(5000, rel=0.05)
    assert arrivals[-1] < 100
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)


def test_open_loop_waits_for_no_answer() -> None:
    async def slow(_: int) -> tuple[float, str]:
        await asyncio.sleep(0.2)
        return time.monotonic(), "ok"

    samples = asyncio.run(open_loop(slow, np.linspace(0, 0.1, 11)))
    assert len(samples) == 11
    assert max(sample.end for sample in samples) - samples[0].due < 0.39


def test_a_generator_that_falls_behind_makes_latencies_longer() -> None:
    async def busy(_: int) -> tuple[float, str]:
        time.sleep(0.05)  # the loop stands still, so later requests cannot be sent when they are due
        return time.monotonic(), "ok"

    samples = asyncio.run(open_loop(busy, np.zeros(4)))
    assert max(sample.late for sample in samples) >= 0.15
    assert max(sample.seconds for sample in samples) >= 0.2


def test_the_rate_counts_neither_the_first_batch_nor_the_last() -> None:
    batches = [float(second) for second in range(1, 12) for _ in range(4)]
    last = [12.0, 14.0, 16.0, 18.0]  # the clients leave one by one
    samples = [Sample(0, end, 0, "ok") for end in batches + last]
    assert steady_rate(samples, 4) == 4
    with pytest.raises(AssertionError, match="1 answers are wrong: status 500"):
        steady_rate([*samples, Sample(0, 1, 0, "status 500")], 4)


def test_only_scores_that_are_the_same_may_change_places() -> None:
    ranking = Ranking(np.array([3, 1, 2], np.int32), np.array([2, 1.00001, 1], np.float32))
    swapped = [(3, 2.0), (2, 1.00001), (1, 1.0)]
    assert agree(swapped, ranking, loosely=True)
    assert not agree(swapped, ranking, loosely=False)
    assert agree([(3, 2.0), (1, 1.00001), (9, 1.0)], ranking, loosely=True)  # one that was just left out
    for wrong in ([(1, 2.0), (3, 1.0), (2, 1.0)], [(9, 2.0), (1, 1.0), (2, 1.0)], swapped[:2]):
        assert not agree(wrong, ranking, loosely=True)
