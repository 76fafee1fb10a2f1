"""Copies leave the cache of every node of a cluster, each once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cluster.each_node import Answers
from jobs.steps import cache_eviction
from jobs.steps.cache_eviction import HERE, NodeEviction, cache_identity, evict_everywhere, evict_here
from tests.support.grown import Grown
from tests.support.submit import ROOT

DAY = 24 * 3600.0
OLD = "bundles/0123456789abcdef/index/a"
NODES = {"b": "10.0.0.2", "c": "10.0.0.3", "d": "10.0.0.4", "e": "10.0.0.5", "f": "10.0.0.6"}


def cache(folder: Path) -> Path:
    """A cache with a copy that was not used for 31 days, and one that was used yesterday."""
    for name, days in ((OLD, 31), ("bundles/1123456789abcdef/index/a", 1)):
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text("x")
        os.utime(file, (time.time() - days * DAY,) * 2)
    return folder


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Nodes with caches: b has its own, c shares b's, d shares this machine's, e is gone, f is silent."""
    here = cache(tmp_path / "here")
    caches = {"b": cache(tmp_path / "b"), "c": tmp_path / "b", "d": here}
    monkeypatch.setenv("SEEDSET_CACHE", str(here))

    def asked(
        function: Callable[..., Any], nodes: Iterable[str], *arguments: Any, timeout_s: float = 0
    ) -> Answers[Any]:
        found: Answers[Any] = Answers()
        for node in nodes:
            if node == "e":
                found.failed[node] = "the node died"
            elif node == "f":
                found.silent.append(node)
            else:
                with monkeypatch.context() as patched:
                    patched.setenv("SEEDSET_CACHE", str(caches[node]))
                    found.given[node] = function(*arguments)
        return found

    monkeypatch.setattr(cache_eviction, "other_nodes", lambda: NODES)
    monkeypatch.setattr(cache_eviction, "on_nodes", asked)
    return {"here": here, **caches}


@pytest.mark.parametrize("dry_run", [True, False])
def test_every_cache_is_seen_to_once_and_who_gave_no_answer_is_named(
    nodes: dict[str, Path], dry_run: bool
) -> None:
    found = evict_everywhere(30 * DAY, [], dry_run, cluster=True)
    done = [(one.node, one.cache, len(one.removals), one.removed) for one in found if not one.fault]
    gone = 0 if dry_run else 1
    assert done == [(HERE, str(nodes["here"]), 1, gone), ("10.0.0.2", str(nodes["b"]), 1, gone)]
    assert found[2:] == [
        NodeEviction("10.0.0.5", fault="the node died"),
        NodeEviction("10.0.0.6", fault="did not answer in time"),
    ]
    for one in ("here", "b"):
        assert (nodes[one] / OLD).exists() is dry_run
        assert (nodes[one] / "bundles/1123456789abcdef/index/a").exists()


def test_bundles_that_stay_in_the_workspace_stay_on_every_node(nodes: dict[str, Path]) -> None:
    found = evict_everywhere(30 * DAY, ["0123456789abcdef"], False, cluster=True)
    assert [one.removals for one in found] == [()] * 4
    assert (nodes["b"] / OLD).exists()


def test_without_a_cluster_nobody_else_is_asked(nodes: dict[str, Path]) -> None:
    assert [one.node for one in evict_everywhere(30 * DAY, [], True, cluster=False)] == [HERE]


def test_nodes_without_a_cache_are_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "none"))
    assert cache_identity() is None
    assert evict_here(DAY, [], False) == NodeEviction(HERE, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_on_two_nodes(work: Grown, tmp_path: Path) -> None:
    first, second = cache(tmp_path / "first"), cache(tmp_path / "second")
    words = ["--workspace", work[0].root.path, "--keep", "3", "--caches", "30"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.two_caches", str(first), str(second), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for folder in (first, second):
        assert not (folder / OLD).exists()
        assert (folder / "bundles/1123456789abcdef/index/a").exists()
        assert str(folder) in done.stderr
    assert " caches=2 nodes_failed=0 " in done.stdout
