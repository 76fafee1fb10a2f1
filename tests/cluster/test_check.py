"""The cluster file of the repository is one that Ray takes; wrong ones are refused in a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.check import check_file, describe_nodes, main, split_address
from engine.errors import FormatError, UserError

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


LOCAL = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ({"worker_ips": ["10.0.0.2", "10.0.0.1"]}, r"worker_ips names the head 10\.0\.0\.1"),
        ({"head_ip": "Head.lan", "worker_ips": ["head.lan.", "b"]}, "worker_ips names the head Head.lan"),
        ({"worker_ips": ["10.0.0.2", "10.0.0.2"]}, r"worker_ips names 10\.0\.0\.2 more than once"),
        ({"worker_ips": ["fe80::1", "FE80:0::1"]}, "worker_ips names fe80::1 more than once"),
        ({"worker_ips": ["10.0.0.256"]}, r"worker_ips\[0\]: '10\.0\.0\.256' is no IPv4 address"),
        ({"worker_ips": ["10.0.0.2", "10.0.0"]}, r"worker_ips\[1\]: '10\.0\.0' is no IPv4 address"),
        ({"head_ip": "10.0.0.1:6379"}, "head_ip: '10.0.0.1:6379' names a port"),
        ({"head_ip": "http://head"}, "head_ip: 'http://head' is an address of something"),
        ({"head_ip": "10.0.0.0/24"}, "of a network"),
        ({"worker_ips": ["me@host"]}, "names an account: put that under auth.ssh_user"),
        ({"worker_ips": [10.2]}, "10.2 is no text"),
        ({"worker_ips": [None, ""]}, r"None is no text.*'' is empty"),
        ({"worker_ips": ["0.0.0.0"]}, "address of no single machine"),
        ({"worker_ips": ["224.0.0.1", "255.255.255.255"]}, r"'224.*no single machine.*'255"),
        ({"worker_ips": ["127.0.0.1"]}, "127.0.0.1 is each machine's own"),
        ({"head_ip": "localhost"}, "localhost is each machine's own"),
        ({"worker_ips": ["-a", "a_b.lan"]}, r"worker_ips\[0\]: '-a' is no host name"),
        ({"worker_ips": "10.0.0.2"}, "worker_ips"),
        ({"head_ip": None}, "head_ip"),
    ],
)
def test_machines_that_cannot_be_are_refused(tmp_path: Path, provider: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        check_file(edited(tmp_path, max_workers=2, min_workers=0, provider=LOCAL | provider))
    assert "cluster.yaml: " in str(caught.value)


@pytest.mark.parametrize("auth", [None, {}, {"ssh_private_key": "~/.ssh/id"}, {"ssh_user": ""}])
def test_machines_that_nobody_can_reach_are_refused(tmp_path: Path, auth: dict[str, Any] | None) -> None:
    config = yaml.safe_load(edited(tmp_path, provider=LOCAL).read_text())
    config.pop("auth")
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config if auth is None else config | {"auth": auth}))
    with pytest.raises(FormatError, match=r"auth\.ssh_user is missing"):
        check_file(path)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    provider = LOCAL | {"worker_ips": ["10.0.0.1", "10.0.0.300", "10.0.0.300"]}
    with pytest.raises(FormatError, match=r"no IPv4.*names the head.*more than once"):
        check_file(edited(tmp_path, max_workers=3, provider=provider))


def test_one_machine_alone_may_be_this_one(tmp_path: Path) -> None:
    provider = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    assert check_file(edited(tmp_path, max_workers=0, min_workers=0, provider=provider)) == []


def test_nodes_are_described() -> None:
    has = {"CPU": 4.0, "GPU": 1.0, "memory": 8 * 2.0**30}
    alive = {"Alive": True, "NodeManagerAddress": "10.0.0.2", "Resources": has}
    assert describe_nodes([alive, {**alive, "Alive": False}]) == ["10.0.0.2  4 CPU  1 GPU  8.0 GiB"]


CLOUD = OURS.parent / "cluster" / "aws.yaml"


def test_the_file_for_a_cloud_is_valid_and_wants_images_alone() -> None:
    remarks = check_file(CLOUD)
    assert len(remarks) == 3
    assert all("ImageId is an example" in remark for remark in remarks)


def test_both_files_start_the_same_nodes() -> None:
    here, there = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (OURS, CLOUD))
    for key in ("head_start_ray_commands", "worker_start_ray_commands", "file_mounts", "rsync_exclude"):
        assert here[key] == there[key]


def test_only_what_can_be_lost_is_bought_on_the_spot_market() -> None:
    kinds = yaml.safe_load(CLOUD.read_text(encoding="utf-8"))["available_node_types"]
    spot = {name for name, kind in kinds.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert spot == {"cpu", "gpu"}


def clouded(tmp_path: Path, kind: str, key: str, value: Any, **changes: Any) -> Path:
    config = yaml.safe_load(CLOUD.read_text(encoding="utf-8").replace("ami-00000000000000000", "ami-0abc"))
    config["available_node_types"][kind]["node_config"][key] = value
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "key", "value", "changes", "words"),
    [
        ("cpu", "InstanceType", "m7i.large", {}, ""),
        ("head", "InstanceMarketOptions", {"MarketType": "spot"}, {}, "head is bought on the spot market"),
        ("cpu", "ImageId", "ami-1", {"file_mounts": {}}, "auth_token is not among them"),
        ("cpu", "ImageId", "ami-1", {"rsync_exclude": [".git/**"]}, r"\.env would be copied"),
        (
            "cpu",
            "ImageId",
            "ami-1",
            {"setup_commands": ["pip install seedset"]},
            "add -c ~/seedset/requirements.lock",
        ),
        (
            "cpu",
            "ImageId",
            "ami-1",
            {"provider": {"type": "aws", "region": "us-east-1"}},
            "machines of cpu are spot and cannot be stopped; write false",
        ),
    ],
)
def test_what_would_go_wrong_in_a_cloud_is_said(
    tmp_path: Path, kind: str, key: str, value: Any, changes: dict[str, Any], words: str
) -> None:
    remarks = check_file(clouded(tmp_path, kind, key, value, **changes))
    assert bool(remarks) == bool(words)
    assert not words or re.search(words, " ".join(remarks))


def test_the_command_looks_at_the_workspace_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["--cluster-file", str(OURS)]
    done = CliRunner().invoke(main.app, [*words, "--workspace", str(tmp_path / "work")])
    assert done.exit_code == 0
    assert done.stdout.endswith("nothing found\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"this machine: the workspace: write: .*; give the machine's role"):
        CliRunner().invoke(
            main.app, [*words, "--workspace", str(tmp_path / "file" / "work")], catch_exceptions=False
        )
    assert "nothing found" not in CliRunner().invoke(main.app, words).stdout


@pytest.mark.parametrize(
    ("address", "parts"), [("10.0.0.1:6379", ("10.0.0.1", 6379)), ("[fe80::1]:80", ("fe80::1", 80))]
)
def test_addresses_are_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts
