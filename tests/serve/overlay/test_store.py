"""The file of an overlay: versions, what followers read, limits, what is dropped."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.overlay.state import OverlayLayer
from engine.query import NewEntity
from serve.overlay import store as stores
from serve.overlay.encoded import dumped, loaded
from serve.overlay.follower import OverlayFollower
from serve.overlay.store import OverlayLimitError, OverlayStore
from serve.stores import LocalStore

CONTENT: dict[str, Any] = {
    "sentences": ["x"],
    "aliases": ["y"],
    "description": "",
    "attributes": {"a": ["1"]},
}
DATA = dumped(NewEntity("x", ("x",), {"mask": np.ones(3, np.float32)}, {"mask": 0.5}))


def put(store: OverlayStore, name: str, bundle: str = "b", replaces: bool = False) -> int:
    return int(store.put(name, CONTENT, replaces, "ada", bundle, DATA)["version"])


@pytest.fixture
def store(tmp_path: Path) -> OverlayStore:
    return OverlayStore(tmp_path / "overlay.sqlite")


def names(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"], one["kind"]) for one in found["entries"]]


def test_what_was_made_of_sentences_comes_back_bit_for_bit() -> None:
    vector = np.random.default_rng(0).normal(size=5).astype(np.float32)
    one = loaded("x", ("s",), dumped(NewEntity("x", ("s",), {"mask": vector}, {"joint": 0.25})))
    np.testing.assert_array_equal(one.vectors["mask"], vector)
    assert (one.name, one.sentences, one.hubness) == ("x", ("s",), {"joint": 0.25})


def test_a_follower_reads_what_is_newer_and_after_a_drop_all(store: OverlayStore) -> None:
    put(store, "one")
    since = put(store, "two")
    first = store.changes("b", -1, 0)
    assert (names(first), first["whole"]) == ([("one", "put"), ("two", "put")], True)
    assert store.changes("b", first["epoch"], since)["entries"] == []
    store.delete("one", False, "bob")
    later = store.changes("b", first["epoch"], since)
    assert (names(later), later["whole"]) == ([("one", "delete")], False)
    assert store.drop("c", [("two", since), ("one", 99)])["dropped"] == 1  # "one" is of another version
    again = store.changes("b", first["epoch"], later["version"])
    assert (names(again), again["whole"]) == ([("one", "delete")], True)
    assert store.version()["merged"]["entities"] == 1


def test_vectors_are_of_one_bundle_and_one_version(store: OverlayStore) -> None:
    version = put(store, "one")
    assert store.changes("b", -1, 0)["entries"][0]["data"] == DATA
    other = store.changes("c", -1, 0)
    assert other["entries"][0]["data"] is None
    assert [one["name"] for one in store.pending("c")["entries"]] == ["one"]
    store.encode("c", [("one", version, DATA), ("one", version - 1, b""), ("gone", 1, b"")])
    assert store.changes("c", other["epoch"], other["version"])["entries"][0]["data"] == DATA
    assert store.pending("c")["entries"] == []
    put(store, "one")
    assert [one["name"] for one in store.pending("c")["entries"]] == ["one"]


def test_a_name_keeps_its_slot_and_no_other_gets_it(store: OverlayStore) -> None:
    assert [store.put(name, CONTENT, False, "", "b", DATA)["slot"] for name in "abab"] == [0, 1, 0, 1]
    store.delete("a", False, "")
    assert store.put("c", CONTENT, False, "", "b", DATA)["slot"] == 2
    assert store.put("a", CONTENT, False, "", "b", DATA)["slot"] == 0


def test_there_are_limits(store: OverlayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MAX_ENTITIES", 2)
    monkeypatch.setattr(stores, "MAX_DELETED", 2)
    for name in "aba":
        put(store, name)
    with pytest.raises(OverlayLimitError, match="holds 2 added entities, as many as it may: export it"):
        put(store, "c")
    for name in "ab":
        store.delete(name, False, "")  # of added ones: no limit
        put(store, name)
        store.delete(name, False, "")
    for name in "xy":
        store.delete(name, True, "")
    with pytest.raises(OverlayLimitError, match="holds 2 deleted entities"):
        store.delete("z", True, "")
    assert store.changes("b", -1, 0)["epoch"] > 0  # those deleted again were forgotten
    assert sorted(names(store.listing(0, 9))) == [("x", "delete"), ("y", "delete")]


def test_changes_of_several_threads_have_versions_of_their_own(store: OverlayStore) -> None:
    threads = [threading.Thread(target=put, args=(store, f"n{i % 7}")) for i in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert store.version()["version"] == 20
    versions = [one["version"] for one in store.changes("b", -1, 0)["entries"]]
    assert versions == sorted(set(versions))
    assert len(versions) == 7


def test_followers_come_to_one_state_and_read_once_for_all_that_wait(tmp_path: Path) -> None:
    asked: list[str] = []
    local = LocalStore(OverlayStore, tmp_path / "overlay.sqlite")

    async def ask(operation: str, *given: Any) -> dict[str, Any]:
        asked.append(operation)
        return await local(operation, *given)

    async def go() -> None:
        base = {"known": 3}.get
        ingress = OverlayFollower(ask, "b", OverlayLayer(10), base)
        stage = OverlayFollower(ask, "b", OverlayLayer(10))
        await local("put", "new", CONTENT, False, "", "b", DATA)
        await local("put", "known", CONTENT, True, "", "b", DATA)
        states = await asyncio.gather(*(stage.at_least(2) for _ in range(5)))
        assert asked == ["changes"]
        assert len(set(map(id, states))) == 1
        assert [(i, one.name) for i, one in states[0].added.items()] == [(10, "new"), (11, "known")]
        assert states[0].deleted == ()  # queries bring them
        assert (await ingress.at_least(1)).deleted == (3,)
        await local("delete", "new", False, "")
        assert list((await stage.at_least(3)).added) == [11]
        assert asked == ["changes"] * 3
        other = OverlayFollower(ask, "c", OverlayLayer(20), base)
        state = await other.at_least(3)
        assert (dict(state.added), state.deleted, other.lacks_vectors) == ({}, (), True)

    asyncio.run(go())
