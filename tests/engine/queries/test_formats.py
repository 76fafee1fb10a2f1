import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import FormatError, QueryError
from engine.queries import files
from engine.queries.columns import QueryColumns
from engine.queries.formats import LabelledQuery, QuerySet, iter_queries, read_queries
from engine.refusals import Code
from engine.storage.store import Store
from engine.vocabulary import Vocabulary

WORDS = Vocabulary(["iron", "copper", "zinc", "helium", "neon", "argon"], [["Fe"], *[[]] * 5])


def read(path: Path) -> QuerySet:
    return read_queries(Store.open(path), WORDS)


def ultrawiki(**changes: Any) -> dict[str, Any]:
    return {
        "group_id": 3,
        "pos_seeds": ["iron", "copper"],
        "neg_seeds": ["helium"],
        "pos_gt": ["zinc"],
        "neg_gt": ["neon", "argon"],
        "pos_attrs": {"kind": "metal"},
        **changes,
    }


def test_ultrawiki_folder(tmp_path: Path) -> None:
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "metals.json").write_text(
        json.dumps([ultrawiki(query_id="m-1"), ultrawiki(), ultrawiki(), ultrawiki(group_id=4)])
    )
    (tmp_path / "query" / "gases.json").write_text(json.dumps([ultrawiki()]))
    (tmp_path / "ent2text.json").write_text("{}")  # the corpus beside it is not read
    found = read(tmp_path)
    ids = [q.query.id for q in found.queries]
    assert ids == ["gases-3-0", "m-1", "metals-3-1", "metals-3-2", "metals-4-0"]
    first = found.queries[0]
    assert (first.label, first.query.positive, first.query.negative) == ("gases", (0, 1), (3,))
    assert (first.positive.ids, first.negative.ids) == ({2}, {4, 5})
    assert found.refused == []
    assert found.missing == 0
    assert (first.query.class_name, first.query.positive_attributes) == ("gases", (("kind", ("metal",)),))
    assert first.query.negative_attributes == ()


def test_what_the_seeds_share_is_taken_in_either_spelling_and_other_forms_are_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "noble_gases.jsonl"
    forms: list[dict[str, Any]] = [
        {"pos_attrs": {"kind": ["noble", "rare", "noble"]}, "neg_attrs": {"phase": "solid", "use": []}},
        {"positive_attributes": {"kind": "noble"}, "negative_attributes": {}},
        {"pos_attrs": ["noble"], "neg_attrs": {"melts": 7}},
        {"pos_attrs": "noble", "neg_attrs": None},
    ]
    path.write_text(
        "\n".join(json.dumps({"id": str(i), "positive": ["neon"], **f}) for i, f in enumerate(forms))
    )
    found = read(path)
    assert not found.refused
    said = [(q.query.positive_attributes, q.query.negative_attributes) for q in found.queries]
    noble = (("kind", ("noble",)),)
    assert said == [
        ((("kind", ("noble", "rare")),), (("phase", ("solid",)),)),
        (noble, ()),
        ((), ()),
        ((), ()),
    ]
    assert {q.query.class_name for q in found.queries} == {"noble gases"}
    path.write_text(json.dumps({"id": "0", "positive": ["neon"]}))
    alone = read(path)
    assert alone.digest != found.digest, "another question to a method that is given what seeds share"


