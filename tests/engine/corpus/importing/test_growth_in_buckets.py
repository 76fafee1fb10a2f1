"""A corpus in a bucket grows by what is new: nothing else is written, and nothing that is needed goes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from engine.corpus.importing import writer
from engine.errors import StorageError
from engine.storage import corpora
from engine.storage import s3 as buckets
from engine.storage.removal import carry_out
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.steps import image_features
from jobs.steps.cleaning import plan_cleaning
from tests.support.corpora import Imported, jsonl, run_import
from tests.support.kills import Killed, kill_at_upload
from tests.support.s3_proxy import S3Proxy

NAMES = ("Oslo", "Rome", "Lima")


def row(name: str, day: int, **more: object) -> dict[str, Any]:
    return {"entity": name, "sentence": f"We saw {name} on day {day}.", **more}


def image(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


@pytest.fixture(autouse=True)
def parts_of_four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 4)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Ten parts, three images, a refused record."""
    rows = [row(NAMES[n % 3], n, image_bytes=image(str(n % 3))) for n in range(40)]
    return jsonl(tmp_path / "first.jsonl", [*rows, {"entity": "Oslo", "sentence": "Of no one."}])


def same(got: Imported, wanted: Imported) -> bool:
    """Whether two corpora hold the same, whatever their sources are called."""
    quarantines = [sorted(map(json.dumps, one.quarantine)) for one in (got, wanted)]
    manifests = [one.manifest.model_dump(exclude={"source", "files"}) for one in (got, wanted)]
    return (
        got.mentions == wanted.mentions
        and got.entities == wanted.entities
        and quarantines[0] == quarantines[1]
        and manifests[0] == manifests[1]
    )


def test_an_append_writes_what_is_new(s3: str, first: Path, tmp_path: Path, s3_proxy: S3Proxy) -> None:
    for place in (f"{s3}/w", str(tmp_path / "w")):
        run_import(place, first, "jsonl")
    there = row("Rome", 1, image_bytes=image("1"))
    more = jsonl(tmp_path / "more.jsonl", [row("Oslo", 99, image_bytes=image("1")), row("Rome", 1), there])
    whole = sum(one.sent for one in s3_proxy.asked("PUT"))
    s3_proxy.requests.clear()
    grown = run_import(f"{s3}/w", more, "jsonl", append=True)
    assert same(grown, run_import(tmp_path / "w", more, "jsonl", append=True))
    assert grown.manifest.parts == [4] * 10 + [2]
    before = next(place for place, one in enumerate(s3_proxy.requests) if one.method == "PUT")
    got = [one.path.rpartition("/")[2] for one in s3_proxy.requests[:before] if one.method == "GET"]
    parts = {name for name in got if name.startswith("part-") and name.endswith(".parquet")}
    assert parts == {"part-00000.parquet"}, "the one that holds what is known already"
    assert sorted(name for name in got if name.endswith(".keys")) == [f"part-{n:05}.keys" for n in range(10)]
    writes = [one.path.rpartition("/")[2] for one in s3_proxy.asked("PUT")]
    assert sorted(writes) == [
        "CURRENT",
        "kept.json",
        "manifest.json",
        "part-00010.keys",
        "part-00010.parquet",
    ]
    assert sum(one.sent for one in s3_proxy.asked("PUT")) < whole / 2
    assert s3_proxy.asked("POST") == []
    pointer = s3_proxy.asked("PUT", "CURRENT$")[0]
    assert "if-match" in pointer.headers, "a conditional write"
    addresses = {m["image"] for m in grown.mentions if m["image"]}
    images = [Workspace.open(f"{s3}/w").image(address).read_bytes() for address in addresses]
    assert sorted(images) == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({"append": True}, {"entities.parquet", "part-00010.parquet", "new.jsonl.jsonl"}),
        ({"update": True}, {"entities.parquet", "part-00010.parquet", "new.jsonl.jsonl"}),
        # Of days 0 to 5 those of Oslo and Rome stay: of the first two parts three and one of four.
        (
            {"update": True, "remove_missing": True},
            {"entities.parquet", "part-00000.parquet", "part-00001.parquet", "part-00010.parquet"},
        ),
    ],
)
def test_it_holds_what_it_would_on_a_disk(
    s3: str, first: Path, tmp_path: Path, s3_proxy: S3Proxy, settings: dict[str, bool], written: set[str]
) -> None:
    days = [row(NAMES[n % 3], n, image_bytes=image(str(n % 3))) for n in range(6) if n % 3 < 2]
    new = [row("Kyiv", 1, image_bytes=image("k"), aliases=["Kiev"]), "{", row("Oslo", 0)]
    more = jsonl(tmp_path / "new.jsonl", [*days, *new][2 if "remove_missing" not in settings else 0 :])
    places = (f"{s3}/w", str(tmp_path / "w"))
    for place in places:
        run_import(place, first, "jsonl")
    s3_proxy.requests.clear()
    lenient = {**settings, "accept_broken_files": "remove_missing" not in settings}
    if "remove_missing" in settings:
        more.write_text("".join(one for one in more.read_text().splitlines(True) if one != "{\n"))
    got, wanted = (run_import(place, more, "jsonl", **lenient) for place in places)
    assert same(got, wanted)
    files = {one.path.rpartition("/")[2] for one in s3_proxy.asked("PUT")}
    assert written <= files
    parts = {name for name in written if name.startswith("part-")}
    with_keys = parts | {f"{Path(name).stem}.keys" for name in parts}
    assert {name for name in files if name.startswith("part-")} == with_keys


