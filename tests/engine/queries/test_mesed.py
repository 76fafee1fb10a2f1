"""MESED's query files: their ids go through names to ours, and every mistake has a place and a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import FormatError, QueryError
from engine.queries.formats import QuerySet, read_queries
from engine.storage.store import Store
from engine.vocabulary import Vocabulary

WORDS = Vocabulary(["argon", "copper", "Red Oak", "iron", "zinc"], [[], [], [], ["Fe"], []])
"""A vocabulary in another order than the ids below."""
IDS = "Fe\t0\ncopper\t1\nzinc\t2\nArgon\t3\nRed Oak\t4\nsteel\t9\n"


def mesed(folder: Path, queries: str = "0 1\n\n  2\t0 \nEXIT\n4\n", truth: str | None = None) -> Path:
    (folder / "query").mkdir(parents=True)
    (folder / "query/metals.txt").write_text(queries)
    (folder / "entity2id.txt").write_text(IDS)
    if truth is not None:
        (folder / "gt").mkdir()
        (folder / "gt/metals.txt").write_text(truth)
    return folder


def read(path: Path) -> QuerySet:
    return read_queries(Store.open(path), WORDS)


def refusals(found: QuerySet) -> list[tuple[str, int, str]]:
    return [(r.source.rsplit("/", 1)[-1], r.position, r.reason) for r in found.refused]


def test_files_that_would_be_passed_over_are_named(tmp_path: Path) -> None:
    (tmp_path / "query/deep").mkdir(parents=True)
    (tmp_path / "entity2id.txt").write_text("iron\t0\n")
    (tmp_path / "query/a.txt").write_text("0\n")
    (tmp_path / "query/deep/b.txt").write_text("0\n")
    with pytest.raises(FormatError, match=r"not all of it would be read: deep/b.txt\. Queries in MESED's"):
        read_queries(Store.open(tmp_path), Vocabulary(["iron"]))
    (tmp_path / "query/deep/b.txt").unlink()
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/a.txt").symlink_to("gone")
    with pytest.raises(FormatError, match=r"gt/a.txt: a link to gone, where nothing is"):
        read_queries(Store.open(tmp_path), Vocabulary(["iron"]))


def test_ids_become_names_and_names_our_ids(tmp_path: Path) -> None:
    truth = "0\tiron\t1\n1\tcopper\t1\n2\tzinc\t1\n3\tArgon\t0\n9\tsteel\t1\n4\tOak, red\t0.5\n"
    source = mesed(tmp_path / "m", truth=truth)
    found = read(source)
    assert [q.query.id for q in found.queries] == ["metals-0", "metals-1"]
    assert {q.label for q in found.queries} == {"metals"}
    assert [q.query.positive for q in found.queries] == [(3, 1), (4, 3)]
    assert [q.positive.ids for q in found.queries] == [{4, 2}, {1, 2}], "seeds are no truth"
    assert all(q.positive.missing == ("steel",) and q.query.negative == () for q in found.queries)
    assert (found.refused, found.missing) == ([], 2)
    for place in ("query", "query/metals.txt"):
        assert read(source / place).digest == found.digest


def test_a_folder_named_directly_and_everything_in_one_folder(tmp_path: Path) -> None:
    source = mesed(tmp_path / "m", truth="2\tzinc\t1\n")
    (source / "query").rename(source / "query_seed=5")
    beside = read(source / "query_seed=5")
    assert [q.positive.ids for q in beside.queries] == [{4}, set()]
    for file in [*source.glob("query_seed=5/*"), source / "entity2id.txt"]:
        file.rename(tmp_path / file.name)
    (source / "gt").rename(tmp_path / "gt")
    assert [q.query.id for q in read(tmp_path).queries] == ["metals-0", "metals-1"]
    assert read(tmp_path).queries[0].positive.ids == {4}


def test_without_truth_there_are_queries(tmp_path: Path) -> None:
    found = read(mesed(tmp_path / "m"))
    assert [q.positive.size for q in found.queries] == [0, 0]
    assert not found.refused


def test_bad_queries_are_refused_alone_and_keep_their_number(tmp_path: Path) -> None:
    found = read(mesed(tmp_path / "m", "0 1\n0 x\n7\n-1\n9 0\n" + "1 " * 3 + "\n2"))
    assert [q.query.id for q in found.queries] == ["metals-0", "metals-5", "metals-6"]
    assert found.queries[1].query.positive == (1,)
    assert refusals(found)[:3] == [
        ("metals.txt", 2, "query 'metals-1': an id must be a whole number, not 'x'"),
        ("metals.txt", 3, "query 'metals-2': id 7 is in no usable line of entity2id.txt"),
        ("metals.txt", 4, "query 'metals-3': an id must be a whole number, not '-1'"),
    ]
    assert refusals(found)[3][2].startswith("query 'metals-4': unknown entity 'steel'")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 zinc 1", "a line must be id TAB name TAB relevance"),
        ("2\tzinc", "a line must be id TAB name TAB relevance"),
        ("2\tzinc\tyes", "a line must be id TAB name TAB relevance"),
        ("2\tzinc\tnan", "a line must be id TAB name TAB relevance"),
        ("x\tzinc\t1", "an id must be a whole number, not 'x'"),
        ("5\tzinc\t1", "id 5 is in no usable line of entity2id.txt"),
        ("2\tcopper\t1", "'copper' has the id 1 in entity2id.txt, not 2"),
    ],
)
def test_half_a_truth_is_none(tmp_path: Path, line: str, reason: str) -> None:
    found = read(mesed(tmp_path / "m", truth=f"1\tcopper\t1\n{line}\n3\targon\t1\n"))
    assert len(found.queries) == 2
    assert [q.positive.size for q in found.queries] == [0, 0]
    assert refusals(found) == [("metals.txt", 2, reason)]
    assert found.refused[0].source.endswith("/gt/metals.txt")


def test_wrong_lines_of_ids_are_refused_once_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    source = mesed(tmp_path / "m")
    (source / "query/other.txt").write_bytes(b"0 1\n\xff\n")
    (source / "entity2id.txt").write_text(IDS + "iron 17\n")
    found = read(source)
    assert [q.query.id for q in found.queries] == ["metals-0", "metals-1", "other-0"]
    assert refusals(found) == [
        ("entity2id.txt", 7, "a line must be name TAB id"),
        ("other.txt", 2, "query 'other-1': not valid UTF-8 at byte 4 of the file"),
    ]


def test_mistakes_that_leave_no_query(tmp_path: Path) -> None:
    source = mesed(tmp_path / "m")
    (source / "query/metals.txt").write_text("EXIT\n")
    with pytest.raises(FormatError, match="holds no query"):
        read(source)
    (source / "query/metals.txt").write_text("0 1\n")
    (source / "entity2id.txt").unlink()
    with pytest.raises(QueryError, match=r"metals.txt:0: no entity2id.txt in the folder or beside it"):
        read(source)
    (source / "query/metals.txt").unlink()
    with pytest.raises(FormatError, match=r"holds no query file; .* or, in MESED's layout, .txt"):
        read(source)


def test_texts_beside_other_query_files_are_not_read(tmp_path: Path) -> None:
    source = mesed(tmp_path / "m")
    (source / "query/q.jsonl").write_text('{"id": "q", "positive": ["iron"]}\n')
    assert [q.query.id for q in read(source).queries] == ["q"]
