"""Values as others write them: what is missing is missing in every format, a bad detail costs itself."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus.readers.json_stream import _WithoutNaN
from engine.errors import FormatError
from tests.support.corpora import Imported, jsonl, parquet, run_import, ultrawiki

NAN = float("nan")
IRON = {"entity": "iron", "sentence": "An iron bar."}


def imported(tmp_path: Path, entities: list[Any], sentences: list[Any]) -> Imported:
    jsonl(tmp_path / "raw/entities.jsonl", entities)
    jsonl(tmp_path / "raw/sentences.jsonl", sentences)
    return run_import(tmp_path / "w", tmp_path / "raw", "jsonl")


@pytest.mark.parametrize("missing", [NAN, None])
def test_missing_values_in_json_lines(tmp_path: Path, missing: Any) -> None:
    got = imported(
        tmp_path,
        [
            {"name": "iron", "aliases": missing, "description": missing, "attributes": missing},
            {"name": "gold", "aliases": ["Au", missing], "attributes": {"a": missing, "b": ["x", missing]}},
        ],
        [
            {**IRON, "start": missing, "end": missing, "image": missing, "image_bytes": missing},
            {"entity": "gold", "sentence": missing, "image": {"bytes": missing, "path": "a.png"}},
            {"entity": "gold", "sentence": "Au.", "image": {"bytes": missing, "path": missing}},
        ],
    )
    assert not got.quarantine
    assert [e["attributes"] for e in got.entities] == [{}, {"b": ["x"]}]
    assert got.held == [("iron", "iron"), ("gold", ""), ("gold", "Au")]


def test_missing_values_in_parquet(tmp_path: Path) -> None:
    parquet(
        tmp_path / "raw/entities.parquet",
        name=["iron", "gold"],
        aliases=pa.array([NAN, NAN]),
        description=pa.array([NAN, NAN]),
        attributes=pa.array([{"phase": ["solid"], "kind": None}, None]),
    )
    parquet(
        tmp_path / "raw/sentences.parquet",
        entity=["iron", "gold"],
        sentence=["An iron bar.", "Gold."],
        start=pa.array([3.0, NAN]),
        end=pa.array([7.0, NAN]),
        image=pa.array([NAN, NAN]),
    )
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert not got.quarantine
    assert got.entities[0]["attributes"] == {"phase": ["solid"]}
    assert got.manifest.found["given"] == 1


def test_missing_values_in_ultrawiki(tmp_path: Path) -> None:
    source = ultrawiki(
        tmp_path / "raw",
        {"iron": ["Iron.", "A NaN, of iron: NaN"], "gold": NAN, "tin": None, "zinc": ["Zinc.", NAN]},
        ent2text={"iron": NAN, "gold": 'A "metal", NaN', "tin": None},
        attributes={"metals": {"iron": {"a": NAN, "b": [NAN, "x"]}, "gold": NAN}, "none": NAN},
    )
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert [e["description"] for e in got.entities] == [None, 'A "metal", NaN', None, None]
    assert [e["attributes"] for e in got.entities[:2]] == [
        {"class": ["metals"], "b": ["x"]},
        {"class": ["metals"]},
    ]
    assert [name for name, _ in got.held] == ["iron", "iron", "zinc"]
    assert got.reasons == [("'zinc', sentence 1", "neither a sentence nor an image")]


def test_names_of_numbers_are_replaced_outside_of_texts_only() -> None:
    text = b'{"a": NaN, "b\\"NaN": ["x NaN, \\\\", -Infinity, Infinity], "\\\\": NaN}'
    for size in (*range(1, 24), 1000):
        stream, found = _WithoutNaN(io.BytesIO(text)), b""
        while block := stream.read(size):
            found += block
        assert json.loads(found) == {"a": None, 'b"NaN': ["x NaN, \\", None, None], "\\": None}, size


@pytest.mark.parametrize(
    ("entity", "kept", "reason"),
    [
        ({"aliases": "Fe"}, {"aliases": ["Fe"]}, None),
        ({"attributes": {"class": "metal"}}, {"attributes": {"class": ["metal"]}}, None),
        ({"aliases": ["Fe", 3]}, {"aliases": ["Fe"]}, "an alias must be a text, not a number"),
        ({"aliases": ["Fe", ""]}, {"aliases": ["Fe"]}, "alias empty"),
        ({"aliases": {"a": 1}}, {"aliases": []}, "aliases must be a list of texts, not an object"),
        ({"description": ["x"]}, {"description": None}, "description must be a text, not a list"),
        (
            {"attributes": {"class": ["metal", ""], "x": ["y"]}},
            {"attributes": {"class": ["metal"], "x": ["y"]}},
            "attribute 'class': a value empty",
        ),
        (
            {"attributes": {"": ["a"], "n": [1, True], "x": ["y"]}},
            {"attributes": {"x": ["y"]}},
            "a value of attribute 'n' must be a text, not a number",
        ),
        ({"attributes": [{"key": "x", "value": ["y"]}]}, {"attributes": {"x": ["y"]}}, None),
        ({"attributes": ["a"]}, {"attributes": {}}, "attributes must be {attribute: [texts]}, not a list"),
        (b'{"name": "iron", "description": "A \xff", "aliases": ["Fe"]}', {"aliases": ["Fe"]}, "description"),
    ],
)
def test_a_bad_detail_of_an_entity_costs_itself(
    tmp_path: Path, entity: Any, kept: dict[str, Any], reason: str | None
) -> None:
    row = entity if isinstance(entity, bytes) else {"name": "iron", **entity}
    got = imported(tmp_path, [row], [IRON])
    assert {key: got.entities[0][key] for key in kept} == kept
    assert got.held == [("iron", "iron")]
    counts = got.manifest.counts
    assert (counts.entities_refused, counts.refused) == (0, 0)
    if reason is None:
        assert not got.quarantine
    else:
        assert got.reasons[0][1].startswith(f"'iron': {reason}")
        assert counts.details_refused == len(got.quarantine)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"start": 3.0, "end": 7.0}, None),
        ({"start": "3", "end": 7}, "start must be a whole number, not a text"),
        ({"start": 3, "end": 7.5}, "end must be a whole number, not a number"),
        ({"start": True, "end": 7}, "start must be a whole number, not true or false"),
        ({"start": 3, "end": NAN}, "start and end belong together: give both or none"),
        ({"image": "data:image/png;base64,QQ=="}, None),
        ({"image": 3}, "image must be a text, not a number"),
        ({"image": {"bytes": 3, "path": None}}, "image_bytes must be bytes or base64, not a number"),
        ({"image": {"url": "x"}}, "image must be a text, not an object"),
        ({"image_bytes": 3}, "image_bytes must be bytes or base64, not a number"),
        ({"image": "a.png", "image_bytes": "QQ=="}, "image and image_bytes: give one of them"),
    ],
)
def test_a_bad_detail_of_a_sentence_costs_itself(tmp_path: Path, more: Any, reason: str | None) -> None:
    got = imported(tmp_path, [{"name": "iron"}], [{**IRON, **more}])
    assert got.held == [("iron", "iron")]
    assert [r for _, r in got.reasons] == ([reason] if reason else [])
    assert got.manifest.counts.details_refused == (reason is not None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"sentence": 3}, "sentence must be a text, not a number"),
        ({"start": 1, "end": 4}, "start and end of a mention, but no sentence"),
    ],
)
def test_an_image_stays_without_its_sentence(tmp_path: Path, row: Any, reason: str) -> None:
    got = imported(tmp_path, [{"name": "iron"}], [{"entity": "iron", "image": "a.png", **row}])
    assert [tuple(m.values()) for m in got.mentions] == [(0, "", 0, 0, f"{tmp_path}/raw/a.png")]
    assert [r for _, r in got.reasons] == [reason]


def test_images_as_hugging_face_writes_them(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": b"\xff\xd8\xff one", "path": "one.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    sentences = {"entity": ["iron"] * 3, "sentence": ["Iron one.", None, "Iron."]}
    parquet(tmp_path / "raw/sentences.parquet", **sentences, image=pa.array(images, kind))
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert not got.quarantine
    first, second, third = (m["image"] for m in got.mentions)
    assert (tmp_path / "w" / first).read_bytes() == b"\xff\xd8\xff one"
    assert (second, third) == (f"{tmp_path}/raw/b.jpg", None)
    parquet(
        tmp_path / "bytes/sentences.parquet", **sentences, image=pa.array([b"a", b"b", None], pa.binary())
    )
    assert run_import(tmp_path / "v", tmp_path / "bytes", "parquet").manifest.counts.images == 2


def test_bytes_that_are_utf_8_are_texts_and_others_cost_their_detail(tmp_path: Path) -> None:
    broken = pa.array([b"A metal.", b"A \xff"])
    broken = pa.StringArray.from_buffers(2, broken.buffers()[1], broken.buffers()[2])
    kind = pa.map_(pa.string(), pa.list_(pa.string()))
    parquet(
        tmp_path / "raw/entities.parquet",
        name=[b"iron", b"gold"],
        description=broken,
        aliases=[[b"Fe"], [b"Au", b"\xff"]],
        attributes=pa.array([[("k", ["x"]), ("k", ["y"])], [("k", ["z"])]], kind),
    )
    parquet(tmp_path / "raw/sentences.parquet", entity=[b"iron", b"gold"], sentence=[b"Fe.", b"Gold."])
    got = run_import(tmp_path / "w", tmp_path / "raw", "parquet")
    assert got.held == [("iron", "Fe"), ("gold", "Gold")]
    assert [e["aliases"] for e in got.entities] == [["Fe"], ["Au"]]
    assert [e["description"] for e in got.entities] == ["A metal.", None]
    assert [e["attributes"] for e in got.entities] == [{"k": ["x", "y"]}, {"k": ["z"]}]
    assert {r.split(" at ")[0] for _, r in got.reasons} == {"'gold': not valid UTF-8"}


def test_a_value_that_python_has_no_type_for_costs_itself(tmp_path: Path) -> None:
    times = pa.array([1, 2], pa.timestamp("ns"))
    pq.write_table(
        pa.table({"entity": ["iron", "iron"], "sentence": ["Iron.", "An iron."], "image": times}),
        tmp_path / "s.parquet",
    )
    got = run_import(tmp_path / "w", tmp_path / "s.parquet", "parquet")
    assert len(got.mentions) == 2
    assert got.manifest.counts.details_refused == 2


def test_half_a_pair_of_surrogates_in_a_reason_can_be_written(tmp_path: Path) -> None:
    got = imported(tmp_path, [{"name": "iron", "attributes": {"\ud83d": ["x"], "a": ["\ud83d"]}}], [IRON])
    assert [q["code"] for q in got.quarantine] == ["text_surrogate"] * 2
    jsonl(tmp_path / "s.jsonl", [IRON, {**IRON, "image": "\ud83d.png"}])
    with pytest.raises(FormatError, match="--strict allows none"):
        run_import(tmp_path / "v", tmp_path / "s.jsonl", "jsonl", strict=True)
