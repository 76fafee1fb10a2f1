"""The faults of a run come from its seed alone."""

from __future__ import annotations

import pytest

from cluster.crashing.schedule import KINDS, Fault, schedule


def test_a_seed_replays_its_faults_and_another_draws_others() -> None:
    assert schedule(7, 300) == schedule(7, 300)
    assert schedule(7, 300) != schedule(8, 300)


def test_a_longer_run_begins_with_a_shorter() -> None:
    long, short = schedule(7, 3600), schedule(7, 300)
    assert long[: len(short)] == short
    assert short[-1].at_s < 300


def test_faults_come_at_the_draws_with_their_probability() -> None:
    faults = schedule(0, 50_000)
    assert len(faults) == pytest.approx(0.3 * 10_000, rel=0.05)
    assert all(fault.at_s % 5 == 0 and 0 < fault.at_s < 50_000 for fault in faults)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert schedule(0, 300, share=0) == []


def test_another_probability_moves_no_fault() -> None:
    rare, often = schedule(3, 3600, share=0.1), schedule(3, 3600, share=1)
    assert set(rare) < set(often)
    assert [fault.at_s for fault in often] == [5.0 * n for n in range(1, 720)]


def test_the_pick_is_a_place_in_any_number() -> None:
    assert [Fault(5, "worker", pick).picked(3) for pick in (0.0, 0.34, 0.67, 0.999_999)] == [0, 1, 2, 2]
