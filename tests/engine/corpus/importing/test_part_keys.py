"""Keys beside parts: what is added is what would be if every text were read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.importing import part_keys, writer
from engine.corpus.importing.known import KnownMentions
from engine.corpus.importing.part_keys import SUFFIX, PartKeys, digests_of, keys_of, read_keys
from engine.corpus.importing.writer import write_mentions
from engine.corpus.schema import MENTION_SCHEMA
from engine.errors import StorageError
from engine.storage.store import Store, sha256_of
from tests.support.corpora import jsonl, run_import

Mention = tuple[int, str, int, str | None]
"""Entity, sentence, start, image."""

MENTIONS = st.tuples(
    st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([None, "/i", "/k"])
)


def table_of(rows: list[Mention]) -> pa.Table:
    filled = [(entity, sentence, start, start + 1, image) for entity, sentence, start, image in rows]
    columns = list(zip(*filled, strict=True))
    arrays = [pa.array(c, f.type) for c, f in zip(columns, MENTION_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=MENTION_SCHEMA)


@settings(max_examples=40)
@given(
    st.lists(st.lists(MENTIONS, min_size=1, max_size=5), min_size=1, max_size=3),
    st.lists(st.tuples(MENTIONS, st.booleans()), max_size=8),
    st.sampled_from([0, 1, 255]),
    st.sets(st.integers(0, 2)),
)
def test_what_is_known_is_what_comparing_texts_says(
    parts: list[list[Mention]], asked: list[tuple[Mention, bool]], mask: int, without_keys: set[int]
) -> None:
    """Also where all keys are one, or one of two; and where some parts have none."""
    whole = part_keys._digest

    def cut(entity_id: int, sentence: str, image: str | None) -> bytes:
        digest = whole(entity_id, sentence, image)
        return bytes([digest[0] & mask]) + bytes(7) + digest[8:]

    rows = [(n, place, one) for n, part in enumerate(parts) for place, one in enumerate(part)]
    met = set[tuple[int, int]]()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_keys, "_digest", cut)
        stores, keys = [], list[PartKeys | None]()
        for number, part in enumerate(parts):
            table = table_of(part)
            stores.append(Store.open(f"{folder}/{number}.parquet"))
            pq.write_table(table, stores[-1].path)
            keys.append(None if number in without_keys else keys_of(table, digests_of(table)))
        ours = KnownMentions(stores, keys)
        for (entity, sentence, start, image), marked in asked:
            same = {
                (n, place)
                for n, place, one in rows
                if (one[0], one[1], one[3]) == (entity, sentence, image) and (not marked or one[2] == start)
            }
            assert ours.meet(entity, sentence, image, start if marked else None) is bool(same)
            met |= same
    assert ours.rows == list(map(len, parts))
    assert ours.mentioned == {one[0] for _, _, one in rows}
    for n, part in enumerate(parts):
        assert np.flatnonzero(ours.met(n)).tolist() == sorted(place for of, place in met if of == n)
        assert [ours.has_any(n, [entity]) for entity in range(3)] == [
            any(one[0] == entity for one in part) for entity in range(3)
        ]


def said(name: str, number: int) -> dict[str, str]:
    return {"entity": name, "sentence": f"We saw {name} on day {number}."}


def missing(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def turned_over(file: Path) -> None:
    """Turn one bit of a key over: without a checksum that sentence would come twice."""
    content = bytearray(file.read_bytes())
    keys = read_keys(Store.open(file), sha256_of(file.with_suffix(".parquet")))
    assert keys is not None
    content[content.index(keys.keys[:1].tobytes())] ^= 1
    file.write_bytes(content)


def of_another(file: Path) -> None:
    shutil.copy(max(file.parent.glob(f"*{SUFFIX}")), file)


@pytest.mark.parametrize("harmed", [missing, cut, turned_over, of_another])
@pytest.mark.parametrize(
    "adding", [{"append": True}, {"update": True, "remove_missing": True}], ids=["append", "whole"]
)
def test_whatever_the_files_of_keys_are_the_corpus_becomes_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harmed: Callable[[Path], None],
    adding: dict[str, bool],
) -> None:
    """Also of an earlier version, which wrote none: they are made with the first import that adds."""
    monkeypatch.setattr(writer, "PART_ROWS", 4)
    first = jsonl(tmp_path / "a.jsonl", [said(name, n) for name in ("Oslo", "Rome") for n in range(5)])
    more = jsonl(tmp_path / "b.jsonl", [said("Oslo", 4), said("Rome", 9), said("Oslo", 0), said("Lima", 1)])
    corpora = []
    for name in ("plain", "harmed"):
        run_import(tmp_path / name, first, "jsonl")
        if name == "harmed":
            harmed(tmp_path / name / f"corpus/mentions/part-00000{SUFFIX}")
            if harmed is missing:
                harmed(tmp_path / name / f"corpus/mentions/part-00001{SUFFIX}")
        grown = run_import(tmp_path / name, more, "jsonl", **adding)
        assert grown.manifest.counts.known == 2, "nothing twice"
        folder = tmp_path / name / "corpus"
        files = {str(one.relative_to(folder)): one for one in folder.rglob("*") if one.is_file()}
        corpora.append({path: one.read_bytes() for path, one in files.items()})
    assert corpora[0] == corpora[1], "every file's bytes"
    parts = {path for path in corpora[0] if path.endswith(".parquet") and path.startswith("mentions/")}
    assert {path.removesuffix(".parquet") + SUFFIX for path in parts} <= set(corpora[0])


def test_a_part_that_was_cut_is_named_though_it_has_keys(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "a.jsonl", [said("Oslo", n) for n in range(5)])
    run_import(tmp_path / "w", first, "jsonl")
    part = tmp_path / "w/corpus/mentions/part-00000.parquet"
    size = part.stat().st_size
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StorageError, match=rf"part-00000.parquet: has {size - 1} of {size} bytes; import"):
        run_import(tmp_path / "w", first, "jsonl", append=True)


def test_keys_take_a_tenth_of_what_they_stand_for(tmp_path: Path) -> None:
    """Of sentences of 100 characters, about 9 bytes each."""
    table = table_of([(n // 8, f"{n:0100}", 0, None) for n in range(8192)])
    write_mentions(table, tmp_path / "part-00000.parquet")
    size = (tmp_path / f"part-00000{SUFFIX}").stat().st_size
    assert 8 < size / len(table) < 11
