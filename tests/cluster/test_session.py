"""Test what a session asks of Ray, without starting one; clusters that make no sense."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import ray

from cluster import local
from cluster.local import LocalCluster, local_cluster
from cluster.processes import Process
from cluster.session import session, without_lines
from engine.errors import UserError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that ``ray.init`` is called with."""
    settings: dict[str, Any] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: settings.update(given))
    monkeypatch.setattr(ray, "shutdown", lambda: settings.update(stopped=True))
    return settings


def test_without_an_address_a_cluster_of_our_own_is_started(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    with session(cpus=3):
        niceness = os.environ["RAY_worker_niceness"]  # noqa: SIM112 (as Ray spells it)
        assert niceness == "0", "its workers do not yield to whatever else runs here"
        assert asked["address"] == "local", "or Ray joins whatever runs on this machine"
        assert asked["num_cpus"] == 3
    assert asked["stopped"]


def test_with_an_address_that_cluster_is_used_as_it_is(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with session(cpus=3):
        assert "address" not in asked
        assert "num_cpus" not in asked


@pytest.mark.parametrize(("nodes", "cpus"), [(0, 1), (1, 0)])
def test_a_cluster_of_nothing_is_refused(nodes: int, cpus: int) -> None:
    with pytest.raises(UserError, match="at least one of each"), local_cluster(nodes, cpus):
        pass


def test_a_node_that_does_not_come_up_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Started:
        def __init__(self, failures: int) -> None:
            self.failures, self.tries = failures, 0

        def add_node(self, **settings: Any) -> str:
            self.tries += 1
            if self.tries <= self.failures:
                raise Exception("The current node timed out during startup.")
            return "node"

    ended: list[str] = []
    of_node = Process(1, 2, "/lib/ray/raylet/raylet")
    seen = iter([[], [of_node, Process(3, 2, "python")]] * 9)
    monkeypatch.setattr(local, "started_here", lambda: next(seen))
    monkeypatch.setattr(local, "kill", lambda process: ended.append(process.title))
    slow, broken = Started(failures=2), Started(failures=9)
    cluster = LocalCluster("127.0.0.1:1", "http://127.0.0.1:2", slow, {})
    cluster.add_node()
    assert (slow.tries, cluster.worker_nodes) == (3, 1)
    assert ended == [of_node.title] * 2, "and nothing that others start meanwhile"
    with pytest.raises(Exception, match="timed out"):
        LocalCluster("127.0.0.1:1", "http://127.0.0.1:2", broken, {}).add_node()
    assert broken.tries == 3


def test_processes_of_a_block_use_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "before")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with LocalCluster("127.0.0.1:1", "http://127.0.0.1:2", None, {}).connected():
        assert (os.environ["RAY_ADDRESS"], os.environ["RAY_API_SERVER_ADDRESS"]) == (
            "127.0.0.1:1",
            "http://127.0.0.1:2",
        )
    assert os.environ["RAY_ADDRESS"] == "before"
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


def test_lines_are_not_held_back_until_the_block_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(b"log level"):
        os.write(2, b"Set ray log level to 3\none\nhalf a ")
        said, end = "", time.monotonic() + 10
        while not said and time.monotonic() < end:
            time.sleep(0.01)
            said += capfd.readouterr().err
        assert said == "one\n"
        os.write(2, b"line\n")
    assert capfd.readouterr().err == "half a line\n"


@pytest.mark.parametrize("descriptor", [1, 2])
def test_lines_that_are_not_wanted_are_dropped_and_no_others(
    capfd: pytest.CaptureFixture[str], descriptor: int
) -> None:
    with without_lines(b"log level", descriptor):
        os.write(descriptor, b"one\nSet ray log level to 3\ntwo\n")
    os.write(descriptor, b"three")
    assert capfd.readouterr()[descriptor - 1] == "one\ntwo\nthree"
