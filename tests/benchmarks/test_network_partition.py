"""What the benchmark of a node that is cut off compares and shows; nothing is started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import network_nodes
from benchmarks.cut_serving import served
from benchmarks.cut_training import Trained, as_undisturbed
from benchmarks.network_nodes import Namespace, ip, joined_namespaces, workers_among
from benchmarks.network_partition import Outcome, asked_for, parts_in, show, written_by
from cluster.crashing.events import Answered
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

    monkeypatch.setattr(network_nodes.subprocess, "run", run)
    refusal = r"ip link add .*: Operation not permitted; .* need root"
    with pytest.raises(UserError, match=refusal), joined_namespaces():
        pass
    assert [one for one in asked if one[0] == "netns"].count(("netns", "delete")) == 2
    assert Namespace("n", "card", "10.0.0.1").words(["ls", 1]) == ["ip", "netns", "exec", "n", "ls", "1"]


def test_without_the_command_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="install iproute2"):
        ip("netns", "list")


def test_what_is_cut_is_chosen_by_name() -> None:
    assert asked_for("serve, batch") == ["serve", "batch"]
    with pytest.raises(UserError, match="'trian' is none of preprocess, batch, serve, train"):
        asked_for("batch,trian")


def answered(sent: float, at: float, score: float | None, tries: int = 1) -> Answered:
    body = None if score is None else {"results": [{"id": 3, "score": score}]}
    return Answered(at, sent, "q", "m", 1, body, tries)


def test_requests_are_lost_wrong_or_late() -> None:
    answers = [
        answered(0.0, 1.0, 0.5),
        answered(1.0, 1.5, 0.25),
        answered(1.5, 31.5, 0.5, tries=2),
        answered(2.0, 122.0, None, tries=9),
    ]
    found = served("then", answers, {"q": [(3, 0.5)]})
    assert (found.sent, found.lost, found.wrong, found.again, found.late) == (4, 1, 1, 2, 2)
    assert (found.longest_s, found.gap_s) == (120.0, 30.0)
    assert served("never", [], {}).sent == 0


DUE = Trained("undisturbed", 60.0, 0.5, 100)


@pytest.mark.parametrize(
    ("cut", "holds"),
    [
        (Trained("cut", 90.0, 0.5001, 100, 40, 40, 2), True),
        (Trained("cut", 90.0, 0.51, 100, 40, 40, 2), False),
        (Trained("cut", 90.0, 0.5, 99, 40, 40, 2), False),
        (Trained("cut", 90.0, 0.5, 100, 0, 40, 2), False),
        (Trained("cut", 90.0, 0.5, 100, 40, 40, 0), False),
        (Trained("cut", 90.0, 0.5, 100, 0, None, 2), False),
        (Trained("cut", 90.0, kept=40, at_work=2, failed="died"), False),
    ],
)
def test_a_training_holds_where_it_goes_on_and_ends_as_another(cut: Trained, holds: bool) -> None:
    assert as_undisturbed(cut, DUE) is holds