def test_json_lines_with_names_aliases_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    lines = [
        {"id": "a", "positive": ["Fe", 1], "negative": ["NEON"], "top_k": 7, "class": "metals"},
        {"id": 5, "positive": [0]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = read(path)
    assert [q.query.id for q in found.queries] == ["a", "5"]
    assert found.queries[0].query.positive == (0, 1)
    assert found.queries[0].query.negative == (4,)
    assert [q.query.top_k for q in found.queries] == [7, 200]
    assert [q.label for q in found.queries] == ["metals", "q"]


def test_names_with_look_alike_signs_are_the_names_also_in_the_truth(tmp_path: Path) -> None:
    record = ultrawiki(
        pos_seeds=["iron\u200b", "ｃopper"],
        pos_gt=["\u00a0zinc", "tin\u2019s", "tin's"],
        neg_gt=["ne\u00adon", "tin\u02bcs"],
    )
    path = tmp_path / "Me\u0301taux.json"
    path.write_text(json.dumps([record]))
    (one,) = read(path).queries
    assert one.query.positive == (0, 1)
    assert (one.positive.ids, one.positive.missing) == ({2}, ())
    assert (one.negative.ids, one.negative.missing) == ({4}, ("tin\u02bcs",))
    assert one.label == "M\u00e9taux"


def test_maps_and_structs_of_parquet_say_what_objects_of_json_do(tmp_path: Path) -> None:
    kinds = [[("kind", "noble")], []]
    phases = [{"phase": "gas", "use": None}, {"phase": None, "use": "light"}]
    changes = [[("Retrieve.k", 9.0)], [("Retrieve.k", 8.0), ("Retrieve.k", 9.0)]]
    columns = {
        "id": ["a", "b"],
        "positive": [["neon"], ["argon"]],
        "pos_attrs": pa.array(kinds, pa.map_(pa.string(), pa.string())),
        "neg_attrs": phases,
        "options": pa.array(changes, pa.map_(pa.string(), pa.float64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")
    found = read(tmp_path / "q.parquet")
    ((query, refused),) = zip((q.query for q in found.queries), found.refused, strict=True)
    assert query.positive_attributes == (("kind", ("noble",)),)
    assert query.negative_attributes == (("phase", ("gas",)),)
    assert query.options == (("Retrieve.k", 9),)
    assert refused.reason.startswith("options: "), "a key is given twice"


def test_an_option_that_is_null_is_not_given_in_any_format(tmp_path: Path) -> None:
    options = [
        {"Retrieve.k": 9, "SegmentRerank.length": None},
        {"Retrieve.k": None, "SegmentRerank.length": 2},
    ]
    records = [{"id": str(i), "positive": [1], "options": one} for i, one in enumerate(options)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "q.parquet")  # a row has the keys of all
    for file in ("q.jsonl", "q.parquet"):
        found = [labelled.query.options for labelled in read(tmp_path / file).queries]
        assert found == [(("Retrieve.k", 9),), (("SegmentRerank.length", 2),)]


def test_parquet_with_ids_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    rows = {"id": ["a", None], "positive": [[0, 1], [2]], "negative": [[3], None], "top_k": [5, None]}
    pq.write_table(pa.table(rows), path)
    found = read(path)
    assert [q.query.id for q in found.queries] == ["a", "q-1"]
    assert [q.query.negative for q in found.queries] == [(3,), ()]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "x", "positive": ["irn"]}', "unknown entity 'irn'; did you mean 'iron'"),
        ('{"id": "x", "positive": [17]}', "unknown entity 17"),
        ('{"id": "x", "positive": [true]}', "positive.0"),
        ('{"id": "x", "positive": []}', "at least one positive seed"),
        ('{"id": "x"}', "at least one positive seed"),
        ('{"id": "x", "positive": "iron"}', "positive: Input should be a valid list"),
        ('{"id": "x", "positive": ["iron"], "negative": ["Fe"]}', "at once"),
        ('{"id": "x", "positive": ["iron"], "top_k": 0}', "top_k is 0"),
        ('{"id": "good", "positive": ["iron"]}', "the id is taken, by q.jsonl:1"),
        ('{"id": "x", "positive": ["iron"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("17", "a line must be an object, not a number"),
        ("\udcff", "not valid UTF-8 at byte 37 of the file"),
        ('{"id": "x", "pos_seeds": ["ir\udcffon"]}', "not valid UTF-8 at byte"),
        ('{"id": "x\\ud83d", "positive": ["iron"]}', "'x\\ud83d' holds half of a surrogate pair"),
        ('{"id": "x", "class": "\\ud83d", "positive": ["iron"]}', "holds half of a surrogate pair"),
        ('{"id": "x", "positive": ["\\ud83d"]}', "unable to parse raw data as a unicode string"),
        ('{"id": "x", "positive": [NaN, null]}', "at least one positive seed"),
        ('{"id": "x", "positive": [1.5]}', "positive.0"),
        ('{"id": "x", "positive": ["iron"], "negatives": ["neon"]}', "'negatives'; did you mean negative?"),
        ('{"id": "x", "positive": ["iron"], "Negative": ["neon"]}', "'Negative'; did you mean negative?"),
        ('{"id": "x", "positive": ["iron"], "neg_seed": ["neon"]}', "'neg_seed'; did you mean neg_seeds?"),
        ('{"id": "x", "positive": ["iron"], "top-k": 3}', "'top-k'; did you mean top_k?"),
        ('{"id": "x", "positive": ["iron"], "colour": 3}', "'colour'; there are id, query_id"),
        ('{"id": "x", "positive": ["iron"], "filter": {"a": ["b"]}}', "filter is taken by `seedset expand`"),
        (
            '{"id": "x", "positive": ["iron"], "explain": true}',
            "explain is taken by `seedset expand` and over HTTP alone",
        ),
        ('{"id": "x", "positive": ["iron"], "deadline_ms": 5}', "deadline_ms is taken by"),
        ('{"id": "x", "positive": ["iron"], "method": "joint"}', "method is taken by"),
        (
            '{"id": "x", "positive": ["iron"], "pos_seeds": ["zinc"]}',
            "positive and pos_seeds are two spellings",
        ),
        ('{"id": "x", "positive": ["iron"], "positive": ["zinc"]}', "positive is given a second time"),
        ('{"positive": ["iron"], "pos_attrs": {"a": 1, "a": 2}}', "a is given a second time"),
        ('{"id": "x", "positive": ["iron"], "' + "k" * 5000 + '": 1}', "no field is called 'kkk"),
    ],
)
def test_a_query_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "q.jsonl"
    good = '{"id": "good", "positive": ["iron"]}\n'
    path.write_bytes((good + line + "\n").encode(errors="surrogateescape"))
    found = read(path)
    assert [q.query.id for q in found.queries] == ["good"]
    (refusal,) = found.refused
    assert (refusal.source, refusal.position) == (str(path), 2)
    assert reason in refusal.reason
    assert len(refusal.reason) < 300
    assert json.dumps(refusal.as_json(), ensure_ascii=False).encode()


def test_missing_values_and_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    nan = float("nan")
    records = [
        {
            "id": 5.0,
            "positive": ["iron", nan, 1.0],
            "negative": nan,
            "top_k": 7.0,
            "class": nan,
            "group_id": nan,
        },
        {"id": "b", "positive": None, "pos_seeds": ["zinc"], "pos_gt": [None, "iron"], "neg_gt": nan},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    first, second = read(path).queries
    assert (first.query.id, first.query.positive, first.query.top_k, first.label) == ("5", (0, 1), 7, "q")
    assert (second.query.positive, second.positive.ids) == ((2,), {0})
    table = pa.table({"id": [b"a", b"b"], "positive": [[b"iron"], [b"\xff"]], "top_k": [3.0, nan]})
    pq.write_table(table, tmp_path / "q.parquet")
    found = read(tmp_path / "q.parquet")
    assert [(q.query.id, q.query.positive, q.query.top_k) for q in found.queries] == [("a", (0,), 3)]
    assert [(r.position, r.reason.split(":")[0]) for r in found.refused] == [(2, "positive.0")]


def test_every_file_of_a_folder_is_read_or_named(tmp_path: Path) -> None:
    line = '{"positive": ["iron"]}\n'
    (tmp_path / "deep/class=metals").mkdir(parents=True)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints/a.jsonl").write_text(line)
    (tmp_path / "a.jsonl").write_text(line)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(f"[{line}]".encode()))
    (tmp_path / "deep/class=metals/d.jsonl").write_text(line)
    (tmp_path / "README.md").touch()
    assert [q.label for q in read(tmp_path).queries] == ["a", "b", "c", "metals"]
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(f"[{line}]".encode())[:-9])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode())[:-9])
    assert [(Path(r.source).name, r.refusal.code) for r in read(tmp_path).refused] == [
        ("b.jsonl.gz", Code.FILE_CUT_OFF),
        ("c.json.gz", Code.FILE_CUT_OFF),
    ]
    (tmp_path / "e.csv").touch()
    with pytest.raises(FormatError, match=r"not all of it would be read: e.csv\. A query file ends in .json"):
        read(tmp_path)
    (tmp_path / "e.csv").unlink()
    (tmp_path / "f.jsonl").symlink_to("gone")
    with pytest.raises(FormatError, match=r"f.jsonl \(a link to gone, where nothing is"):
        read(tmp_path)


