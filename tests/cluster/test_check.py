"""The cluster file of the repository is one that Ray takes; wrong ones are refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.check import check_file, describe_nodes
from engine.errors import FormatError

OURS = Path(__file__).resolve().parents[2] / "ray_cluster.yaml"


def edited(tmp_path: Path, **changes: Any) -> Path:
    config = yaml.safe_load(OURS.read_text(encoding="utf-8"))
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
    return path


def test_our_file_is_valid_and_says_what_to_edit() -> None:
    (remark,) = check_file(OURS)
    assert "192.0.2.10, 192.0.2.11, 192.0.2.12 are example addresses" in remark


def test_an_edited_file_has_nothing_left_to_do(tmp_path: Path) -> None:
    provider = {"type": "local", "head_ip": "head.lan", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    assert check_file(edited(tmp_path, provider=provider)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"setup_comands": []}, "setup_comands"),
        ({"max_workers": "two"}, "max_workers"),
        ({"provider": {"type": "nowhere"}}, "nowhere"),
        ({"provider": None}, "no `provider`"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        check_file(edited(tmp_path, **changes))


def test_a_file_that_is_not_there_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        check_file(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(FormatError, match="not YAML"):
        check_file(path)


def test_what_would_fail_on_the_machines_is_said(tmp_path: Path) -> None:
    path = edited(tmp_path, max_workers=5, head_start_ray_commands=["ray start --head"])
    remarks = " ".join(check_file(path))
    assert "max_workers is 5, but worker_ips names 2" in remarks
    assert "head_start_ray_commands: without RAY_AUTH_MODE=token" in remarks


def test_nodes_are_described() -> None:
    has = {"CPU": 4.0, "GPU": 1.0, "memory": 8 * 2.0**30}
    alive = {"Alive": True, "NodeManagerAddress": "10.0.0.2", "Resources": has}
    assert describe_nodes([alive, {**alive, "Alive": False}]) == ["10.0.0.2  4 CPU  1 GPU  8.0 GiB"]
