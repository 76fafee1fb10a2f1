"""Buckets as people name them and as AWS' configuration reaches them; uploads that break off."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from engine.errors import StorageError, UserError
from engine.models.hub import NamedModel
from engine.storage import s3 as buckets
from engine.storage import s3_client
from engine.storage.store import Store, local_folder
from engine.storage.workspace import Workspace


def keys_of(bucket: str) -> list[str]:
    name = bucket.removeprefix("s3://")
    return [one["Key"] for one in boto3.client("s3").list_objects_v2(Bucket=name).get("Contents", [])]


KEYS = [
    "run#1",
    "a?b=c",
    "50%",
    "a%20b",
    "x;y",
    "sp ace",
    "a+b",
    "naïve",
    "a&b=c",
    "q'\"q",
    "#",
    "?",
    "[x]{y}",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_what_stands_behind_the_bucket(s3: str, key: str) -> None:
    store = Store.open(f"{s3}/{key}")
    assert store.uri == f"{s3}/{key}"
    (store / "f").write_bytes(b"1")
    assert keys_of(s3) == [f"{key}/f"]
    assert Store.open(store.uri).files()[0].read_bytes() == b"1"


def test_workspaces_whose_names_begin_alike_are_two(s3: str) -> None:
    for content in ("1", "2"):
        (Workspace.open(f"{s3}/run#{content}").root / "f").write_bytes(content.encode())
    assert (Workspace.open(f"{s3}/run#1").root / "f").read_bytes() == b"1"
    assert not (Workspace.open(f"{s3}/run").root / "f").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://b/a//c", "two slashes"),
        ("s3://b//a", "two slashes"),
        ("s3://b/../a", "'.' or '..'"),
        ("s3://b/a/./c", "'.' or '..'"),
        ("s3://b/a\nc", "control character"),
        ("s3:/b/a", "write s3://bucket/prefix"),
        ("s3:b", "write s3://bucket/prefix"),
        ("file://host/a", "names the machine 'host'"),
    ],
)
def test_a_name_that_would_be_read_as_another_is_refused(address: str, reason: str) -> None:
    with pytest.raises(StorageError, match=reason):
        Store.open(address)


def test_a_file_address_is_decoded_and_keeps_its_signs(tmp_path: Path) -> None:
    for name in ("run#1", "a?b", "sp ace", "50%"):
        assert Store.open((tmp_path / name).as_uri()) == Store.open(tmp_path / name)
    assert Store.open(f"file://{tmp_path}/run#1") == Store.open(tmp_path / "run#1")
    assert Store.open(f"file://localhost{tmp_path}") == Store.open(tmp_path)


def test_a_model_is_the_folder_that_was_named(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    folder = Store.open(f"{s3}/m#1")
    (folder / "checkpoint-1" / "config.json").write_bytes(b"{}")  # sorts before the model's own
    with pytest.raises(UserError, match=r"--model s3://.*m#1: cannot be loaded \(no config.json in it\)"):
        NamedModel.open(folder.uri, "--model").config()
    (folder / "config.json").write_bytes(b'{"model_type": "bert"}')
    opened = NamedModel.open(f"{folder.uri}/", "--model")
    assert Path(opened.path, "config.json").read_bytes() == b'{"model_type": "bert"}'


def test_a_copy_follows_its_object_at_once(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    folder = Store.open(f"{s3}/m")
    (folder / "weights").write_bytes(b"1")
    copy = Path(local_folder(folder.uri)) / "weights"
    (folder / "weights").write_bytes(b"2")  # of the same size, within the second that S3 counts in
    assert Path(local_folder(folder.uri)) / "weights" == copy
    assert copy.read_bytes() == b"2"
    copy.write_bytes(b"3")  # by another hand
    assert (folder / "weights").local_copy(tmp_path).read_bytes() == b"2"


def test_what_changes_while_it_is_copied_is_not_mixed(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    folder = Store.open(f"{s3}/m")
    for name in ("config.json", "weights"):
        (folder / name).write_bytes(b"old")
    download, left = buckets.download, [1]

    def meanwhile(path: str, state: buckets.Version, sink) -> None:
        download(path, state, sink)
        if left and path.endswith("config.json"):
            left.pop()
            for name in ("config.json", "weights"):
                (folder / name).write_bytes(b"new%d" % len(left))

    monkeypatch.setattr(buckets, "download", meanwhile)
    copy = Path(local_folder(folder.uri))
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == {"config.json": b"new0", "weights": b"new0"}
    left.extend([1] * 9)
    (folder / "config.json").write_bytes(b"newer")
    with pytest.raises(StorageError, match="is being written to"):
        local_folder(folder.uri)


def test_an_upload_that_breaks_off_leaves_no_object(s3: str, tmp_path: Path) -> None:
    file = Store.open(f"{s3}/f")

    def broken() -> None:
        with file.writing() as path:
            path.write_bytes(b"x" * (9 << 20))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert not file.exists()


def test_an_upload_that_arrives_short_is_named(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_head", lambda *_: buckets.Version(2, "x"))
    with pytest.raises(StorageError, match="has 2 bytes after 3 bytes were written"):
        Store.open(f"{s3}/f").write_bytes(b"abc")


def test_an_object_is_replaced_only_in_the_state_that_was_seen(s3: str) -> None:
    path = f"{s3.removeprefix('s3://')}/P"
    assert buckets.read(path) is None
    assert buckets.replace(path, b"1", None)
    assert not buckets.replace(path, b"2", None)
    content, seen = buckets.read(path) or (b"", buckets.Version(0, ""))
    assert content == b"1"
    assert buckets.replace(path, b"3", seen)
    assert not buckets.replace(path, b"4", seen)
    assert not buckets.replace(f"{path}-other", b"4", seen)
    assert (buckets.read(path) or (b"",))[0] == b"3"


@pytest.fixture
def usual_configuration(s3_endpoint: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose ``~/.aws/config`` alone says where the bucket is, and with which keys."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    config = tmp_path / ".aws" / "config"
    keys = "aws_access_key_id = test\naws_secret_access_key = test\n"
    config.write_text(
        f"[default]\nregion = eu-west-1\n{keys}endpoint_url = {s3_endpoint}\n"
        f"[profile far]\nregion = ap-south-1\n{keys}services = near\n"
        f"[services near]\ns3 =\n  endpoint_url = {s3_endpoint}\n"
    )
    return config


def test_the_usual_configuration_is_enough(usual_configuration: Path, s3: str) -> None:
    store = Store.open(f"{s3}/f")
    store.write_bytes(b"1")
    assert store.read_bytes() == b"1"
    assert store.fs.region == "eu-west-1"


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_PROFILE": "far"}, "ap-south-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"AWS_DEFAULT_REGION": "eu-west-2", "AWS_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_PROFILE": "far", "AWS_REGION": "eu-west-3"}, "eu-west-3"),
    ],
)
def test_variables_win_over_the_profile(
    usual_configuration: Path,
    s3: str,
    variables: dict[str, str],
    region: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = Store.open(f"{s3}/f")
    assert store.fs.region == region
    store.write_bytes(b"1")
    assert store.read_bytes() == b"1"


def test_the_endpoint_for_s3_wins_over_the_general_one(
    s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    (Store.open(s3) / "f").write_bytes(b"1")


def test_without_an_endpoint_it_is_awss_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    client = s3_client._client(s3_client.environment())
    assert (client.region, client.endpoint) == ("us-east-1", None)


def test_a_profile_that_is_not_there_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"nobody.*~/\.aws"):
        Store.open(s3)
