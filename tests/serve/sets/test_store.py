"""The store of named sets: replay, undo, two writers, crashes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import StorageError
from serve.sets import store as store_module
from serve.sets.errors import SetChangeError, SetConflictError, SetExistsError, UnknownSetError
from serve.sets.events import ASK, CREATE, JUDGE, RENAME, UNDO, Event, replay
from serve.sets.store import FORMAT, SetStore

Json = dict[str, Any]


def judge(accept: str = "", reject: str = "", clear: str = "", bundle: str = "b") -> Json:
    """A judgement of entities that are called by one letter each."""
    accepted, rejected = ([{"name": name, "id": ord(name)} for name in names] for names in (accept, reject))
    return {"accept": accepted, "reject": rejected, "clear": list(clear), "bundle": bundle}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SetStore]:
    numbers = count()
    opened = SetStore(tmp_path / "sets.sqlite", lambda: f"2026-01-01T00:00:{next(numbers):02d}")
    yield opened
    opened.close()


def names_of(found: Json) -> tuple[list[str], list[str]]:
    return [m["name"] for m in found["accepted"]], [m["name"] for m in found["rejected"]]


def test_a_set_says_who_accepted_what_when_and_why(store: SetStore) -> None:
    made = store.create("Monarchies", {"positive": ["a"]}, "ada")
    done = store.append(made["id"], 1, JUDGE, judge("ab", "c"), "bob", "all have kings")
    assert (done["version"], done["undo"], done["redo"]) == (2, 2, None)
    found = store.read(made["id"])
    assert names_of(found) == (["a", "b"], ["c"])
    assert found["counts"] == {"accepted": 2, "rejected": 1}
    assert found["question"] == {"positive": ["a"]}
    about = {"name": "a", "id": 97, "bundle": "b", "by": "bob", "note": "all have kings", "version": 2}
    assert found["accepted"][0] == about | {"at": "2026-01-01T00:00:01"}
    assert (found["created_by"], found["changed_by"]) == ("ada", "bob")
    assert store.listing(0, 10)["sets"][0]["name"] == "Monarchies"


def test_undo_is_an_event_and_holds_across_sessions(store: SetStore, tmp_path: Path) -> None:
    made = store.create("s", None, "ada")["id"]
    store.append(made, 1, JUDGE, judge("a"), "ada")
    store.append(made, 2, JUDGE, judge("b", "a"), "ada")
    later = SetStore(tmp_path / "sets.sqlite")
    done = later.append(made, 3, UNDO, {"undo": 3}, "bob")
    assert (done["undo"], done["redo"]) == (2, 4)
    assert names_of(store.read(made)) == (["a"], [])
    done = later.append(made, 4, UNDO, {"undo": 2}, "bob")
    assert (done["undo"], done["redo"]) == (None, 5)
    assert names_of(store.read(made)) == ([], [])
    done = later.append(made, 5, UNDO, {"undo": done["redo"]}, "bob")
    done = later.append(made, 6, UNDO, {"undo": done["redo"]}, "bob")
    assert (done["undo"], done["redo"]) == (3, None)
    assert names_of(store.read(made)) == (["b"], ["a"])
    for version in (1, 4, 99):
        with pytest.raises(SetChangeError, match="undo"):
            later.append(made, 7, UNDO, {"undo": version}, "bob")
    assert [event["undone"] for event in store.events(made, 0, 99)["events"]] == [False] * 3 + [True] * 2 + [
        False
    ] * 2
    later.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just(JUDGE),
            st.sets(st.sampled_from("abcd")),
            st.sets(st.sampled_from("abcd")),
            st.sets(st.sampled_from("abcd")),
        ),
        st.tuples(st.just(UNDO), st.integers(1, 12)),
        st.tuples(st.just(RENAME), st.sampled_from(["one", "two", "ONE"])),
        st.tuples(st.just(ASK), st.integers(0, 3)),
    ),
    max_size=12,
)


def content_of(step: Any) -> Json:
    kind, *given_ = step
    if kind == JUDGE:
        accept, reject, clear = given_
        return judge(
            "".join(sorted(accept)),
            "".join(sorted(reject - accept)),
            "".join(sorted(clear - accept - reject)),
        )
    return {UNDO: {"undo": given_[0]}, RENAME: {"name": given_[0]}, ASK: {"question": {"top_k": given_[0]}}}[
        kind
    ]


@given(STEPS)
@settings(max_examples=int(os.environ.get("SEEDSET_TEST_EXAMPLES", "25")))
def test_any_events_and_undos_replay_to_what_the_tables_hold(steps: list[Any]) -> None:
    store = SetStore(Path(":memory:"))
    made = store.create("one", None, "ada")["id"]
    events, version = [Event(1, "", "", CREATE, {"name": "one", "question": None})], 1
    for step in steps:
        before = store.read(made)
        try:
            done = store.append(made, version, step[0], content_of(step), "ada")
        except SetChangeError:
            assert store.read(made) == before, "what is refused changes nothing"
            continue
        version = done["version"]
        events.append(Event(version, "", "", step[0], content_of(step)))
    found, expected = store.read(made), replay(events)
    assert (found["name"], found["question"]) == (expected.name, expected.question)
    ordered = sorted(expected.members.values(), key=lambda m: (m.event, m.place))
    assert names_of(found) == (
        [m.name for m in ordered if m.accepted],
        [m.name for m in ordered if not m.accepted],
    )
    assert [m["version"] for m in found["accepted"]] == [m.event for m in ordered if m.accepted]
    told = store.events(made, 0, 99)["events"]
    written = [
        Event(e["version"], e["at"], e["by"], e["change"].pop("kind"), e["change"], e["note"]) for e in told
    ]
    other = SetStore(Path(":memory:"))
    assert names_of(other.load(written)) == names_of(found), "what was exported is read again"
    store.close()
    other.close()


def test_of_two_writers_none_loses_an_event(store: SetStore, tmp_path: Path) -> None:
    made = store.create("s", None, "")["id"]
    each = 15

    def write(names: str) -> None:
        own, version = SetStore(tmp_path / "sets.sqlite"), 1
        for name in names:
            while True:
                try:
                    version = own.append(made, version, JUDGE, judge(name), name, key=name)["version"]
                    break
                except SetConflictError as error:
                    version = error.current
        own.close()

    sides = ["".join(chr(start + i) for i in range(each)) for start in (65, 97)]
    threads = [threading.Thread(target=write, args=(names,)) for names in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.read(made)
    assert found["version"] == 1 + 2 * each
    assert sorted(names_of(found)[0]) == sorted("".join(sides))


def test_a_change_of_an_older_version_is_refused_with_the_newer_one(store: SetStore) -> None:
    made = store.create("s", None, "")["id"]
    store.append(made, 1, JUDGE, judge("a"), "ada")
    with pytest.raises(SetConflictError) as caught:
        store.append(made, 1, JUDGE, judge("b"), "bob")
    assert (caught.value.given, caught.value.current) == (1, 2)
    with pytest.raises(SetConflictError):
        store.delete(made, 1)
    assert names_of(store.read(made)) == (["a"], [])


def test_an_event_that_is_sent_twice_is_written_once(store: SetStore) -> None:
    made = store.create("s", None, "")["id"]
    first = store.append(made, 1, JUDGE, judge("a"), "ada", key="k1")
    store.append(made, 2, JUDGE, judge("b"), "bob", key="k2")
    again = store.append(made, 1, JUDGE, judge("a"), "ada", key="k1")
    assert (first["written"], again["written"], again["version"]) == (2, 2, 3)


def _die_between(path: Path, made: str) -> None:
    """Append an event, and be killed once its row is written and the members are not."""
    dying = SetStore(path)
    dying._put = lambda *_: os._exit(9)  # type: ignore[method-assign]
    dying.append(made, 1, JUDGE, judge("a"), "ada")


def test_a_killed_writer_leaves_nothing_half_and_nobody_waits_for_it(store: SetStore, tmp_path: Path) -> None:
    path, made = tmp_path / "sets.sqlite", store.create("s", None, "")["id"]
    process = multiprocessing.get_context("fork").Process(target=_die_between, args=(path, made))
    process.start()
    process.join()
    assert process.exitcode == 9
    found = store.read(made)
    assert (found["version"], names_of(found), store.events(made, 1, 9)["events"]) == (1, ([], []), [])
    assert store.append(made, 1, JUDGE, judge("b"), "bob")["version"] == 2


def test_names_of_sets_are_one_whatever_their_case(store: SetStore) -> None:
    first = store.create("Monarchies", None, "")["id"]
    with pytest.raises(SetExistsError, match="Monarchies"):
        store.create("monarchies", None, "")
    second = store.create("others", None, "")["id"]
    with pytest.raises(SetExistsError):
        store.append(second, 1, RENAME, {"name": "MONARCHIES"}, "")
    store.append(first, 1, RENAME, {"name": "kings"}, "")
    store.append(second, 1, RENAME, {"name": "Monarchies"}, "")
    with pytest.raises(SetExistsError):  # the name that the undo brings back is taken
        store.append(first, 2, UNDO, {"undo": 2}, "")
    assert store.read(first)["name"] == "kings"
    store.delete(second, 2)
    store.append(first, 2, UNDO, {"undo": 2}, "")
    with pytest.raises(UnknownSetError):
        store.read(second)
    assert store.listing(0, 9)["sets"][0]["name"] == "Monarchies"


def test_limits_are_told_and_nothing_is_written(store: SetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.create("s", None, "")["id"]
    monkeypatch.setattr(store_module, "MAX_MEMBERS", 2)
    with pytest.raises(SetChangeError, match="at most 2 entities"):
        store.append(made, 1, JUDGE, judge("ab", "c"), "")
    monkeypatch.setattr(store_module, "MAX_SETS", 1)
    with pytest.raises(SetChangeError, match="delete one"):
        store.create("t", None, "")
    monkeypatch.setattr(store_module, "MAX_EVENTS", 1)
    with pytest.raises(SetChangeError, match="begin anew"):
        store.append(made, 1, JUDGE, judge("a"), "")
    assert store.read(made)["version"] == 1


def test_on_a_full_disk_a_change_is_refused_as_that_and_later_taken(tmp_path: Path) -> None:
    """A limit of file sizes stands for the disk's end: SQLite ends the transaction by itself at both."""
    store = SetStore(tmp_path / "sets.sqlite")
    made = store.create("s", None, "")["id"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the process ends
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(
            StorageError, match=r"nothing was changed of .* \((disk I/O|database or disk)"
        ) as refused:
            store.append(made, 1, JUDGE, judge("ab"), "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert "cannot write its file of sets" in refused.value.public_message
    assert str(tmp_path) not in refused.value.public_message
    assert store.append(made, 1, JUDGE, judge("ab"), "")["version"] == 2
    store.close()


def test_a_file_of_a_newer_version_or_that_is_none_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    with pytest.raises(StorageError, match="reads 1"):
        SetStore(newer)
    broken = tmp_path / "broken.sqlite"
    broken.write_text("no database" * 100, encoding="utf-8")
    with pytest.raises(StorageError, match="--sets"):
        SetStore(broken)
