from pathlib import Path

import pyarrow as pa
import pytest

from engine.corpus.readers import json_stream as streams
from engine.errors import FormatError
from tests.support.corpora import jsonl, parquet, run_import

IRON = {"entity": "iron", "sentence": "Iron is heavy."}


def test_one_file_without_entities(tmp_path: Path) -> None:
    rows = [
        {"entity": "gold", "sentence": "Gold."},
        IRON,
        {**IRON, "sentence": "See iron", "image": "a/b.jpg"},
    ]
    got = run_import(tmp_path / "w", jsonl(tmp_path / "mine.jsonl", rows), "jsonl")
    assert [e["name"] for e in got.entities] == ["gold", "iron"]
    assert got.held == [("gold", "Gold"), ("iron", "Iron"), ("iron", "iron")]
    assert [m["image"] for m in got.mentions] == [None, None, f"{tmp_path}/a/b.jpg"]
    assert not got.quarantine


def test_a_folder_with_entities(tmp_path: Path) -> None:
    entities = [
        {"name": "iron", "aliases": ["ferrum", "iron", "Fe"], "description": "A metal."},
        {"name": "gold", "attributes": {"phase": ["solid"]}},
        {"name": "gold"},
        {"name": 3},
        {"name": None},
    ]
    jsonl(tmp_path / "raw/entities.jsonl", entities)
    jsonl(tmp_path / "raw/sentences/b.jsonl", [{"entity": "gold", "sentence": "Gold."}])
    jsonl(tmp_path / "raw/sentences/a.jsonl", ["", {"entity": "iron", "sentence": "Ferrum!"}])
    got = run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert got.held == [("iron", "Ferrum"), ("gold", "Gold")]
    assert got.entities[0]["aliases"] == ["ferrum", "Fe"]
    assert got.entities[1]["attributes"] == {"phase": ["solid"]}
    assert [r for _, r in got.reasons] == [
        "the same name as in line 2, byte 81",
        "name must be a text, not a number",
        "name must be a text, not null",
    ]
    assert got.manifest.counts.entities_refused == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"entity": "iron"}, "neither a sentence nor an image"),
        ({"entity": "iron", "sentence": "", "image": "", "image_bytes": ""}, "neither a sentence nor"),
        ({"entity": "iron", "image_bytes": "?"}, "image_bytes are not base64"),
        ({"entity": "iron", "image_bytes": 3}, "image_bytes must be bytes or base64, not a number"),
        ({"entity": "iron", "sentence": float("nan"), "image": float("nan")}, "neither a sentence nor"),
        ({"sentence": "Iron."}, "entity must be a text, not null"),
        ({"entity": 5, "sentence": "Iron."}, "entity must be a text, not a number"),
        ({"entity": "iron", "sentence": ["Iron."]}, "sentence must be a text, not a list"),
        ({**IRON, "start": 0, "end": 5}, "start 0 and end 5 hold 'Iron ', neither the name nor an alias"),
        ({**IRON, "start": 0, "end": 99}, "start 0 and end 99 are no span of its 14 characters"),
        ({**IRON, "sentence": "iron \ud800"}, "holds half of a surrogate pair, U+D800"),
        ({"entity": " ", "sentence": "Iron."}, "entity name empty"),
        ([1], "a line must be an object, not a list"),
        ("{broken", "not valid JSON"),
        (b'{"entity": "ir\xffon"}', "not valid UTF-8 at byte 58 of the file"),
        ("[" * 100_000, "not valid JSON"),
        ({**IRON, "sentence": "Iron one."}, "duplicate sentence"),
    ],
)
def test_a_bad_line_is_quarantined_alone(tmp_path: Path, row: object, reason: str) -> None:
    first, last = {**IRON, "sentence": "Iron one."}, {**IRON, "sentence": "Iron two."}
    got = run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", [first, row, last]), "jsonl")
    assert [m["sentence"] for m in got.mentions] == ["Iron one.", "Iron two."]
    [(position, given)] = got.reasons
    assert position == "line 2, byte 44"
    assert given.startswith(reason)
    assert got.manifest.counts.sentences_read == 3


def test_offsets_are_moved_with_normalisation(tmp_path: Path) -> None:
    row = {"entity": "Cafe\u0301", "sentence": "e\u0301t\u0301e\u0301 Cafe\u0301!", "start": 7, "end": 12}
    got = run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", [row]), "jsonl")
    assert got.held == [("Café", "Café")]
    assert got.manifest.found["given"] == 1


def test_the_same_sentence_with_another_picture_is_no_duplicate(tmp_path: Path) -> None:
    rows = [{**IRON, "image": i} for i in ("a.jpg", "b.jpg", "a.jpg")]
    got = run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", rows), "jsonl")
    assert [m["image"] for m in got.mentions] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    assert got.manifest.counts.duplicates == 1


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", [IRON, {**IRON, "sentence": "More iron."}])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FormatError, match=r"s.jsonl, line 2, byte 49: .*cut off.*--accept-broken-files"):
        run_import(tmp_path / "w", path, "jsonl")
    got = run_import(tmp_path / "w", path, "jsonl", accept_broken_files=True)
    assert len(got.mentions) == 1
    assert "it is cut off" in got.reasons[0][1]
    assert (got.manifest.counts.files_broken, got.manifest.counts.sentences_read) == (1, 1)


