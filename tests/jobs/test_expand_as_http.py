"""A row of a table is answered as the request that it is over HTTP: all fields, refusals, failures."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.methods import METHODS
from engine.storage.bundle import Bundle
from jobs.expand import main
from tests.support.bundles import method_bundle
from tests.support.commands import run_command
from tests.support.runner_dispatch import http_client

N = 60
QUERIES = 500
Row = dict[str, Any]

QUICK = (
    "default",
    "retexpan",
    "retexpan+cds",
    "retexpan+types",
    "joint",
    "lexical",
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
OPTIONS: list[Row] = [
    {"SegmentRerank.length": 3},
    {"SegmentRerank.length": 3, "SegmentRerank.confidence": 0.2},
    {"Retrieve.k": 7},
    {"Retrieve.k": -1},
    {"Retrieve.view": 1},
    {"Nothing.k": 1},
    {"ContrastRerank.length": 1},
]
pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("as-http"), n=N, d=8)


def seed(draw: random.Random) -> Any:
    chance = draw.random()
    if chance < 0.01:
        return draw.choice(["entity 1x", N + 7, {"name": "Thule", "sentences": []}, 1.5, True])
    if chance < 0.06:
        name = draw.choice(["Thule", "Atlantis", "Ys", "Entity 3"])
        sentence = draw.choice([f"{name} is far.", f"Who has seen {name}?"])
        return {"name": name, "sentences": [sentence]}
    place = draw.randrange(N)
    return draw.choice([place, f"entity {place}", f"ENTITY  {place}"])


def drawn(number: int, bundle: Bundle) -> Row:
    """Return a row at random; one in a few cannot be asked."""
    draw = random.Random(number)
    row: Row = {
        "id": f"q{number}",
        "class": draw.choice(["odd_things", "cities"]),
        "positive": [seed(draw) for _ in range(draw.choice([1, 2, 3, 5]))],
        "top_k": draw.choice([0, 1, 5, 20, N, 300]) if draw.random() < 0.2 else 10,
    }
    chances: dict[str, tuple[float, Any]] = {
        "negative": (0.6, [seed(draw) for _ in range(draw.choice([1, 3]))]),
        "method": (0.7, draw.choice(SLOW if draw.random() < 0.05 else QUICK)),
        "filter": (0.2, {"parity": draw.choice([["odd"], ["even", "odd"], ["odd"], ["even"], ["evn"]])}),
        "explain": (0.3, True),
        "deadline_ms": (0.2, draw.choice([3_600_000] * 9 + [0])),
        "options": (0.15, draw.choice(OPTIONS)),
        "positive_attributes": (0.5, {"class": ["rare"]}),
        "negative_attributes": (0.1, {"parity": ["even"]}),
        "bundle": (0.1, draw.choice([bundle.id] * 5 + ["other"])),
        "negatives": (0.01, [1]),
    }
    row |= {name: value for name, (chance, value) in chances.items() if draw.random() < chance}
    if draw.random() < 0.01:
        row["method"] = "nonsense"
    return row


def as_request(row: Row) -> Row:
    """Return the request of a row: one field is spelt in another way."""
    return {name: value for name, value in row.items() if name != "class"} | {
        "class_name": row["class"].replace("_", " ")
    }


def http_answers(bundle: Bundle, rows: list[Row]) -> dict[str, Row]:
    names = {*QUICK, *SLOW}
    limits = {"max_queries": 1000, "max_body_bytes": 1 << 24, "timeout_s": 3600, "max_top_k": 10_000}
    with http_client(bundle, {name: METHODS[name] for name in names}, **limits) as client:
        answer = client.post("/v1/expand/batch", json={"queries": [as_request(row) for row in rows]})
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in answer.json()["results"]}


def table_answers(bundle: Bundle, rows: list[Row], folder: Path) -> tuple[dict[str, list[Row]], list[Row]]:
    """Return the rows of the answers by query, and what was refused."""
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--workspace", bundle.folder.parent.parent, "--queries", folder / "q.jsonl"]
    given = ["--method", "default", "--output", folder / "out", "--workers", 1]
    assert run_command(main, *words, *given) == 0
    found: dict[str, list[Row]] = {}
    for row in pq.read_table(folder / "out").to_pylist(maps_as_pydicts="strict"):
        found.setdefault(row["query_id"], []).append(row)
    refused = folder / "out" / "_refused.jsonl"
    return found, [json.loads(line) for line in refused.read_text().splitlines()]


def numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def as_answer(rows: list[Row], explained: bool) -> Row:
    """Return the rows of a query as HTTP answers them."""
    results = []
    for row in rows if rows[0]["rank"] else []:
        result = {"rank": row["rank"], "id": row["entity_id"], "name": row["name"], "score": row["score"]}
        result["evidence"] = numbers(row["evidence"])
        if explained:
            result["explanation"] = row["explanation"]
        else:
            assert row["explanation"] is None
        results.append(result)
    about = {name: rows[0][name] for name in ("degraded", "reasoning", "counts")}
    return {"id": rows[0]["query_id"], "results": results, **about}


def over_http(answer: Row) -> Row:
    """Return an answer without what a table does not say in the row; the images are a column beside it."""
    for result in answer["results"]:
        if "explanation" in result:
            del result["explanation"]["images"]
    return {name: answer[name] for name in ("id", "results", "degraded", "reasoning", "counts")}


def close(one: Any, other: Any) -> bool:
    """Return whether two answers are the same; a batch of another size may round a last digit otherwise."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(np.float32(one), np.float32(other), rtol=1e-4, atol=1e-5))
    return bool(one == other)


def check_same(bundle: Bundle, rows: list[Row], folder: Path) -> Iterator[str]:
    """Compare each row's answer, and yield what became of it."""
    asked, (found, refused) = http_answers(bundle, rows), table_answers(bundle, rows, folder)
    reasons = {one["query_id"]: one for one in refused}
    assert len(reasons) == len(refused), "each is refused once"
    for row in rows:
        name, answer = row["id"], asked[row["id"]]
        if "error" in answer:
            assert name in reasons, (row, answer)
            assert [one["rank"] for one in found.get(name, [])] in ([], [0])
            yield answer["error"]["code"]
            continue
        assert name not in reasons, (row, reasons[name])
        mine, theirs = as_answer(found[name], row.get("explain", False)), over_http(answer)
        assert close(mine, theirs), (row, mine, theirs)
        yield "answered"


def test_500_queries_of_every_feature_are_answered_as_over_http(bundle: Bundle, tmp_path: Path) -> None:
    rows = [drawn(number, bundle) for number in range(QUERIES)]
    became = list(check_same(bundle, rows, tmp_path))
    counted = {kind: became.count(kind) for kind in set(became)}
    assert counted["answered"] > QUERIES // 2
    kinds = {"invalid_request", "unknown_entity", "unknown_method", "unknown_attribute", "other_bundle"}
    assert kinds | {"query"} <= counted.keys(), "every kind of refusal was met"
