"""Test the chat stage over a small bundle and a stand-in endpoint, alone, in a pipeline and served."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.chat.settings import ChatError
from engine.errors import QueryError
from engine.expander import Expander
from engine.methods import METHODS, method
from engine.query import Deadline, Expansion, Query
from engine.query_rows import from_rows, to_rows
from engine.stages.base import Pipeline
from engine.stages.chat_expand import ChatExpand, ChatExpander
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle
from tests.support.chat_server import MODEL, Reply, chat_server, completion, listed, problem

NAMES = ["Norway", "Sweden", "Denmark", "Japan", "Thailand", "Spain", "Chad", "Mali"]
KINDS = [{"continent": ["Europe" if i in (0, 1, 2, 5) else "Elsewhere"]} for i in range(len(NAMES))]

QUERY = Query("q", (0,), (6,), top_k=5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("chat"), names=NAMES, attributes=KINDS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDSET_CHAT_CACHE", str(tmp_path / "answers"))
    return tmp_path / "answers"


def names_of(expansion: Expansion) -> list[str]:
    return [NAMES[i] for i in expansion.ranking.ids]


def test_what_the_model_lists_is_ranked_in_its_order_and_the_rest_is_counted(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = listed("Sweden", "Atlantis", "DENMARK", "Norway", "Sweden", "Thailandd", "Chad", "Mali", "Utopia")
    with chat_server(monkeypatch, [said]) as server:
        (found,) = method("chat").open(bundle)([QUERY])
    assert names_of(found) == ["Sweden", "Denmark", "Thailand", "Mali"]
    np.testing.assert_allclose(found.ranking.scores, [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-6)
    likeness = found.ranking.evidence["likeness"]
    assert likeness[2] == pytest.approx(2 * 8 / 17)
    assert likeness[[0, 1, 3]].tolist() == [1, 1, 1]
    assert found.counts == {
        "listed": 9,
        "by_name": 6,
        "by_alias": 0,
        "fuzzy": 1,
        "hallucinated": 2,
        "seeds": 2,
        "repeated": 1,
        "outside": 0,
        "surplus": 0,
        "prompt_tokens": 100,
        "answer_tokens": 50,
    }
    assert found.reasoning == {"hallucinated": "Atlantis; Utopia"}
    assert found.degraded == ()
    asked = server.requests[0]
    assert asked["model"] == MODEL
    assert asked["response_format"] == {"type": "json_object"}
    assert (asked["temperature"], asked["top_p"], asked["seed"], asked["max_tokens"]) == (0.0, 0.01, 42, 2000)
    assert '["Norway"]' in asked["messages"][1]["content"]
    assert '["Chad"]' in asked["messages"][1]["content"]


def test_a_rerun_needs_no_endpoint_and_gives_the_same(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [QUERY, Query("same prompt", (0,), (6,), top_k=3), Query("other", (3,))]
    with chat_server(monkeypatch, [listed("Sweden", "Mali")]) as server:
        run = method("chat").open(bundle)
        first = to_rows(run(queries))
        assert len(server.requests) == 2, "queries with one prompt are asked together"
    monkeypatch.setenv("SEEDSET_CHAT_REPLAY", "1")
    monkeypatch.delenv("SEEDSET_CHAT_URL")
    replayed = method("chat").open(bundle)
    again = to_rows(replayed(queries))
    for one, other in zip(first, again, strict=True):
        assert {k: str(v) for k, v in one.items() if k != "seconds"} == {
            k: str(v) for k, v in other.items() if k != "seconds"
        }
    with pytest.raises(ChatError, match=r"no answer of 'stand-in' is kept to the prompt .*Thailand"):
        replayed([Query("new", (4,))])


def test_the_cache_lies_in_the_workspace_unless_another_place_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEEDSET_CHAT_CACHE")
    with chat_server(monkeypatch, [listed("Sweden")]):
        method("chat").open(bundle)([QUERY])
    assert bundle.workspace is not None
    assert len(bundle.workspace.chat.files(".json")) == 2, "an answer, and the count of what was spent"


def test_the_class_is_named_first_where_the_method_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(monkeypatch, [listed("Sweden", class_name="Kingdoms of the north")]) as server:
        (found,) = method("chat+class-name").open(bundle)([QUERY])
    assert names_of(found) == ["Sweden"]
    assert found.reasoning == {"class_name": "Kingdoms of the north"}
    assert "First reason about the class" in server.requests[0]["messages"][1]["content"]


def test_filters_recalled_candidates_and_the_number_asked_for_bound_what_counts(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = listed("Japan", "Sweden", "Denmark", "Spain")
    with chat_server(monkeypatch, [said]):
        filtered = Query("q", (0,), filters=(("continent", ("Europe",)),))
        (found,) = Pipeline((ChatExpand(k=2),)).open(bundle)([filtered])
        assert names_of(found) == ["Sweden", "Denmark"]
        assert (found.counts["outside"], found.counts["surplus"]) == (1, 1)
        recall = Retrieve(k=3, view="mask")
        (recalled,) = Pipeline((recall,)).open(bundle)([QUERY])
        (found,) = (recall >> ChatExpand()).open(bundle)([QUERY])
    expected = [name for name in ("Japan", "Sweden", "Denmark", "Spain") if name in names_of(recalled)]
    assert names_of(found) == expected
    assert found.counts["outside"] == 4 - len(expected)


REFUSALS: dict[str, tuple[Reply, str]] = {
    "filtered": (completion(None, "content_filter"), "content filter withheld"),
    "empty": (completion(""), "answered nothing"),
    "refused": (completion(None, refusal="I cannot."), "lists no entities: 'I cannot.'"),
    "too long": (problem(400, "context_length_exceeded", "too long"), "this prompt is not answered"),
    "too much": (completion("x" * 10_000), "more than 4096 bytes"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_query_that_is_not_answered_costs_no_other_its_answer(
    name: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, said = REFUSALS[name]

    def answer(asked: dict[str, Any]) -> Reply:
        return reply if '["Japan"]' in asked["messages"][1]["content"] else listed("Sweden")

    queries = [QUERY, Query("bad", (3,)), Query("fine", (4,))]
    with chat_server(monkeypatch, answer, max_response_bytes=4096) as server:
        run = method("chat").open(bundle)
        found = run(queries)
        assert [names_of(e) for e in found] == [["Sweden"], [], ["Sweden"]]
        assert said in found[1].degraded[0]
        assert found[1].degraded[0].startswith("ChatExpand: ")
        assert len(server.requests) == 3
        with pytest.raises(QueryError, match=said):
            run([queries[1]], strict=True)


def test_an_endpoint_that_fails_ends_the_batch_and_keeps_what_was_answered(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(monkeypatch, [listed("Sweden")], max_requests=1, concurrency=1):
        run = method("chat").open(bundle)
        with pytest.raises(ChatError, match="SEEDSET_CHAT_MAX_REQUESTS=1: the cap is reached"):
            run([QUERY, Query("other", (3,))])
        (found,) = run([QUERY])
    assert names_of(found) == ["Sweden"]


def test_an_answer_that_was_cut_off_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(monkeypatch, [completion('{"entities": ["Sweden", "Den', "length")]):
        (found,) = method("chat").open(bundle)([QUERY])
    assert names_of(found) == ["Sweden"]
    assert found.degraded == ("ChatExpand: the answer was cut off at 2000 tokens",)


@pytest.mark.parametrize("name", ["chat", "chat+class-name"])
def test_without_an_endpoint_the_method_says_what_is_missing(name: str, bundle: Bundle) -> None:
    stage = METHODS[name].stages[0]
    assert "SEEDSET_CHAT_MODEL is not set" in stage.unavailable()
    with pytest.raises(ChatError, match="SEEDSET_CHAT_MODEL is not set"):
        method(name).open(bundle)


def test_a_run_is_known_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(method("chat")) == "ChatExpand()"
    monkeypatch.setenv("SEEDSET_CHAT_MODEL", "gpt")
    assert str(method("chat")) == "ChatExpand(model='gpt')"
    assert str(Pipeline((ChatExpand(model="own"),)).settled()) == "ChatExpand(model='own')"
    monkeypatch.setenv("SEEDSET_CHAT_REPLAY", "perhaps")
    assert str(method("chat")) == "ChatExpand()", "what is wrong is said where it is opened"


def test_the_python_api_shows_the_counts(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle.workspace is not None
    with chat_server(monkeypatch, [listed("Sweden", "Atlantis")]):
        answer = Expander.open(bundle.workspace.root.uri, "chat").expand(["Norway"])
    assert [r.name for r in answer.results] == ["Sweden"]
    assert answer.counts["hallucinated"] == 1


def test_counts_cross_tables(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(monkeypatch, [listed("Sweden")]):
        found = method("chat").open(bundle)([QUERY])
    assert [e.counts for e in from_rows(to_rows(found))] == [e.counts for e in found]


def test_while_it_waits_it_yields_so_that_other_work_gets_through(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    slow = Reply(body=listed("Sweden").body, hold=gate)
    with chat_server(monkeypatch, [slow]):
        worker = ChatExpand().settled().open(bundle)
        assert isinstance(worker, ChatExpander)
        growing = worker.start([Expansion(QUERY)])
        rounds = worker.rounds(growing)
        assert next(rounds) is None
        gate.set()
        (done,) = [one for one in rounds if one is not None]
        assert (done.query_id, done.number, done.total, done.new.tolist()) == ("q", 1, 1, [1])
        assert names_of(worker.answer(Expansion(QUERY), growing[0])) == ["Sweden"]


def test_the_deadline_bounds_the_wait_and_what_was_recalled_stays(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with chat_server(monkeypatch, [Reply(body=listed("Sweden").body, hold=gate)]):
        pipeline = (Retrieve(view="mask") >> ChatExpand()).settled()
        recalled = pipeline.stages[0].open(bundle)([Expansion(QUERY)])[0]
        worker = pipeline.stages[1].open(bundle)
        assert isinstance(worker, ChatExpander)
        late = Query("q", (0,), deadline=Deadline.within(0.05))
        growing = worker.start([Expansion(late, recalled.ranking)])
        assert all(one is None for one in worker.rounds(growing))
        gate.set()
        found = worker.answer(Expansion(late, recalled.ranking), growing[0])
        assert found.ranking is recalled.ranking
        assert "deadline" in found.degraded[0]
        with pytest.raises(ChatError, match="deadline"):
            worker.answer(Expansion(late), growing[0])
