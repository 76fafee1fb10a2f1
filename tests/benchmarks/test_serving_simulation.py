"""The simulation keeps the laws of queues, loses no query, and predicts what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.load import poisson
from benchmarks.serving_simulation import BAR, Model, Simulation, calibrated
from cluster import measured
from serve.settings import Autoscaling

ONE = Model(0.1, 0.1, batch=1, max_wait_s=1e9, max_queued=10**9)


def test_the_mean_wait_of_one_server_is_the_formula_s() -> None:
    """M/D/1: the mean time in line is rho x S / (2 (1 - rho))."""
    one = Simulation(ONE)
    one.arrivals(poisson(7, 4000, seed=1).tolist())
    mean = float(np.mean(one.run(4000).seconds))
    assert mean == pytest.approx(0.1 + 0.7 * 0.1 / (2 * 0.3), rel=0.05)


def test_clients_are_answered_at_the_rate_of_full_batches() -> None:
    one = Simulation(Model(0.4, 1.0, batch=4, max_wait_s=1e9))
    one.clients(16)
    assert one.run(200).rate(200) == pytest.approx(4.0, rel=0.02)
    two = Simulation(Model(0.4, 1.0, batch=4, replicas=2, max_wait_s=1e9))
    two.clients(64)
    assert two.run(200).rate(200) == pytest.approx(8.0, rel=0.02)


def test_a_batch_takes_a_line_through_one_query_and_a_full_one() -> None:
    model = Model(0.4, 1.0, batch=4)
    assert [model.seconds(n) for n in (1, 2, 4)] == pytest.approx([0.4, 0.6, 1.0])
    assert ONE.seconds(1) == 0.1


def test_a_replica_that_dies_loses_no_query() -> None:
    arrivals = poisson(15, 60, seed=2).tolist()
    two = Simulation(ONE._replace(replicas=2, start_s=20))
    two.arrivals(arrivals)
    two.kill(30.03)
    outcome = two.run(60)
    assert len(outcome.seconds) == len(arrivals)
    assert outcome.refused == 0
    counts = [count for _, count in outcome.replicas]
    assert counts == [1, 2, 1, 2]
    assert outcome.replicas[-1][0] == pytest.approx(50.03)


def test_without_another_replica_queries_wait_for_the_new_one() -> None:
    one = Simulation(ONE._replace(start_s=20))
    one.clients(4)
    one.kill(10.05)
    longest = max(one.run(60).seconds)
    assert 20 < longest < 21


def test_what_would_wait_too_long_is_refused() -> None:
    one = Simulation(ONE._replace(max_wait_s=0.5))
    one.arrivals(poisson(30, 60, seed=3).tolist())
    outcome = one.run(60)
    assert outcome.refused > 0.5 * 30 * 60
    assert outcome.rate(60) == pytest.approx(10, rel=0.05)
    assert outcome.percentile(99) < 1


def test_replicas_come_with_load_and_go_without_it() -> None:
    scaling = Autoscaling(
        min_replicas=1, max_replicas=6, target_ongoing_requests=2, upscale_delay_s=10, downscale_delay_s=60
    )
    one = Simulation(ONE._replace(start_s=5, autoscaling=scaling))
    one.arrivals([*poisson(35, 120, seed=4), 900.0])
    outcome = one.run(900)
    counts = [count for _, count in outcome.replicas]
    assert max(counts) > 3
    assert max(counts) <= 6
    assert counts[-1] == 1
    first = next(when for when, count in outcome.replicas if count > 1)
    assert first >= 10 + 5


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> list[float]:
        many = Simulation(ONE._replace(replicas=3), seed)
        many.arrivals(poisson(25, 30).tolist())
        return many.run(30).seconds

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_what_was_measured_is_predicted() -> None:
    model = calibrated()
    rate = measured.RERANK_RATE.value
    assert model.seconds(model.batch) == pytest.approx(model.batch / rate)
    twice = Simulation(model)
    twice.arrivals(poisson(2 * rate, 300).tolist())
    outcome = twice.run(300)
    assert 1 / BAR <= outcome.percentile(99) / measured.OVERLOADED_P99.value <= BAR
    assert outcome.rate(300) > 0.8 * rate  # as the benchmark of the service demands
