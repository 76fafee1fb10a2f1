"""Rows of a table at random, with every field that a request may have, and their answers in both ways."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from engine.retrieval.index import dimension_of, index_file, views_of
from engine.storage.bundle import Bundle
from jobs.expand import main
from tests.support.commands import run_command

Row = dict[str, Any]

OPTIONS: list[Row] = [
    {"SegmentRerank.length": 3},
    {"SegmentRerank.length": 3, "SegmentRerank.confidence": 0.2},
    {"Retrieve.k": 7},
    {"Retrieve.k": -1},
    {"Retrieve.view": 1},
    {"Nothing.k": 1},
    {"ContrastRerank.length": 1},
]


FILTERS: list[Row] = [
    *({"parity": ["odd"]}, {"parity": ["even", "odd"]}, {"parity": "odd"}, {"parity": ["evn"]}),
    {"parity": {"none": ["odd"]}, "class": {"prefix": "comm"}},
    {"any": [{"parity": ["odd"]}, {"class": {"all": ["rare"]}}]},
    {"any": [{"parity": {"gte": 3}}]},
    {"parity": {"gte": "x"}},
]


def seed(draw: random.Random, n: int) -> Any:
    chance = draw.random()
    if chance < 0.01:
        return draw.choice(["entity 1x", n + 7, {"name": "Thule", "sentences": []}, 1.5, True])
    if chance < 0.06:
        name = draw.choice(["Thule", "Atlantis", "Ys", "Entity 3"])
        sentence = draw.choice([f"{name} is far.", f"Who has seen {name}?"])
        return {"name": name, "sentences": [sentence]}
    if chance < 0.1:
        return {"name": f"entity {draw.randrange(n)}", "weight": draw.choice([0, 0.5, 1, 1, 1, 3, "2"])}
    place = draw.randrange(n)
    return draw.choice([place, f"entity {place}", f"ENTITY  {place}"])


def drawn(number: int, bundle: Bundle, quick: Sequence[str], slow: Sequence[str]) -> Row:
    """Return a row at random; one in a few cannot be asked.

    Args:
        number: tells rows apart.
        bundle: answers.
        quick: methods of most rows.
        slow: methods of few rows.
    """
    n = len(bundle.vocabulary)
    draw = random.Random(number)
    row: Row = {
        "id": f"q{number}",
        "class": draw.choice(["odd_things", "cities"]),
        "positive": [seed(draw, n) for _ in range(draw.choice([0, 1, 2, 3, 5, 5]))],
        "top_k": draw.choice([0, 1, 5, 20, 60, 300]) if draw.random() < 0.2 else 10,
    }
    chances: dict[str, tuple[float, Any]] = {
        "negative": (0.6, [seed(draw, n) for _ in range(draw.choice([1, 3]))]),
        "method": (0.7, draw.choice(slow if draw.random() < 0.05 else quick)),
        "filter": (0.2, draw.choice(FILTERS + FILTERS[:3] + FILTERS[4:6])),
        "explain": (0.3, True),
        "deadline_ms": (0.2, draw.choice([3_600_000] * 9 + [0])),
        "options": (0.15, draw.choice(OPTIONS)),
        "positive_attributes": (0.5, {"class": ["rare"]}),
        "negative_attributes": (0.1, {"parity": ["even"]}),
        "bundle": (0.1, draw.choice([bundle.id] * 5 + ["other"])),
        "negatives": (0.01, [1]),
        "exclude": (0.15, [one for one in (seed(draw, n) for _ in range(9)) if not isinstance(one, dict)]),
        "min_score": (0.15, draw.choice([-0.2, 0, 0.05, 0.3] * 4 + ["much"])),
        "group_by": (0.1, draw.choice(["parity", "class"] * 4 + ["colour"])),
        "per_group": (0.02, draw.choice([1, 3])),
        "facets": (
            0.15,
            draw.choice([True, ["parity"], ["class", "parity"], False] * 4 + [["colour"], "class"]),
        ),
        "diversity": (0.1, draw.choice([0, 0.4, 1] * 4 + [2])),
        "context": (0.05, [{"positive": draw.randrange(n + 1), "negative": draw.randrange(n)}]),
        "offset": (0.15, draw.choice([0, 3, 15, 200] * 4 + [-1])),
    }
    if draw.random() < 0.05:
        d = dimension_of(bundle.path(index_file("mask")))
        views = [view for view in views_of(bundle.manifest) if draw.random() < 0.9]
        row["positive"].append({"vector": {view: [draw.uniform(-1, 1) for _ in range(d)] for view in views}})
    row |= {name: value for name, (chance, value) in chances.items() if draw.random() < chance}
    if draw.random() < 0.01:
        row["method"] = "nonsense"
    return row


def as_request(row: Row) -> Row:
    """Return the request of a row: one field is spelt in another way."""
    return {name: value for name, value in row.items() if name != "class"} | {
        "class_name": row["class"].replace("_", " ")
    }


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
    assert not any(row["facets"] for row in rows[1:])
    return {"id": rows[0]["query_id"], "results": results, "facets": rows[0]["facets"], **about}


def over_http(answer: Row) -> Row:
    """Return an answer without what a table does not say in the row; the images are a column beside it."""
    for result in answer["results"]:
        if "explanation" in result:
            del result["explanation"]["images"]
    about = {name: answer[name] for name in ("id", "results", "degraded", "reasoning", "counts")}
    return {**about, "facets": answer.get("facets")}


def close(one: Any, other: Any) -> bool:
    """Return whether two answers are the same; a batch of another size may round a last digit otherwise."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(np.float32(one), np.float32(other), rtol=1e-4, atol=1e-5))
    return bool(one == other)


def compared(asked: Mapping[str, Row], bundle: Bundle, rows: list[Row], folder: Path) -> Iterator[str]:
    """Expand a table, compare each row's answer with that over HTTP, and yield what became of it.

    Args:
        asked: answers over HTTP by id.
        bundle: answers.
        rows: of the table.
        folder: to write into.
    """
    found, refused = table_answers(bundle, rows, folder)
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
