"""Whatever reads queries takes the names of their columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.seedset import entries
from engine.errors import FormatError
from engine.vocabulary import Vocabulary
from jobs.reproduce import ReproduceSettings, planned
from jobs.steps.query_tables import QueryTableSettings, read_query_table

COUNTS_QUERIES = {"make-queries", "size"}
"""Commands whose ``--queries`` is a number."""


def test_every_command_with_queries_has_the_option() -> None:
    declared = QueryTableSettings.model_fields["columns"].description
    found = set()
    for name, entry in entries():
        fields = entry.load().model
        if "queries" in fields.model_fields and name not in COUNTS_QUERIES:
            assert fields.model_fields["columns"].description == declared, name
            found.add(name)
    assert {"expand", "evaluate", "report", "mine-contrast", "calibrate", "ablate", "refresh"} <= found


def test_a_table_is_read_by_its_own_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"request": "r", "wanted": ["iron"], "price": 3}))
    words = Vocabulary(["iron", "neon"], [[], []])
    (found,) = read_query_table(str(file), "id=request,positive=wanted", words).queries
    assert (found.query.id, found.query.positive) == ("r", (0,))
    assert "not read, as --columns names others: price" in capsys.readouterr().err
    with pytest.raises(FormatError, match="there is no column wnated"):
        read_query_table(str(file), "wnated=request", words)


def test_reproduce_hands_them_on() -> None:
    settings = ReproduceSettings(
        preset="ultrawiki", source="s", workspace="w", queries="q", columns="positive=wanted"
    )
    plan = planned(settings, ["evaluate"], "ultrawiki.yaml")
    assert all(words[-2:] == ["--columns", "positive=wanted"] for words in plan.values())