def grown(place: str, tmp_path: Path, days: range) -> Imported:
    """Append a day after another."""
    for day in days:
        more = jsonl(tmp_path / f"day-{day}.jsonl", [row("Oslo", day, image_bytes=image(f"d{day}"))])
        got = run_import(place, more, "jsonl", append=True)
    return got


def test_what_no_corpus_needs_any_more_is_removed(s3: str, first: Path, tmp_path: Path) -> None:
    place = f"{s3}/w"
    run_import(place, first, "jsonl")
    got = grown(place, tmp_path, range(100, 104))
    assert len(got.mentions) == 44
    paths = list(buckets.versions(Store.open(place).path))
    assert sum(path.endswith("/manifest.json") for path in paths) == 2, "the current one and the one before"
    for suffix in (".parquet", ".keys"):
        assert sum("/mentions/" in path and path.endswith(suffix) for path in paths) == 14
    job = Workspace.open(place)  # one that reads on while an import passes
    assert len(job.mentions()) == 14
    run_import(place, jsonl(tmp_path / "other.jsonl", [row("Oslo", 1)]), "jsonl", overwrite=True)
    assert all(part.read_bytes() for part in job.mentions())
    run_import(place, jsonl(tmp_path / "other.jsonl", [row("Oslo", 1)]), "jsonl", overwrite=True)
    left = buckets.versions(Store.open(place).path)
    assert sum("/mentions/" in path for path in left) == 4, "of two corpora a part and its keys"
    assert not [path for path in left if "/images/" in path]


def test_clean_leaves_what_a_grown_corpus_needs(s3: str, first: Path, tmp_path: Path) -> None:
    place = f"{s3}/w"
    run_import(place, first, "jsonl")
    before = grown(place, tmp_path, range(100, 104))
    workspace = Workspace.open(place)
    stale = workspace.root / "corpora" / "20200101T000000-00000000"
    (stale / "manifest.json").write_bytes(b"{}")
    (stale / "mentions/part-00000.parquet").write_bytes(b"x")
    plan = plan_cleaning(workspace, 1)
    assert [one.path for one in plan.removals] == ["corpora/20200101T000000-00000000"]
    carry_out(workspace.root, plan.removals)
    again = grown(place, tmp_path, range(103, 104))
    assert (again.mentions, again.manifest.added.known) == (before.mentions, 1)


