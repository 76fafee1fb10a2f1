"""What the benchmark of a node that is cut off compares and shows; nothing is started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import network_partition
from benchmarks.network_partition import (
    Namespace,
    Outcome,
    ip,
    joined_namespaces,
    parts_in,
    show,
    workers_among,
    written_by,
)
from engine.errors import UserError

GOOD = [Outcome("a", 10.0, 9, 0, 2), Outcome("b", 20.0, 9, 0, 3)]


@pytest.mark.parametrize(
    ("last", "holds"),
    [
        (Outcome("c", 30.0, 9, 0, 1), True),
        (Outcome("c", 30.0, 9, 1, 1), False),
        (Outcome("c", 30.0, 9, 0, 0), False),
        (Outcome("c", 30.0, 9, 0, 1, "error: gone"), False),
    ],
)
def test_it_holds_where_all_files_are_the_same_and_the_second_node_was_at_work(
    last: Outcome, holds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show([*GOOD, last])
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1])["holds"] is holds
    assert ("FAILED: c: error: gone" in said) is bool(last.failed)


def test_parts_are_what_a_job_wrote_and_not_what_it_read(tmp_path: Path) -> None:
    for name in ("corpus/mentions/part-1.parquet", "inputs/k/part-2.parquet", "output/part-3.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "inputs" / "k" / "manifest.json").write_text("{}")
    assert {part.name for part in parts_in(tmp_path)} == {"part-2.parquet", "part-3.parquet"}
    before = written_by(tmp_path)
    assert before.keys() == {"inputs/k/manifest.json", "inputs/k/part-2.parquet", "output/part-3.parquet"}
    (tmp_path / "output" / "part-3.parquet").write_text("other")
    assert [name for name, one in written_by(tmp_path).items() if before[name] != one] == [
        "output/part-3.parquet"
    ]


def test_idle_workers_and_agents_are_not_at_work() -> None:
    titles = [
        "ray::IDLE",
        "ray::DashboardAgent",
        "/usr/bin/raylet",
        "ray::MapWorker(Infer).submit",
        "ray::Holder",
    ]
    assert workers_among(titles) == 2


def test_the_namespaces_go_whatever_fails_and_the_refusal_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(tuple(words[1:3]) if words[1] == "netns" else tuple(words[1:2]))
        refused = words[1:3] == ["link", "add"]
        return subprocess.CompletedProcess(
            words, int(refused), "", "Operation not permitted" if refused else ""
        )

    monkeypatch.setattr(network_partition.subprocess, "run", run)
    refusal = r"ip link add .*: Operation not permitted; .* need root"
    with pytest.raises(UserError, match=refusal), joined_namespaces():
        pass
    assert [one for one in asked if one[0] == "netns"].count(("netns", "delete")) == 2
    assert Namespace("n", "card", "10.0.0.1").words(["ls", 1]) == ["ip", "netns", "exec", "n", "ls", "1"]


def test_without_the_command_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="install iproute2"):
        ip("netns", "list")
