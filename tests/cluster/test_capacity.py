"""What fits is counted node by node: a worker's cores lie on one of them."""

from __future__ import annotations

import pytest

from cluster.capacity import Node, cores_of_a_worker, describe, fits, room
from engine.errors import UserError


def nodes(*cpus: float, gpus: float = 0) -> list[Node]:
    return [Node(f"10.0.0.{place}", have, gpus) for place, have in enumerate(cpus, 1)]


@pytest.mark.parametrize(
    ("cpus", "workers", "cores"),
    [
        ((4, 1, 1), 3, 4 / 3),  # a third of all six would be two, which fit two of them
        ((4, 1, 1), 4, 1),
        ((4, 1, 1), 1, 4),
        ((2, 2), 2, 2),
        ((2, 2), 3, 1),
        ((4,), 8, 0.5),
        ((1,), 2, 0.5),
        ((0, 3), 2, 1.5),
    ],
)
def test_workers_get_as_many_cores_as_all_of_them_can_have(
    cpus: tuple[float, ...], workers: int, cores: float
) -> None:
    found = cores_of_a_worker(nodes(*cpus), workers)
    assert found == pytest.approx(cores, abs=1e-4)
    assert room(nodes(*cpus), found) >= workers


@pytest.mark.parametrize(
    ("cpus", "workers", "words"),
    [
        (
            (4,),
            12,
            "--workers 12: each needs half a core of one node, so at most 8 fit .*one node of 4 cores",
        ),
        ((0.4, 0.4), 1, r"at most 0 fit on this cluster \(nodes of 0.4 and 0.4 cores\)"),
        ((), 1, "at most 0 fit on this cluster .no node is up"),
    ],
)
def test_more_than_fit_are_refused_with_how_many_do(
    cpus: tuple[float, ...], workers: int, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        cores_of_a_worker(nodes(*cpus), workers)


def test_a_gpu_is_counted_with_the_cores_beside_it() -> None:
    cluster = [Node("a", 8, 1), Node("b", 2, 2), Node("c", 16)]
    assert cores_of_a_worker(cluster, 3, gpu=True) == 1
    with pytest.raises(UserError, match="a GPU and half a core of one node, so at most 3 fit"):
        cores_of_a_worker(cluster, 4, gpu=True)
    assert describe(cluster) == "nodes of 8 with 1 GPU, 2 with 2 GPU and 16 cores"


def test_different_workers_fit_together_or_not() -> None:
    assert fits(nodes(2, 1), [1, 1, 1])
    assert fits(nodes(2, 1), [0.5, 1.5, 1])
    assert not fits(nodes(1, 1, 1), [2]), "three cores, but no node has two"
    assert not fits(nodes(2, 1), [1, 1, 1, 0.1])