def test_fields_that_ask_for_nothing_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    asked = {"positive": ["iron"], "filter": {}, "explain": False, "deadline_ms": None, "negatives": None}
    own = {"_source": "a page", "neg_attrs": {"kind": "gas"}}
    path.write_text(json.dumps({**asked, **own}))
    (one,) = read(path).queries
    assert (one.query.positive, one.query.negative) == ((0,), ())


def test_numbers_of_a_column_with_gaps_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    rows = {"id": [7.0, float("nan")], "positive": [[0.0], [1.0]], "top_k": [5.0, float("nan")]}
    pq.write_table(pa.table({**rows, "pos_seeds": pa.nulls(2), "group_id": [1.0, 2.0]}), path)
    found = read(path)
    assert [(q.query.id, q.query.positive, q.query.top_k) for q in found.queries] == [
        ("7", (0,), 5),
        ("q-2-0", (1,), 200),
    ]


def test_an_object_with_a_key_twice_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text('[{"pos_seeds": ["iron"], "neg_seeds": [], "neg_seeds": []}, {"pos_seeds": ["zinc"]}]')
    found = read(path)
    assert [q.query.id for q in found.queries] == ["q-1"]
    assert [(r.position, r.refusal.code.value) for r in found.refused] == [(1, "conflicting_fields")]


