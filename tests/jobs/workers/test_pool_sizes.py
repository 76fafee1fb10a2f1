"""Pools by cores, memory and GPUs: all start together, and GPUs are for language models alone."""

from __future__ import annotations

import pytest

from cluster.capacity import Node, fits
from engine.errors import UserError
from engine.methods import METHODS
from engine.stages.chat_expand import ChatExpand
from jobs.workers.chain import Chain
from jobs.workers.pool_sizes import Wish, cpu_scale, pools_of

GB = 1 << 30


def chain(*names: str) -> Chain:
    return Chain.of({name: METHODS[name] for name in names})


@pytest.mark.parametrize("cpus", [(4,), (1, 1, 1), (4, 1, 1), (0.5, 0.5)])
@pytest.mark.parametrize("workers", [1, 3, 12])
def test_every_pool_fits_beside_the_others(cpus: tuple[float, ...], workers: int) -> None:
    nodes = [Node(str(place), have) for place, have in enumerate(cpus)]
    pools = pools_of(chain("default+lm-rerank"), nodes, Wish(workers), 100)
    assert [pool.actors for pool in pools] == [workers] * 3
    assert fits(nodes, [pool.cpus for pool in pools for _ in range(pool.actors)])
    assert 0 < cpu_scale([(1, workers)], nodes) <= 1


@pytest.mark.parametrize("cpus", [(1,), (1, 1), (4, 1, 1), (16,)])
def test_without_a_language_model_there_is_one_pool_and_an_actor_for_each_core(cpus: tuple[int, ...]) -> None:
    nodes = [Node(str(place), have) for place, have in enumerate(cpus)]
    for name in ("retexpan", "default"):
        (pool,) = pools_of(chain(name), nodes, Wish(), 100)
        assert (pool.places, pool.actors) == (tuple(range(len(chain(name).stages))), sum(cpus))
        assert fits(nodes, [pool.cpus] * pool.actors)
        assert all(node.room(pool.cpus) == node.cpus for node in nodes if node.cpus < 10)


def test_each_kind_of_stage_may_use_all_cores() -> None:
    found = pools_of(chain("default+lm-rerank"), [Node("a", 16)], Wish(), 100)
    assert [pool.actors for pool in found] == [16, 16, 16]
    small = pools_of(chain("default+lm-rerank"), [Node("a", 16, memory=8 * GB)], Wish(), 100)
    assert [pool.actors for pool in small] == [5, 5, 5], "half a GiB each"


def test_what_waits_for_an_endpoint_takes_no_core_of_what_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDSET_CHAT_URL", "http://127.0.0.1:9/v1")
    asking = Chain.of({"both": METHODS["retexpan"] >> ChatExpand()})
    assert asking.pools == [tuple(range(len(asking.stages) - 1)), (len(asking.stages) - 1,)]


def test_without_a_gpu_nothing_asks_for_one() -> None:
    pools = pools_of(chain("genexpan", "default+lm-rerank"), [Node("a", 16)], Wish(), 100)
    assert {pool.gpus for pool in pools} == {0}


def test_stages_with_a_language_model_ask_for_a_gpu_and_no_others() -> None:
    nodes = [Node("a", 16, 1), Node("b", 16)]
    found = pools_of(chain("default+lm-rerank"), nodes, Wish(), 100)
    assert [(pool.places, pool.gpus) for pool in found] == [((0,), 0), ((1,), 1), ((2,), 0)]
    assert [pool.actors for pool in found] == [32, 1, 32], "32 cores do not put 32 models on one card"
    halves = pools_of(chain("default+lm-rerank"), nodes, Wish(gpu=0.5), 100)
    assert [(pool.actors, pool.gpus) for pool in halves][1] == (2, 0.5)
    assert pools_of(chain("default+lm-rerank"), nodes, Wish(gpu=0), 100)[1].gpus == 0
    assert [pool.gpus for pool in pools_of(chain("retexpan"), nodes, Wish(gpu=1), 100)] == [0]


def test_two_stages_of_one_model_share_an_actor_and_two_pools_a_card() -> None:
    nodes = [Node("a", 8, 1)]
    (both,) = pools_of(chain("genexpan"), nodes, Wish(), 100)
    assert (both.places, both.actors, both.gpus) == ((0, 1), 1, 1)
    apart = pools_of(chain("genexpan", "genexpan+retexpan", "default+lm-rerank"), nodes, Wish(), 100)
    shares = [pool.gpus for pool in apart if pool.gpus]
    assert len(shares) > 1
    assert sum(pool.gpus * pool.actors for pool in apart) <= 1


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (Wish(gpu=2), "--gpu 2: no node has so many GPUs"),
        (Wish(workers=2, gpu=1), "--workers 2: each needs 1 GPU, and 1 fit on this cluster"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_hangs(wish: Wish, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        pools_of(chain("default+lm-rerank"), [Node("a", 8, 1)], wish, 100)
    with pytest.raises(UserError, match="--gpu 1: no node has so many GPUs"):
        pools_of(chain("genexpan"), [Node("a", 8)], Wish(gpu=1), 100)


def test_an_actor_whose_model_is_split_has_a_gpu_for_each_process() -> None:
    nodes = [Node("a", 16, 4), Node("b", 16, 1)]
    found = pools_of(chain("default+lm-rerank"), nodes, Wish(tensor_parallel=2), 100)
    assert [(pool.actors, pool.gpus) for pool in found] == [(32, 0), (2, 2), (32, 0)]
    assert found[1].cpus == pytest.approx(2 * found[0].cpus)
    on_cores = pools_of(chain("default+lm-rerank"), nodes, Wish(gpu=0, tensor_parallel=4), 100)
    assert [(pool.actors, pool.gpus) for pool in on_cores] == [(32, 0), (8, 0), (32, 0)]
    with pytest.raises(UserError, match="--tensor-parallel 8: no node has a GPU for each process"):
        pools_of(chain("default+lm-rerank"), nodes, Wish(tensor_parallel=8), 100)
    several = chain("genexpan", "genexpan+retexpan", "default+lm-rerank")
    with pytest.raises(UserError, match=r"--tensor-parallel 4: 3 pools of actors .* give a smaller number"):
        pools_of(several, nodes, Wish(tensor_parallel=4), 100)


def test_models_that_memory_has_no_room_for_are_not_opened() -> None:
    nodes = [Node("a", 16, memory=64 * GB), Node("b", 16, memory=20 * GB)]
    model = Wish(model_bytes=28 * GB)
    assert pools_of(chain("genexpan"), nodes, model, 100)[0].actors == 2
    assert pools_of(chain("genexpan"), nodes, Wish(3, model_bytes=28 * GB), 100)[0].actors == 3, "as asked"
    assert pools_of(chain("genexpan"), [Node("a", 16)], model, 100)[0].actors == 16, "memory is not known"