@pytest.mark.parametrize("after", range(1, 5))
def test_a_kill_in_an_append_leaves_the_corpus_that_was_there(
    s3: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    place = f"{s3}/w"
    run_import(place, first, "jsonl")
    more = jsonl(tmp_path / "more.jsonl", [row("Oslo", 99, image_bytes=image("new"))])
    with monkeypatch.context() as patched:
        kill_at_upload(patched, lambda _, done: done == after)
        with pytest.raises(Killed):  # at kept.json, the keys, the mentions, the manifest
            run_import(place, more, "jsonl", append=True)
    assert len(Workspace.open(place).mentions()) == 10
    got = run_import(place, more, "jsonl", append=True)
    assert len(got.mentions) == 41
    assert got.manifest.counts.known == 0, "nothing twice"
    paths = list(buckets.versions(Store.open(place).path))
    assert sum(path.endswith("99.parquet") or "/images/" in path for path in paths) == 4


def test_an_append_whose_pointer_was_written_and_not_answered_keeps_its_files(
    s3: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{s3}/w"
    run_import(place, first, "jsonl")
    replace = buckets.replace

    def lost(path: str, content: bytes, expected: buckets.Version | None) -> bool:
        replace(path, content, expected)
        raise StorageError("the network fails")

    more = jsonl(tmp_path / "more.jsonl", [row("Oslo", 99)])
    with monkeypatch.context() as patched:
        patched.setattr(buckets, "replace", lost)
        with pytest.raises(StorageError, match="the network fails"):
            run_import(place, more, "jsonl", append=True)
    assert run_import(place, more, "jsonl", append=True).manifest.counts.known == 1


def test_a_list_of_kept_files_that_cannot_be_read_is_named(s3: str, first: Path, tmp_path: Path) -> None:
    place = f"{s3}/w"
    run_import(place, first, "jsonl")
    workspace = Workspace.open(place)
    (workspace.corpus / "kept.json").write_bytes(b"[1]")
    corpora._owners.cache_clear()
    with pytest.raises(StorageError, match=r"kept\.json: cannot be read; import .* with --overwrite"):
        workspace.mentions()


def test_refused_images_of_a_former_corpus_are_no_more_when_all_can_be_used(
    s3: str, first: Path, tmp_path: Path
) -> None:
    place = f"{s3}/w"
    run_import(place, first, "jsonl")
    name = f"quarantine/{image_features.QUARANTINE}"
    (Workspace.open(place).corpus / name).write_bytes(b'{"reason": "broken"}\n')
    grown(place, tmp_path, range(100, 101))
    workspace = Workspace.open(place)
    assert workspace.corpus_files("quarantine")[name].read_bytes(), "kept where it lay"
    image_features._write_quarantine(workspace, {}, {})
    assert workspace.corpus_files("quarantine")[name].read_bytes() == b""


def test_of_a_removed_entity_no_other_part_is_read(s3: str, tmp_path: Path, s3_proxy: S3Proxy) -> None:
    rows = [row(name, n, image_bytes=image(name)) for name in NAMES for n in range(4)]
    first = jsonl(tmp_path / "first.jsonl", rows)
    folder = tmp_path / "gone"
    folder.mkdir()
    jsonl(folder / "entities.jsonl", [{"name": "Rome", "removed": True}])
    jsonl(folder / "sentences.jsonl", [row("Oslo", 9)])
    for place in (f"{s3}/w", str(tmp_path / "w")):
        run_import(place, first, "jsonl")
    s3_proxy.requests.clear()
    got = run_import(f"{s3}/w", folder, "jsonl", update=True)
    before = next(place for place, one in enumerate(s3_proxy.requests) if one.method == "PUT")
    read = [one.path[-18:] for one in s3_proxy.requests[:before] if one.method == "GET"]
    assert {name for name in read if name.startswith("part-")} == {"part-00001.parquet"}
    assert same(got, run_import(tmp_path / "w", folder, "jsonl", update=True))
    assert got.manifest.counts.images == 8
    assert got.manifest.counts.removed == 4
    keys = [name[-10:] for name in Workspace.open(f"{s3}/w").corpus_files("mentions", ".keys")]
    assert keys == ["00000.keys", "00002.keys", "00003.keys"]
