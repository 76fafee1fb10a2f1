"""Test a chat model served: other stages go on while it answers, and a failure is that of its query alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.query import Deadline, Expansion, Query
from engine.stages.chat_expand import ChatExpand
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from serve.graph.plan import served_methods, unavailable_methods
from serve.graph.runner import Job, OpenedBundle, StageRunner
from serve.messages import Failure, RoundDone, Task
from tests.support.chat_server import Reply, chat_server, completion, listed, problem

CHAT, RETRIEVE = (0,), (1,)


def run_in(bundle: Bundle) -> Callable[..., Job]:
    """Return what runs queries through a stage of one deployment, a chat model and a look-up."""
    stages = (ChatExpand().settled(), Retrieve(k=3, view="mask"))
    opened = OpenedBundle.open(bundle, stages)
    runner = StageRunner(stages, [stage.budget for stage in stages])

    def run(chain: tuple[int, ...], *queries: Query, report: Any = None) -> Job:
        job = Job(Task(bundle.id, chain, [Expansion(q) for q in queries]), opened, report)
        runner.submit(job)
        return job

    return run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDSET_CHAT_CACHE", str(tmp_path / "answers"))
    monkeypatch.setenv("SEEDSET_CHAT_ATTEMPTS", "1")


def query(name: str, *seeds: int, within: float = 10) -> Query:
    return Query(name, seeds, deadline=Deadline.within(within))


def test_other_stages_go_on_while_it_answers(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    told: list[Any] = []
    with chat_server(monkeypatch, [Reply(body=listed("entity 7").body, hold=gate)]):
        run = run_in(bundle)
        slow = run(CHAT, query("slow", 1), report=told.append)
        run(RETRIEVE, query("quick", 1)).done.result(timeout=5)
        assert not slow.done.done()
        gate.set()
        slow.done.result(timeout=5)
    (found,) = slow.reply().outcomes
    assert isinstance(found, Expansion)
    assert found.ranking.ids.tolist() == [7]
    assert [one.new for one in told if isinstance(one, RoundDone)] == [(7,)]
    assert slow.reply().stats[0].counts["requests"] == 1


FAILURES: dict[str, tuple[Reply, str, int]] = {
    "key": (problem(401), "chat", 503),
    "down": (problem(500), "chat", 503),
    "refused": (completion(None, refusal="No."), "chat_refusal", 422),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_that_of_its_query(name: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, code, status = FAILURES[name]

    def answer(asked: dict[str, Any]) -> Reply:
        return reply if '["entity 3"]' in asked["messages"][1]["content"] else listed("entity 7")

    with chat_server(monkeypatch, answer) as server:
        run = run_in(bundle)
        fine = run(CHAT, query("fine", 1), query("fine too", 2))
        fine.done.result(timeout=5)
        both = run(CHAT, query("fine", 1), query("bad", 3))
        both.done.result(timeout=5)
        assert len(server.requests) == 3
    assert all(isinstance(one, Expansion) for one in fine.reply().outcomes)
    first, second = both.reply().outcomes
    assert isinstance(first, Expansion)
    assert isinstance(second, Failure)
    assert (second.code, second.status) == (code, status)


def test_a_deadline_ends_the_wait(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    with chat_server(monkeypatch, [Reply(body=b"x", hold=gate)]):
        late = run_in(bundle)(CHAT, query("late", 1, within=0.1))
        late.done.result(timeout=5)
        gate.set()
    (found,) = late.reply().outcomes
    assert isinstance(found, Failure)
    assert found.status == 504


def test_without_an_endpoint_the_service_is_served_without_it_and_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "chat" not in served_methods(bundle, ())
    why = unavailable_methods(bundle)["chat"]
    assert why.startswith("ChatExpand: SEEDSET_CHAT_MODEL is not set")
    with pytest.raises(UserError, match="methods: 'chat' cannot be served: ChatExpand: SEEDSET_CHAT_MODEL"):
        served_methods(bundle, ["chat"])
    monkeypatch.setenv("SEEDSET_CHAT_MODEL", "m")
    monkeypatch.setenv("SEEDSET_CHAT_URL", "http://localhost:9/v1")
    assert str(served_methods(bundle, ["chat"])["chat"]) == "ChatExpand(model='m')"


def test_a_method_that_is_served_with_other_settings_is_not_unavailable(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CHAT_URL", "http://localhost:9/v1")
    served = served_methods(bundle, ["chat"], {"ChatExpand.model": "m"})
    assert str(served["chat"]) == "ChatExpand(model='m')"
    assert "chat+class-name" in unavailable_methods(bundle, served)
    assert "chat" not in unavailable_methods(bundle, served)


@pytest.mark.parametrize("recalled", [False, True])
def test_callers_are_told_no_address_and_no_path_and_the_log_has_them(
    recalled: bool,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    chain = (*RETRIEVE, *CHAT) if recalled else CHAT
    said = f"organisation 7 at http://inside.example is out of {tmp_path}"
    with (
        caplog.at_level(logging.WARNING, "seedset"),
        chat_server(monkeypatch, [problem(500, message=said)]) as server,
    ):
        job = run_in(bundle)(chain, query("q", 1))
        job.done.result(timeout=5)
    (found,) = job.reply().outcomes
    told = found.message if isinstance(found, Failure) else " ".join(found.degraded)
    assert told.removeprefix("ChatExpand: ") == "the chat model: status 500; asked once"
    assert isinstance(found, Expansion) == recalled
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert server.url in logged
    assert said in logged
