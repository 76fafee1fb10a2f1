"""The file of the audit log: whole lines within its limits, also on a full disk, and found again."""

from __future__ import annotations

import json
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from engine.errors import StorageError
from serve.audit import log
from serve.audit.entries import MAX_ENTRY_BYTES, GivenTime, Wanted, line_of
from serve.audit.log import AuditFile, read_entries

START = datetime(2026, 11, 30, tzinfo=UTC)


def entry(number: int, **more: Any) -> dict[str, Any]:
    at = START + timedelta(seconds=number)
    return {
        "time": at.isoformat(timespec="microseconds"),
        "event": "asked",
        "request_id": str(number),
        **more,
    }


def ids(found: dict[str, Any]) -> list[str]:
    return [one.get("request_id", one["event"]) for one in found["entries"]]


@contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """Let no file of this process grow above a size: a write ends within, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_entries_are_found_newest_first_by_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    file = AuditFile(path, 1 << 20, 3)
    people = [
        entry(n, who="anna" if n % 2 else "bob", event="curated" if n % 5 == 0 else "asked")
        for n in range(20)
    ]
    assert file.append([line_of(one) for one in people]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ids(read_entries(path, Wanted(limit=3))) == ["19", "18", "17"]
    assert ids(read_entries(path, Wanted(limit=3, offset=18))) == ["1", "0"]
    assert ids(read_entries(path, Wanted(who="anna", event="curated"))) == ["15", "5"]
    assert read_entries(path, Wanted(request_id="7"))["entries"] == [people[7]]
    since, until = START + timedelta(seconds=3), START.replace(tzinfo=None) + timedelta(seconds=5)
    assert ids(read_entries(path, Wanted(since=since, until=until))) == ["4", "3"]
    assert read_entries(path, Wanted(limit=19))["more"]
    assert not read_entries(path, Wanted(limit=20))["more"]
    assert ids(read_entries(path, Wanted(who='"'))) == []
    for odd in (
        datetime.max,
        datetime.min,
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ):
        assert len(ids(read_entries(path, Wanted(since=odd)))) == (20 if odd.year == 1 else 0)


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(1, 200))
def test_lines_are_read_backwards_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], block: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    path.write_bytes(b"".join(line_of(entry(n, body=text)) for n, text in enumerate(texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "BLOCK", block)
        found = read_entries(path, Wanted())
    assert [one["body"] for one in reversed(found["entries"])] == texts
    assert found["broken"] == 0


def test_full_files_are_kept_up_to_their_number_and_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, 1000, 2)
    for number in range(60):
        file.append([line_of(entry(number))])
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(one.stat().st_size <= 1000 for one in tmp_path.iterdir())
    kept = ids(read_entries(path, Wanted(limit=60)))
    assert kept == [str(n) for n in range(59, 59 - len(kept), -1)]
    assert 20 < len(kept) < 40
    alone = AuditFile(tmp_path / "alone" / "audit.jsonl", 1000, 0)
    for number in range(60):
        alone.append([line_of(entry(number))])
    assert [one.name for one in (tmp_path / "alone").iterdir()] == ["audit.jsonl"]


def test_on_a_full_disk_whole_lines_stay_and_what_is_lost_is_said(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, 1 << 20, 3, clock=lambda: entry(99)["time"])
    file.append([line_of(entry(0))])
    before = path.read_bytes()
    with largest_file(len(before) + 50):  # a part of a line would fit
        assert file.append([line_of(entry(1)), line_of(entry(2))]) == 2
        assert path.read_bytes() == before
        assert file.append([line_of(entry(3))], dropped=4) == 7
        assert path.read_bytes() == before
    assert file.append([line_of(entry(4))]) == 0
    found = read_entries(path, Wanted())
    assert ids(found) == ["4", "lost", "0"]
    assert found["entries"][1] == {
        "time": entry(99)["time"],
        "event": "lost",
        "count": 7,
        "since": entry(99)["time"],
    }
    assert ids(read_entries(path, Wanted(event="lost"))) == ["lost"]


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, 1 << 20, 3)
    file.append([line_of(entry(0))])
    path.rename(tmp_path / "elsewhere")
    file.append([line_of(entry(1))])
    assert ids(read_entries(path, Wanted())) == ["1"]


def test_a_line_that_was_torn_is_counted_and_those_after_it_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line_of(entry(0)) + line_of(entry(1))[:20])
    AuditFile(path, 1 << 20, 3).append([line_of(entry(2))])
    found = read_entries(path, Wanted())
    assert (ids(found), found["broken"]) == (["2", "0"], 1)


def test_a_long_body_is_cut_and_says_so() -> None:
    short, long = entry(0, body={"text": "x" * 100}), entry(1, body={"text": "\n" * MAX_ENTRY_BYTES})
    assert json.loads(line_of(short)) == short
    told = json.loads(line_of(long))
    assert told["cut"]
    assert (type(told["body"]), len(told["body"])) == (str, MAX_ENTRY_BYTES)
    assert line_of(long).count(b"\n") == 1


def test_a_file_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/audit\.jsonl: the audit log cannot be opened .*--audit"):
        AuditFile(tmp_path / "file" / "audit.jsonl", 1 << 20, 3)
    with pytest.raises(StorageError, match="no such audit log"):
        read_entries(tmp_path / "none", Wanted())


def test_a_time_is_a_date_and_no_number() -> None:
    """A number might be seconds or milliseconds, and is not in the form that the API's document tells."""
    time = TypeAdapter(GivenTime)
    assert time.validate_python("2026-01-31") == datetime(2026, 1, 31)
    for number in ("1764500000", "4.5e-141", "nan", 3):
        with pytest.raises(ValidationError, match="a number is no time"):
            time.validate_python(number)