def test_a_line_too_long_for_memory_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 16)
    monkeypatch.setattr(streams, "MAX_LINE", 64)
    path = jsonl(tmp_path / "s.jsonl", [IRON, "x" * 500, {**IRON, "sentence": "More iron."}])
    got = run_import(tmp_path / "w", path, "jsonl")
    assert [m["sentence"] for m in got.mentions] == ["Iron is heavy.", "More iron."]
    assert got.reasons[0][0] == "line 2, byte 49"
    assert got.reasons[0][1].startswith("line longer than")


def test_parquet(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.list_(pa.string()))
    attributes = pa.array([[("phase", ["solid"])], None], kind)
    parquet(tmp_path / "raw/entities.parquet", name=["iron", "gold"], attributes=attributes)
    parquet(
        tmp_path / "raw/sentences-0.parquet",
        entity=["iron", "gold", None, "tin"],
        sentence=["An iron bar.", "Gold.", "x", "Tin."],
        start=[3, None, None, None],
        end=[7, None, None, None],
        unused=[1, 2, 3, 4],
    )
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert got.held == [("iron", "iron"), ("gold", "Gold")]
    assert got.entities[0]["attributes"] == {"phase": ["solid"]}
    assert got.reasons == [
        ("row 2", "entity must be a text, not null"),
        ("row 3", "'tin' is no entity of this corpus (no line of the entity file)"),
    ]


def test_parquet_of_one_file_and_of_a_folder_of_parts(tmp_path: Path) -> None:
    for i, name in enumerate(["iron", "gold"]):
        parquet(tmp_path / f"raw/sentences/part-{i}.parquet", entity=[name], sentence=[f"The {name}."])
    assert len(run_import(tmp_path / "a", tmp_path / "raw", "parquet").mentions) == 2
    one = tmp_path / "raw/sentences/part-1.parquet"
    assert run_import(tmp_path / "b", one, "parquet").held == [("gold", "gold")]


def test_a_broken_parquet_file_costs_itself_only(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "raw/sentences/a.parquet", entity=["iron"], sentence=["Iron."])
    (tmp_path / "raw/sentences/b.parquet").write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(FormatError, match="1 of its files cannot be read whole; nothing was published"):
        run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert not (tmp_path / "w/corpus").exists()
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet", accept_broken_files=True)
    assert len(got.mentions) == 1
    assert got.quarantine[0]["source"] == "sentences/b.parquet"
    assert "is the file whole?" in got.reasons[0][1]
    assert got.manifest.counts.files_broken == 1


def test_broken_utf8_in_parquet_costs_its_row_only(tmp_path: Path) -> None:
    raw = pa.array([b"Iron one.", b"Iron \xff", b"Iron two."])
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    path = parquet(tmp_path / "s.parquet", entity=["iron"] * 3, sentence=broken)
    got = run_import(tmp_path / "w", path, "parquet")
    assert [m["sentence"] for m in got.mentions] == ["Iron one.", "Iron two."]
    assert got.reasons[0][0] == "row 1"
    assert got.reasons[0][1].startswith("not valid UTF-8")


def test_missing_tables_and_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(
        FormatError, match=r"no sentences.jsonl and no sentences/\*.jsonl here \(found: nothing"
    ):
        run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    path = parquet(tmp_path / "s.parquet", name=["iron"], sentence=["Iron."])
    with pytest.raises(FormatError, match=r"no column entity \(found: name, sentence\)"):
        run_import(tmp_path / "w", path, "parquet")
    with pytest.raises(FormatError, match="no usable sentence in it as --format jsonl"):
        run_import(tmp_path / "w", path, "jsonl")
    parquet(tmp_path / "n.parquet", entity=[1], sentence=["Iron."])
    with pytest.raises(FormatError, match="entity must be a text, not a number"):
        run_import(tmp_path / "w", tmp_path / "n.parquet", "parquet")


def test_what_people_marked_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "Iron, the metal, is iron."
    rows = [
        {"entity": "iron", "sentence": text, "start": 0, "end": 4},
        {"entity": "iron", "sentence": text, "start": 6, "end": 15, "annotated": True},
        {"entity": "iron", "sentence": text, "start": 20, "end": 24, "annotated": True},
        {"entity": "iron", "sentence": "The metal.", "start": 4, "end": 9, "annotated": False},
        {"entity": "iron", "sentence": "Some iron.", "annotated": True},
        {"entity": "iron", "sentence": "More iron.", "start": 5, "end": 9, "annotated": "yes"},
    ]
    got = run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", rows), "jsonl")
    assert [held for _, held in got.held] == ["Iron", "the metal", "iron", "iron", "iron"]
    assert [reason for _, reason in got.reasons] == [
        "start 4 and end 9 hold 'metal', neither the name nor an alias",
        "annotated must be true or false, not a text",
    ]
    (tmp_path / "s.csv").write_text(
        "entity,sentence,start,end,annotated\niron,The metal.,4,9,true\niron,Iron.,0,4,\n", encoding="utf-8"
    )
    assert [held for _, held in run_import(tmp_path / "v", tmp_path / "s.csv", "csv").held] == [
        "metal",
        "Iron",
    ]