def test_a_refused_query_does_not_change_the_others_ids(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([ultrawiki(pos_seeds=["irn"]), ultrawiki(), ultrawiki(x=1), ultrawiki()]))
    found = read(path)
    assert found.refused[0].query_id == "m-3-0"
    assert [q.query.id for q in found.queries] == ["m-3-1", "m-3-3"]


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"not": "a list"}')
    (tmp_path / "b.json").write_text("[{")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "d.json").write_text(json.dumps([ultrawiki()]))
    found = read(tmp_path)
    assert len(found.queries) == 1
    assert [(Path(r.source).name, r.position) for r in found.refused] == [
        ("a.json", 0),
        ("b.json", 0),
        ("c.parquet", 0),
    ]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_list_that_memory_may_not_hold_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = json.dumps([ultrawiki()]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": "q", "positive": ["iron"]}))
    monkeypatch.setattr(files, "BLOCK", 16)
    monkeypatch.setattr(files, "MAX_LIST", len(content))
    assert len(read(tmp_path).queries) == 2
    monkeypatch.setattr(files, "MAX_LIST", len(content) - 1)
    found = read(tmp_path)
    assert [one.query.id for one in found.queries] == ["q"]
    (refused,) = found.refused
    assert (refused.position, refused.refusal.code) == (0, Code.FILE_TOO_LARGE)
    assert "jq -c '.[]'" in refused.reason


def test_a_parquet_file_is_read_some_rows_at_a_time_as_far_as_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"id": f"q{i}", "positive": ["iron"]} for i in range(7)]
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=4, compression="none")
    whole = read(path)
    monkeypatch.setattr(files, "BATCH", 2)
    assert read(path) == whole
    assert [one.query.id for one in whole.queries] == [f"q{i}" for i in range(7)]
    second = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    begin = second.dictionary_page_offset or second.data_page_offset
    content[begin : begin + 8] = b"\xff" * 8
    path.write_bytes(content)
    found = read(path)
    assert [one.query.id for one in found.queries] == [f"q{i}" for i in range(4)]
    (refused,) = found.refused
    assert (refused.position, refused.refusal.code) == (0, Code.FILE_BROKEN)
    assert "cannot be read behind row 4" in refused.reason


def test_truth_is_positive_without_negative_and_without_seeds(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    record = ultrawiki(
        pos_gt=["zinc", "iron", "argon", "gold", "tin"], neg_gt=["argon", "argon", "helium", "tin"]
    )
    path.write_text(json.dumps([record]))
    (one,) = read(path).queries
    assert (one.positive.ids, one.positive.missing) == ({2}, ("gold",))
    assert (one.negative.ids, one.negative.missing) == ({5}, ("tin",))
    assert (one.positive.size, one.negative.size, read(path).missing) == (2, 2, 2)


def test_what_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file or folder"):
        read(tmp_path / "none")
    with pytest.raises(FormatError, match="holds no query file"):
        read(tmp_path)
    (tmp_path / "q.csv").write_text("iron")
    with pytest.raises(FormatError, match="ends in"):
        read(tmp_path / "q.csv")
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(FormatError, match="holds no query"):
        read(tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text('{"positive": ["irn"]}\n')
    with pytest.raises(QueryError, match=r"none of its 1 queries.*q.jsonl:1.*irn"):
        read(tmp_path / "q.jsonl")


def test_digest_is_of_queries_in_order_not_of_their_truth(tmp_path: Path) -> None:
    def digest(*records: Any) -> str:
        (tmp_path / "q.json").write_text(json.dumps(records))
        return read(tmp_path / "q.json").digest

    one, other = ultrawiki(query_id="1"), ultrawiki(query_id="2")
    assert digest(one, other) == digest(one, {**other, "pos_gt": []})
    assert len({digest(one, other), digest(other, one), digest(one)}) == 3


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_columns_of_other_names(tmp_path: Path, form: str) -> None:
    row = {"request": "r1", "wanted": ["iron"], "positive": ["neon"], "price": 2, "top_k": 3, "_own": 1}
    file = tmp_path / f"asked.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), file)
    else:
        file.write_text(json.dumps(row))
    columns = {"id": "request", "positive": "wanted"}
    named = QueryColumns(columns)
    (found,) = iter_queries(Store.open(file), WORDS, columns=named)
    assert isinstance(found, LabelledQuery)
    assert (found.query.id, found.query.positive, found.query.top_k) == ("r1", (0,), 3)
    assert named.unread == {"positive", "price"}
    with pytest.raises(FormatError, match="has no column unwanted, which --columns names; it has p"):
        list(iter_queries(Store.open(file), WORDS, columns=QueryColumns(columns | {"negative": "unwanted"})))
    with pytest.raises(QueryError, match="no field is called 'request'"):
        read_queries(Store.open(file), WORDS)
