"""Buckets as they fail: throttling, denial, broken answers, expired tokens; seeded, on a protocol server."""

from __future__ import annotations

import time
from pathlib import Path

import boto3
import pytest

from engine.errors import StorageError, UserError
from engine.storage import s3 as buckets
from engine.storage.s3_client import DENIED_WAITS_S
from engine.storage.store import Store
from tests.support.corpora import jsonl, run_import
from tests.support.s3_proxy import Fault, S3Proxy

MIB = 1 << 20


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of boto3's tries and ours, which take no time here."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def use(folder: Store, tmp_path: Path) -> None:
    """Do all that there is to do with a bucket, and check what comes of it."""
    large = bytes(range(256)) * (20 * MIB // 256)
    contents = {f"f{n}": f"{n}".encode() * 100 for n in range(8)} | {"large": large}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    assert {file.name: file.read_bytes() for file in folder.files()} == contents
    assert list(buckets.versions(folder.path)) == sorted(f"{folder.path}/{name}" for name in contents)
    for name, content in contents.items():
        copy = (folder / name).local_copy(tmp_path / "cache")
        assert copy.read_bytes() == content
        assert (folder / name).size() == len(content)
    pointer = folder / "CURRENT"
    for n in range(4):
        before = None if n == 0 else b"%d" % (n - 1)
        assert not pointer.replace_bytes(b"x", b"another")
        assert pointer.replace_bytes(b"%d" % n, before)
    assert pointer.read_if_there() == b"3"
    (folder / "f0").delete()
    assert not (folder / "f0").exists()
    folder.delete()
    assert folder.files() == []


FAULTS = {
    "throttled": Fault(503, "SlowDown", chance=0.2),
    "server error": Fault(500, "InternalError", chance=0.2),
    "connection ended": Fault(0, chance=0.1),
    "answer lost": Fault(after=True, chance=0.1),
    "denied now and then": Fault(403, "AccessDenied", chance=0.05, matches="^(HEAD|GET|PUT)"),
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", FAULTS)
def test_what_passes_is_tried_again_and_nothing_is_lost(
    s3: str, s3_proxy: S3Proxy, tmp_path: Path, kind: str, seed: int
) -> None:
    s3_proxy.reseed(seed)
    s3_proxy.faults = [FAULTS[kind]]
    use(Store.open(f"{s3}/w"), tmp_path)
    assert s3_proxy.happened() > 1


def test_an_import_under_faults_is_the_import(s3: str, s3_proxy: S3Proxy, tmp_path: Path) -> None:
    rows = [{"entity": "iron", "sentence": f"We know iron {n}.", "image_bytes": "QQ=="} for n in range(20)]
    source = jsonl(tmp_path / "a.jsonl", rows)
    wanted = run_import(tmp_path / "w", source, "jsonl")
    s3_proxy.faults = [FAULTS["throttled"], FAULTS["answer lost"]]
    got = run_import(f"{s3}/w", source, "jsonl")
    assert got == wanted
    assert s3_proxy.happened() > 3


def test_a_conditional_write_whose_answer_was_lost_was_written(s3: str, s3_proxy: S3Proxy) -> None:
    """It is sent again, and the server refuses it, as the object is no longer in the state before."""
    pointer = Store.open(f"{s3}/w/CURRENT")
    for content, before in ((b"1", None), (b"2", b"1")):
        s3_proxy.faults = [Fault(after=True, matches="^PUT", at_most=1)]
        s3_proxy.forget()
        assert pointer.replace_bytes(content, before)
        assert s3_proxy.happened() == 1
        assert len(s3_proxy.asked("PUT", "CURRENT")) == 2
    assert pointer.read_bytes() == b"2"
    assert not pointer.replace_bytes(b"2", b"1"), "of another one that wrote the same"


def test_a_conditional_write_beside_another_is_sent_again(s3: str, s3_proxy: S3Proxy) -> None:
    s3_proxy.faults = [Fault(409, "ConditionalRequestConflict", matches="^PUT", at_most=2)]
    assert Store.open(f"{s3}/w/CURRENT").replace_bytes(b"1", None)
    s3_proxy.faults = [Fault(409, "ConditionalRequestConflict", matches="^PUT")]
    assert not Store.open(f"{s3}/w/CURRENT").replace_bytes(b"2", b"1")


BROKEN = {"cut": Fault(cut=0.5, matches="^GET .*/f", at_most=2)}
BROKEN |= {"another bit": Fault(flipped=True, matches="^GET .*/f", at_most=2)}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_answer_that_is_not_the_object_is_asked_for_again(
    s3: str, s3_proxy: S3Proxy, tmp_path: Path, kind: str
) -> None:
    file = Store.open(f"{s3}/w/f")
    content = bytes(range(256)) * 4096
    file.write_bytes(content)
    for reading in (file.read_if_there, lambda: file.local_copy(tmp_path).read_bytes()):
        s3_proxy.faults = [BROKEN[kind]]
        s3_proxy.forget()
        assert reading() == content
        assert s3_proxy.happened() == 2


@pytest.mark.parametrize("fault", [BROKEN["cut"], Fault(503, "SlowDown", matches="^GET .*/f", at_most=2)])
def test_a_stream_asks_again(s3: str, s3_proxy: S3Proxy, fault: Fault) -> None:
    """Also for less than the error's text has bytes, at which pyarrow's own gives up."""
    file = Store.open(f"{s3}/w/f")
    content = bytes(range(256)) * 4096
    file.write_bytes(content)
    for place, size in ((0, None), (len(content) - 8, 8)):
        s3_proxy.faults = [fault]
        s3_proxy.forget()
        with file.open_input() as stream:
            stream.seek(place)
            assert stream.read(size) == content[place:]
            assert stream.size() == len(content)
        assert s3_proxy.happened() == fault.at_most


def test_what_goes_on_being_refused_is_said_with_the_right_and_the_way_out(
    s3: str, s3_proxy: S3Proxy, tmp_path: Path, waited: list[float]
) -> None:
    folder = Store.open(f"{s3}/w")
    (folder / "f").write_bytes(b"1")
    waited.clear()
    refused = Fault(403, "AccessDenied")
    asked = {
        "s3:PutObject": lambda: (folder / "g").write_bytes(b"1"),
        "s3:DeleteObject": (folder / "f").delete,
        "s3:ListBucket": lambda: buckets.versions(folder.path),
        "s3:GetObject": (folder / "f").read_if_there,
    }
    matches = {"s3:PutObject": "^PUT", "s3:DeleteObject": "^DELETE", "s3:ListBucket": "^GET .*list-type"}
    for right, ask in asked.items():
        s3_proxy.faults = [Fault(403, "AccessDenied", matches=matches.get(right, "^GET .*/w/f"))]
        with pytest.raises(StorageError, match=rf"{s3}/w.* needs the right {right}.*give this account"):
            ask()
    assert [wait for wait in waited if wait in DENIED_WAITS_S] == [*DENIED_WAITS_S] * 4
    s3_proxy.faults = [refused]
    for through_pyarrow in (folder.files, (folder / "f").open_input, (folder / "f").exists):
        with pytest.raises(UserError, match=rf"{s3}/w.*access is denied.*right s3:"):
            through_pyarrow()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(503, "SlowDown"), "503 SlowDown.*fewer --workers.*AWS_MAX_ATTEMPTS"),
        (Fault(500, "InternalError"), "the server of the bucket fails.*again later"),
        (Fault(403, "InvalidAccessKeyId"), "keys are not known there.*AWS_ACCESS_KEY_ID"),
        (Fault(403, "SignatureDoesNotMatch"), "secret key is another one.*AWS_SECRET_ACCESS_KEY"),
        (Fault(400, "ExpiredToken"), "session token has expired.*aws sso login"),
        (Fault(403, "RequestTimeTooSkewed"), "clock is wrong"),
        (Fault(507, "XMinioStorageFull"), "bucket is full.*seedset clean"),
    ],
)
def test_what_does_not_pass_is_named_with_the_way_out(
    s3: str, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, fault: Fault, message: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    file = Store.open(f"{s3}/w/f")
    s3_proxy.faults = [fault]
    with pytest.raises(StorageError, match=rf"{s3}/w/f: .*{message}"):
        file.write_bytes(b"1")
    with pytest.raises(StorageError, match=rf"{s3}/w/f: .*{message}"):
        file.read_if_there()


def test_a_bucket_that_is_not_there_is_named(s3: str, s3_proxy: S3Proxy) -> None:
    with pytest.raises(
        StorageError, match=r"s3://none-of-this-name: there is no such bucket; check the bucket's name"
    ):
        Store.open("s3://none-of-this-name/w")


def test_without_the_right_to_list_the_first_word_says_so(s3: str, s3_proxy: S3Proxy) -> None:
    s3_proxy.faults = [Fault(403, "AccessDenied", matches=r"^HEAD /[^/]+$|list-type")]
    with pytest.raises(StorageError, match=rf"{s3}/w: .*right s3:ListBucket .*give this account"):
        Store.open(f"{s3}/w")


def test_a_right_to_list_below_a_folder_alone_is_enough(s3: str, s3_proxy: S3Proxy, tmp_path: Path) -> None:
    s3_proxy.faults = [Fault(403, "AccessDenied", matches=r"^HEAD /[^/]+$|list-type.*prefix=(?!w(/|&|$))")]
    use(Store.open(f"{s3}/w"), tmp_path)
    with pytest.raises(UserError, match="s3:ListBucket"):
        Store.open(f"{s3}/other").files()


def test_keys_that_expire_are_read_anew(
    s3: str, s3_proxy: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a helper on the machine writes them (SSO, a vault), while a job runs."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".aws" / "config"
    file.parent.mkdir()

    def keys(name: str) -> None:
        file.write_text(
            f"[default]\naws_access_key_id = {name}\naws_secret_access_key = s\naws_session_token = {name}\n"
        )

    keys("FIRST")
    folder = Store.open(f"{s3}/w")
    (folder / "f").write_bytes(b"1")
    assert (folder / "f").read_bytes() == b"1"
    s3_proxy.faults = [Fault(400, "ExpiredToken", key="FIRST")]
    with pytest.raises(StorageError, match="session token has expired"):
        (folder / "f").write_bytes(b"2")
    with pytest.raises(StorageError, match="session token has expired"):
        (folder / "f").read_bytes()
    keys("SECOND")
    assert (folder / "f").read_bytes() == b"1", "the store was opened with the first keys"
    (folder / "f").write_bytes(b"2")
    assert folder.files()[0].read_bytes() == b"2"


def test_an_endpoint_is_asked_by_path(
    s3: str, s3_proxy: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket's name before a host's is known to no name server but AWS'."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("no_proxy", "localhost")
    use(Store.open(f"{s3}/w"), tmp_path)
    bucket = s3.removeprefix("s3://")
    assert s3_proxy.requests
    assert all(one.path.startswith(f"/{bucket}") for one in s3_proxy.requests)
    assert all(one.headers["host"].startswith("localhost:") for one in s3_proxy.requests)


def test_what_is_written_has_a_checksum(s3: str, s3_proxy: S3Proxy) -> None:
    Store.open(f"{s3}/small").write_bytes(b"1")
    Store.open(f"{s3}/large").write_bytes(b"1" * 20 * MIB)
    puts = s3_proxy.asked("PUT")
    assert len(puts) == 1 + 3, "the large one in parts"
    for one in puts:
        assert any(name.startswith("x-amz-checksum-") or name == "x-amz-trailer" for name in one.headers)


def left_upload(s3: str, key: str) -> None:
    """What a writer leaves that was killed in the middle of a large object."""
    client = boto3.client("s3")
    bucket = s3.removeprefix("s3://")
    begun = client.create_multipart_upload(Bucket=bucket, Key=key)
    client.upload_part(Bucket=bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * MIB)


def test_uploads_that_a_killed_writer_left_are_found_and_given_up(s3: str) -> None:
    for key in ("w/large", "other/large"):
        left_upload(s3, key)
    folder = Store.open(f"{s3}/w")
    (one,) = buckets.unfinished_uploads(folder.path)
    assert one.path == f"{folder.path}/large"
    assert 0 < one.begun <= time.time()
    assert folder.files() == []
    buckets.give_up_upload(one)
    buckets.give_up_upload(one)  # somebody else was quicker
    assert buckets.unfinished_uploads(folder.path) == []
    assert len(buckets.unfinished_uploads(Store.open(f"{s3}/other").path)) == 1


def test_a_writer_that_fails_gives_its_upload_up(s3: str, s3_proxy: S3Proxy) -> None:
    s3_proxy.faults = [Fault(403, "AccessDenied", matches="partNumber=2")]
    with pytest.raises(StorageError, match=r"UploadPart needs the right s3:PutObject"):
        Store.open(f"{s3}/w/large").write_bytes(b"1" * 20 * MIB)
    assert buckets.unfinished_uploads(Store.open(f"{s3}/w").path) == []
    assert not Store.open(f"{s3}/w/large").exists()
