"""Settings that a query changes for itself: over HTTP, in a batch of the served worker, and refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.methods import METHODS, method
from engine.query import Expansion, Query
from engine.stages.base import finish
from engine.stages.options import change, checked_options, offered
from engine.storage.bundle import Bundle
from serve.graph.runner import Job, OpenedBundle, StageRunner
from serve.messages import Task

ASKED = {"positive": [1, 2, 3], "negative": [4, 5], "top_k": 12}
OPTIONS = {"SegmentRerank.length": 9, "Retrieve.k": 30}


def local(bundle: Bundle, options: dict[str, Any], name: str = "retexpan") -> list[int]:
    """What a pipeline that is opened with these settings answers."""
    run = change(METHODS[name], options).open(bundle)
    (found,) = run([Query("q", (1, 2, 3), (4, 5), 12)])
    return [int(i) for i in found.ranking.ids]


def ids(answer: dict[str, Any]) -> list[int]:
    return [result["id"] for result in answer["results"]]


def test_a_query_is_answered_by_its_own_settings_and_the_answer_says_so(
    client: TestClient, bundle: Bundle
) -> None:
    plain = client.post("/v1/expand", json=ASKED).json()
    asked = {**ASKED, "options": {"Retrieve.k": 30, "SegmentRerank[1].length": 9}}
    changed = client.post("/v1/expand", json=asked).json()
    assert (plain["options"], changed["options"]) == ({}, OPTIONS)
    assert ids(plain) == local(bundle, {})
    assert ids(changed) == local(bundle, OPTIONS)
    assert ids(changed) != ids(plain)
    explained = client.post("/v1/expand", json={**asked, "explain": True}).json()
    assert ids(explained) == ids(changed)


def test_queries_of_a_batch_have_their_own_and_a_stream_too(client: TestClient, bundle: Bundle) -> None:
    several: list[dict[str, Any]] = [{}, OPTIONS, {"SegmentRerank.confidence": 0.2}, {"Retrieve.kk": 1}]
    body = {"queries": [{**ASKED, "options": one} for one in several]}
    *answers, wrong = client.post("/v1/expand/batch", json=body).json()["results"]
    for answer, options in zip(answers, several, strict=False):
        assert ids(answer) == local(bundle, options)
        assert answer["options"] == options
    assert wrong["error"]["field"] == "options.Retrieve.kk"
    streamed = client.post("/v1/expand/stream", json={**ASKED, "options": OPTIONS}).text
    last = json.loads(streamed.strip().rpartition("data: ")[2])
    assert (ids(last), last["options"]) == (local(bundle, OPTIONS), OPTIONS)


@pytest.mark.parametrize(
    ("options", "field", "words", "suggestions"),
    [
        ({"Retrieve.k": 5000}, "options.Retrieve.k", "5000 is out of bounds: give 1 to 2000", []),
        ({"Retrieve.k": 1e308}, "options.Retrieve.k", "out of bounds", []),
        ({"Retrieve.K": 5}, "options.Retrieve.K", "did you mean k?", ["Retrieve.k"]),
        ({"Retriev.k": 5}, "options.Retriev.k", "did you mean Retrieve?", ["Retrieve.k"]),
        ({"Explain.view": 5}, "options.Explain.view", "There are Retrieve, SegmentRerank", []),
        ({"SegmentRerank.length": 1.5}, "options.SegmentRerank.length", "valid integer", []),
        ({"SegmentRerank.length": "8"}, "options.SegmentRerank.length", "a setting is a number, true,", []),
        ({"SegmentRerank.length": [8]}, "options.SegmentRerank.length", "a setting is a number, true,", []),
        ([1], "options", "valid dictionary", []),
        ({f"S.a{i}": 1 for i in range(33)}, "options", "at most 32", []),
        ({"os:system": 1}, "options.os:system", "write Stage.setting", []),
        ({"\0": 1}, "options.\0", "NUL", []),
    ],
)
def test_what_cannot_be_is_422_with_the_field(
    client: TestClient, options: Any, field: str, words: str, suggestions: list[str]
) -> None:
    answer = client.post("/v1/expand", json={**ASKED, "options": options})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "invalid_request", field)
    assert words in error["message"]
    assert error["suggestions"] == suggestions


def test_a_setting_that_nobody_may_change_is_refused_with_those_that_one_may(client: TestClient) -> None:
    answer = client.post("/v1/expand", json={**ASKED, "options": {"Retrieve.view": 1}})
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert (
        "no query may change it; it may change Retrieve.k (1 to 2000), Retrieve.hubness" in error["message"]
    )
    assert "SegmentRerank.length" in error["suggestions"]


def test_a_method_is_a_name_and_no_module_is_imported_for_a_request(client: TestClient) -> None:
    answer = client.post("/v1/expand", json={**ASKED, "method": "antigravity:PIPELINE"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_method")
    import sys

    assert "antigravity" not in sys.modules


def test_methods_say_what_a_query_may_change(client: TestClient) -> None:
    listed = {one["name"]: one["options"] for one in client.get("/v1/methods").json()["methods"]}
    assert listed["retexpan+cds"]["SegmentRerank.confidence"]["value"] == 0.03
    for name, options in listed.items():
        assert options == offered(method(name).stages)


def test_the_served_worker_answers_queries_of_other_settings_in_one_batch(bundle: Bundle) -> None:
    """The worker behind all fused deployments, as Serve's replicas run it, without Serve."""
    chains = {"retexpan": (0, 1), "default": (2, 3, 4), "retexpan+contrast-conditioned": (5, 6, 7)}
    stages = [stage for name in chains for stage in method(name).stages]
    opened = OpenedBundle.open(bundle, stages)
    runner = StageRunner(stages, [1 << 20] * len(stages), wait_s=0.05)  # they wait for each other
    several: list[tuple[str, dict[str, Any]]] = [
        ("retexpan", {}),
        ("retexpan", OPTIONS),
        ("default", {"Retrieve.hubness": 1.5, "ContrastRerank.temperature": 0.5}),
        ("retexpan", {"SegmentRerank.confidence": 0.3}),
        ("default", {}),
        ("retexpan+contrast-conditioned", {}),
        ("retexpan+contrast-conditioned", {"ConditionedRetrieve.sentences": 1, "Retrieve.k": 20}),
    ]
    jobs = []
    for name, options in several:
        query = Query("q", (1, 2, 3), (4, 5), 12, options=checked_options(method(name).stages, options))
        jobs.append(Job(Task(bundle.id, chains[name], [Expansion(query)]), opened))
    for job in jobs:
        runner.submit(job)
    for job in jobs:
        job.done.result(20)
    runner.close()
    assert max(stats.queries for job in jobs for stats in job.reply().stats) == 3, "they were one batch"
    for job, (name, options) in zip(jobs, several, strict=True):
        (outcome,) = job.reply().outcomes
        assert isinstance(outcome, Expansion)
        assert finish(outcome).ranking.ids.tolist() == local(bundle, options, name)
        assert np.isfinite(outcome.ranking.scores).all()
