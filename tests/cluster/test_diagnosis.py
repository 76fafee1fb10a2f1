"""What is wrong on a machine is said, with a remedy; a machine that is right has nothing said of it."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.diagnosis import COMPARED, OPEN_FILES, Finding, Node, Seen, findings, look, storage_faults
from engine.errors import StorageError
from engine.storage.store import Store

GIB = 1 << 30
RIGHT = Node(
    "10.0.0.2",
    "3.12.3",
    dict.fromkeys(COMPARED, "1.0"),
    1000.5,
    (8 * GIB, 8 * GIB),
    (100 * GIB, 50 * GIB),
    OPEN_FILES,
    0,
    0,
)


def said(
    node: Node, gpus: float = 0, store: float = 2 * GIB, asked: tuple[float, float] = (1000, 1001)
) -> str:
    return "\n".join(map(str, findings([Seen(node, asked, gpus, store)], RIGHT)))


def test_a_machine_that_is_right_has_nothing_said_of_it() -> None:
    assert said(RIGHT) == ""
    with_gpu = replace(RIGHT, devices=2, usable=2)
    assert said(with_gpu, gpus=2) == ""
    assert said(replace(RIGHT, python="3.12.9")) == ""  # its last number may differ


@pytest.mark.parametrize(
    ("changes", "fault", "remedy"),
    [
        ({"python": "3.11.9"}, "Python 3.11.9, here 3.12.3", "one minor version"),
        (
            {"versions": {**RIGHT.versions, "ray": "0.9", "torch": ""}},
            r"ray 0.9 \(here 1.0\), torch missing \(here 1.0\)",
            "requirements.lock",
        ),
        ({"clock": 940.0}, "at least 60 s off", "timedatectl"),
        ({"clock": 1061.0}, "at least 60 s off", "timedatectl"),
        ({"shared_bytes": (GIB, GIB)}, r"2.0 GiB does not fit /dev/shm \(1.0 GiB\)", "--shm-size"),
        ({"disk_bytes": (100 * GIB, 9 * GIB)}, "9.0 GiB of 100.0 GiB are free", "--temp-dir"),
        ({"disk_bytes": (1000 * GIB, 40 * GIB)}, "40.0 GiB of 1000.0 GiB are free", "95%"),
        ({"cache_bytes": (50 * GIB, GIB)}, "1.0 GiB are free for copies", "SEEDSET_CACHE"),
        ({"open_files": 1024}, "1024 files open", "ulimit -n 65536"),
        ({"devices": 1}, "1 graphics cards, and torch can use none", "CUDA build"),
        ({"unreachable": ("10.0.0.1:6379",)}, "no connection to 10.0.0.1:6379", "open Ray's ports"),
        ({"storage": ("write: denied",)}, "the workspace: write: denied", "s3:PutObject"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(changes: dict[str, object], fault: str, remedy: str) -> None:
    node = replace(RIGHT, **changes)  # type: ignore[arg-type]
    (line,) = said(node).splitlines()
    assert line.startswith("10.0.0.2: ")
    assert re.search(fault, line)
    assert remedy in line.partition("; ")[2]


def test_what_ray_gives_out_is_what_can_be_computed_on() -> None:
    assert "Ray gives out 2 GPUs, and torch can use 1" in said(replace(RIGHT, devices=1, usable=1), gpus=2)
    assert "torch can use 1 GPUs, and Ray gives out none" in said(replace(RIGHT, devices=1, usable=1))


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert said(replace(RIGHT, clock=1030.0), asked=(1000, 1060)) == ""


def test_this_machine_says_what_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_port = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as other:
            closed_port = other.getsockname()[1]
        node = look("here", [("127.0.0.1", open_port), ("127.0.0.1", closed_port)])
    assert node.unreachable == (f"127.0.0.1:{closed_port}",)
    assert node.versions["ray"]
    assert node.shared_bytes[0] > 0
    assert node.disk_bytes[1] > 0
    assert not [
        one for one in findings([Seen(node, (node.clock, node.clock))], node) if "version" in one.fault
    ]


def test_the_cards_that_ray_hides_are_seen_and_hidden_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    look("here")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_folder_and_a_bucket_that_can_be_used_have_no_faults(tmp_path: Path, s3: str) -> None:
    assert [*storage_faults(str(tmp_path))] == []
    assert list(tmp_path.iterdir()) == []
    assert [*storage_faults(f"{s3}/work")] == []


def test_a_bucket_that_is_not_there_says_what_failed(s3: str) -> None:
    (fault,) = storage_faults("s3://no-such-bucket-of-ours/work")
    assert fault.startswith("open: ")
    assert "no-such-bucket-of-ours" in fault


def test_each_right_that_is_missing_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> list[Store]:
        raise StorageError("AccessDenied")

    monkeypatch.setattr(Store, "files", denied)
    assert [*storage_faults(f"{s3}/work")] == ["list: AccessDenied"]
    monkeypatch.setattr(Store, "delete", denied)
    assert [*storage_faults(f"{s3}/work")] == ["list: AccessDenied", "delete: AccessDenied"]


def test_what_it_takes_to_remove_what_killed_writers_left_is_asked_for(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise StorageError("AccessDenied")

    monkeypatch.setattr("engine.storage.s3.give_up_upload", denied)
    assert [*storage_faults(f"{s3}/work")] == ["unfinished uploads: AccessDenied"]


def test_the_disk_of_copies_is_looked_at_before_its_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "not" / "yet"))
    sizes = {str(tmp_path): (70 * GIB, GIB), "/tmp": (90 * GIB, 80 * GIB)}
    monkeypatch.setattr("cluster.diagnosis._disk", lambda folder: sizes.get(folder, (GIB, GIB)))
    assert look("here").cache_bytes == (70 * GIB, GIB)
    sizes["/tmp"] = sizes[str(tmp_path)]
    assert look("here").cache_bytes is None, "the same disk, of which is told already"


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (fault,) = storage_faults(str(tmp_path / "file" / "work"))
    assert fault.startswith("write: ")


def test_a_finding_is_one_line() -> None:
    assert str(Finding("here", "broken", "mend it")) == "here: broken; mend it"
