"""A row of a table is answered as the request that it is over HTTP: all fields, refusals, failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.methods import METHODS
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle
from tests.support.request_rows import Row, as_request, compared, drawn
from tests.support.runner_dispatch import http_client

N = 60
QUERIES = 500

QUICK = (
    "default",
    "retexpan",
    "retexpan+cds",
    "retexpan+types",
    "joint",
    "lexical",
    "best",
    "probexpan",
    "multimodal",
)
SLOW = (
    "genexpan",
    "retexpan+lm-rerank",
    "composed",
    "genexpan+cot-class-given",
    "genexpan+cot-positive-given",
    "retexpan+contrast",
    "case",
    "cgexpan",
)
pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("as-http"), n=N, d=8)


def http_answers(bundle: Bundle, rows: list[Row]) -> dict[str, Row]:
    names = {*QUICK, *SLOW}
    limits = {"max_queries": 1000, "max_body_bytes": 1 << 24, "timeout_s": 3600, "max_top_k": 10_000}
    with http_client(bundle, {name: METHODS[name] for name in names}, **limits) as client:
        answer = client.post("/v1/expand/batch", json={"queries": [as_request(row) for row in rows]})
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in answer.json()["results"]}


def test_500_queries_of_every_feature_are_answered_as_over_http(bundle: Bundle, tmp_path: Path) -> None:
    rows = [drawn(number, bundle, QUICK, SLOW) for number in range(QUERIES)]
    became = list(compared(http_answers(bundle, rows), bundle, rows, tmp_path))
    counted = {kind: became.count(kind) for kind in set(became)}
    assert counted["answered"] > QUERIES // 2
    kinds = {"invalid_request", "unknown_entity", "unknown_method", "unknown_attribute", "other_bundle"}
    assert kinds | {"query"} <= counted.keys(), "every kind of refusal was met"
