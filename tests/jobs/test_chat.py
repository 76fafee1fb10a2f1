"""Test expand and evaluate by a chat model: what is counted, kept, capped and replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.plugins import find_method
from engine.queries.results import RunDescription
from engine.stages.base import Pipeline
from engine.stages.rerank import SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.storage.workspace import Workspace
from jobs import evaluate, expand
from tests.support.bundles import method_bundle
from tests.support.chat_server import KEY, chat_server, listed, problem
from tests.support.commands import run_command

NAMES = ["Norway", "Sweden", "Denmark", "Japan", "Thailand", "Spain", "Chad", "Mali"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    method_bundle(tmp_path / "w", names=NAMES)
    records = [
        {"id": f"q{i}", "positive": [name], "pos_gt": ["Sweden"]}
        for i, name in enumerate(["Norway", "Japan"])
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path


def run_expand(root: Path, output: str) -> int:
    words = ("--workspace", root / "w", "--queries", root / "q.jsonl", "--method", "chat")
    return run_command(expand.main, *words, "--output", root / output, "--workers", 1)


def test_a_table_of_queries_is_expanded_counted_and_replayed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = {"prompt_price": 10_000, "answer_price": 20_000}
    with chat_server(monkeypatch, [listed("Sweden", "Atlantis")], **prices):
        assert run_expand(root, "out") == 0
    shown = capsys.readouterr()
    assert "listed=4 by_name=2 by_alias=0 fuzzy=0 hallucinated=2" in shown.out
    assert "prompt_tokens=200 answer_tokens=100" in shown.out
    assert "chat: 2 requests, 300 tokens for 4 are counted in" in shown.err
    assert KEY not in shown.out + shown.err
    manifest = json.loads((root / "out" / "_manifest.json").read_text())
    assert manifest["counts"]["hallucinated"] == 2
    assert manifest["pipeline"] == "ChatExpand(model='stand-in')"
    rows = pq.read_table(root / "out").to_pylist(maps_as_pydicts="strict")
    assert [(r["query_id"], r["name"], r["counts"]["hallucinated"]) for r in rows] == [
        ("q0", "Sweden", 1),
        ("q1", "Sweden", 1),
    ]
    everything = b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    assert KEY.encode() not in everything
    monkeypatch.setenv("SEEDSET_CHAT_REPLAY", "1")
    monkeypatch.delenv("SEEDSET_CHAT_URL")
    assert run_expand(root, "again") == 0
    parts = [next((root / name).glob("part-*.parquet")).read_bytes() for name in ("out", "again")]
    assert parts[0] == parts[1]
    monkeypatch.setenv("SEEDSET_CHAT_MODEL", "another")
    assert run_expand(root, "other") == 2
    assert "no answer of 'another' is kept" in capsys.readouterr().err
    assert run_expand(root, "out") == 2
    assert (
        "pipeline: ChatExpand(model='stand-in'), not ChatExpand(model='another')" in capsys.readouterr().err
    )


def test_models_and_endpoints_have_default_outputs_of_their_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDescription(
        method="chat", pipeline="", bundle="b" * 16, queries_digest="d" * 16, queries=1, part_size=1
    )

    def output(method: str = "chat", pipeline: Pipeline | None = None, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(f"SEEDSET_CHAT_{name}", value)
        made = pipeline or find_method(method)
        wanted = run.model_copy(update={"method": method, "pipeline": str(made)})
        return expand.default_output(Workspace.open(root / "w"), wanted, made).name

    one = output(MODEL="one", URL="https://here.example/v1")
    assert one.startswith("chat-")
    found = [one, output(MODEL="two"), output(URL="https://there.example/v1"), output("chat+class-name")]
    assert len(set(found)) == len(found)
    assert output(MODEL="one", URL="https://here.example/v1") == one
    assert output("retexpan") == "retexpan-dddddddd-bbbbbbbb", "nothing of the environment makes its answers"
    assert output("retexpan", Retrieve(k=7) >> SegmentRerank()) != output("retexpan")


def test_a_run_that_meets_a_cap_or_a_failing_endpoint_goes_on_where_it_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_server(monkeypatch, [listed("Sweden")], max_requests=1, concurrency=1) as server:
        assert run_expand(root, "out") == 2
        assert "SEEDSET_CHAT_MAX_REQUESTS=1: the cap is reached" in capsys.readouterr().err
        monkeypatch.setenv("SEEDSET_CHAT_MAX_REQUESTS", "2")
        assert run_expand(root, "out") == 0
        assert len(server.requests) == 2
    with chat_server(monkeypatch, [problem(401)], cache=root / "elsewhere"):
        assert run_expand(root, "refused") == 2
        assert "the key is refused" in capsys.readouterr().err


def test_a_report_sums_what_was_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--workspace", root / "w", "--queries", root / "q.jsonl", "--method", "chat+class-name")
    with chat_server(monkeypatch, [listed("Sweden", "Atlantis", class_name="Kingdoms")]):
        assert run_command(evaluate.main, *words, "--json", root / "r.json") == 0
    report = json.loads((root / "r.json").read_text())
    assert report["overall"]["PosMAP@10"] == 100
    assert (report["counts"]["listed"], report["counts"]["hallucinated"]) == (4, 2)
    shown = capsys.readouterr()
    assert "hallucinated=2" in shown.out
    assert "chat: 2 requests, 300 tokens are counted in" in shown.err


def test_without_an_endpoint_the_command_says_what_to_set(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_expand(root, "out") == 2
    assert "ChatExpand: SEEDSET_CHAT_MODEL is not set" in capsys.readouterr().err
