"""Dumps of Wikidata: lines of a list, entities with what is missing or wrong, values as texts."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.readers import json_stream
from engine.corpus.readers.wikidata import DumpEntity, Wanted, entity_of, read_dump
from engine.corpus.readers.wikidata_values import Value, value_of
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from tests.support.wikidata import dump_text, entity, item, statement

ROWS = [entity("Q1", "Mira"), entity("P2", "shore"), entity("Q3", {"fr": "Étang [petit]"})]


def read(path: Path, content: str | bytes) -> list[tuple[Any, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [
        (values.code if isinstance(values, Refusal) else values, str(position))
        for values, position, _ in read_dump(Store.open(path))
    ]


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda content: pa.Codec("zstd").compress(content, asbytes=True),
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b",\n", b" , \n\n"),
        lambda content: content.replace(b"[\n", b"[", 1).replace(b"\n]\n", b"]"),
        lambda content: content.replace(b"[\n", b"", 1).replace(b"\n]\n", b"").replace(b",\n", b"\n"),
    ],
)
def test_a_dump_is_read_in_every_form(tmp_path: Path, pack: Any) -> None:
    plain = dump_text(ROWS)
    found = read(tmp_path / "a.json", pack(plain.encode()))
    assert [values for values, _ in found] == ROWS
    assert [values for values, _ in read(tmp_path / "b.json", plain)] == ROWS


def test_places_are_lines_and_bytes(tmp_path: Path) -> None:
    text = dump_text(['{"id": "Q1"}', "{broken", '{"id": "Q2"}', '["Q3"]', "7"])
    assert read(tmp_path / "a.json", text) == [
        ({"id": "Q1"}, "line 2, byte 2"),
        (Code.NOT_JSON, "line 3, byte 16"),
        ({"id": "Q2"}, "line 4, byte 25"),
        (Code.WRONG_TYPE, "line 5, byte 39"),
        (Code.WRONG_TYPE, "line 6, byte 47"),
    ]


def test_a_dump_that_is_cut_off_says_so_once(tmp_path: Path) -> None:
    whole = dump_text(ROWS)
    codes = [values for values, _ in read(tmp_path / "a.json", whole[:-2])]
    assert codes == [*ROWS, Code.FILE_CUT_OFF]
    codes = [values for values, _ in read(tmp_path / "b.json", whole[:-20])]
    assert codes == [*ROWS[:2], Code.FILE_CUT_OFF]
    packed = gzip.compress(whole.encode())
    found = read(tmp_path / "c.json.gz", packed[: len(packed) - 12])
    assert [values for values, _ in found if isinstance(values, Code)] == [Code.FILE_CUT_OFF]


def test_a_line_that_does_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", 16)
    monkeypatch.setattr(json_stream, "MAX_LINE", 64)
    long = '{"id": "Q2", "x": "' + "x" * 200 + '"}'
    found = read(tmp_path / "a.json", dump_text(['{"id": "Q1"}', long, '{"id": "Q3"}']))
    assert [values for values, _ in found] == [{"id": "Q1"}, Code.LINE_TOO_LONG, {"id": "Q3"}]


def test_bytes_that_are_not_utf8_cost_their_line(tmp_path: Path) -> None:
    content = (
        dump_text([entity("Q1", "M\u00e9ra"), entity("Q2", "Mira")]).encode().replace(b"\xc3\xa9", b"\xe9")
    )
    found = [values for values, _ in read(tmp_path / "a.json", content)]
    assert found == [Code.NOT_UTF8, entity("Q2", "Mira")]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3), max_size=5))
def test_gzip_equals_plain(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("dump")
    text = dump_text(rows)
    assert read(folder / "a", text) == read(folder / "a", gzip.compress(text.encode()))
    assert [values for values, _ in read(folder / "a", text)] == json.loads(text)


EN = Wanted(("en", "mul"), "enwiki", ("P31", "P5"))


def taken(row: dict[str, Any], wanted: Wanted = EN) -> DumpEntity:
    found = entity_of(row, wanted)
    assert isinstance(found, DumpEntity)
    return found


def test_an_entity_has_what_its_language_and_site_have() -> None:
    row = entity(
        "Q1", {"en": " Mira ", "de": "Mira (See)"}, aliases=["Mi", "Mi", "ra"], description="A lake."
    )
    row["sitelinks"] = {"enwiki": {"title": "Mira (lake)"}, "dewiki": {"title": "Mira (See)"}}
    found = taken(row)
    assert (found.id, found.is_item, found.label, found.title) == ("Q1", True, "Mira", "Mira (lake)")
    assert (found.aliases, found.description, found.faults) == (["Mi", "ra"], "A lake.", [])
    german = taken(row, Wanted(("de", "en"), "dewiki"))
    assert (german.label, german.title, german.aliases) == ("Mira (See)", "Mira (See)", ["Mi", "ra"])
    assert taken(entity("Q1", {"mul": "Mira", "de": "M"})).label == "Mira"
    bare = taken({"type": "property", "id": "P7"})
    assert (bare.is_item, bare.label, bare.values, bare.faults) == (False, "", {}, [])


def test_values_are_those_of_the_best_rank() -> None:
    claims = {
        "P5": [
            item(1),
            item(2, "preferred"),
            item(3, "deprecated"),
            item(2, "preferred"),
            statement("novalue"),
        ]
    }
    claims["P31"] = [item(9, "deprecated"), item(8), item(7, "preferred")]
    found = taken(entity("Q1", "x", claims=claims))
    assert found.values == {"P31": [Value("", "Q7")], "P5": [Value("", "Q2")]}
    assert found.classes == {"Q8", "Q7"}
    assert taken(entity("Q1", "x", claims={"P5": [item(1), item(3, "deprecated")]})).values["P5"] == [
        Value("", "Q1")
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 5}, "an entity's id must be a text, not a number"),
        ({}, "an entity's id must be a text, not null"),
        ({"id": "X1"}, "id 'X1' is none of an item or a property"),
        ({"id": "Q0", "type": "item"}, "id 'Q0' is none of an item or a property"),
    ],
)
def test_what_is_no_entity_is_refused(row: dict[str, Any], reason: str) -> None:
    found = entity_of(row, EN)
    assert isinstance(found, Refusal)
    assert found.detail == reason


def test_lexemes_are_passed_over() -> None:
    assert entity_of({"id": "L5", "type": "lexeme"}, EN) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": 5}, "labels must be an object, not a number"),
        ({"labels": {"en": "x"}}, "a label has no text value"),
        ({"aliases": {"en": {"value": "x"}}}, "aliases must be a list, not an object"),
        ({"aliases": {"en": [{"language": "en"}]}}, "an alias has no text value"),
        ({"sitelinks": {"enwiki": {"site": "enwiki"}}}, "a site link has no text title"),
        ({"claims": ["x"]}, "claims must be an object, not a list"),
        ({"claims": {"P5": 7}}, "claims of P5 must be a list, not a number"),
        ({"claims": {"P5": ["x"]}}, "P5: mainsnak must be an object, not null"),
        ({"claims": {"P5": [{"mainsnak": {"snaktype": "value"}}]}}, "P5: a snak without a value"),
        ({"claims": {"P31": [{"mainsnak": {"snaktype": "value"}}]}}, "P31: a snak without a value"),
    ],
)
def test_a_wrong_detail_is_a_fault_and_the_rest_stays(change: dict[str, Any], reason: str) -> None:
    row = entity("Q1", "Mira", description="A lake.") | change
    found = taken(row)
    assert [fault.refusal.detail for fault in found.faults] == [reason]
    assert found.description == "A lake."


def time(text: str, precision: int) -> dict[str, Any]:
    return {"type": "time", "value": {"time": text, "precision": precision, "calendarmodel": "…"}}


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"type": "string", "value": "AB-1"}, Value("AB-1")),
        ({"type": "wikibase-entityid", "value": {"entity-type": "item", "numeric-id": 5}}, Value("", "Q5")),
        ({"type": "wikibase-entityid", "value": {"entity-type": "property", "id": "P5"}}, Value("", "P5")),
        ({"type": "monolingualtext", "value": {"text": "Mira", "language": "ja"}}, Value("Mira")),
        ({"type": "quantity", "value": {"amount": "+12.50", "unit": "1"}}, Value("12.50")),
        (
            {"type": "quantity", "value": {"amount": "-3", "unit": "http://w.example/entity/Q11"}},
            Value("-3", "Q11"),
        ),
        ({"type": "globecoordinate", "value": {"latitude": 1.5, "longitude": -20}}, Value("1.5, -20")),
        (time("+1879-03-14T00:00:00Z", 11), Value("1879-03-14")),
        (time("+00000001879-03-00T00:00:00Z", 10), Value("1879-03")),
        (time("+1879-00-00T00:00:00Z", 9), Value("1879")),
        (time("+1879-00-00T00:00:00Z", 8), Value("1870-1879")),
        (time("+1900-00-00T00:00:00Z", 7), Value("1801-1900")),
        (time("+1901-00-00T00:00:00Z", 7), Value("1901-2000")),
        (time("+2000-00-00T00:00:00Z", 6), Value("1001-2000")),
        (time("-0044-03-15T00:00:00Z", 11), Value("-0044-03-15")),
        (time("-13800000000-00-00T00:00:00Z", 3), Value("-13800000000")),
    ],
)
def test_values_are_texts_or_ids(data: dict[str, Any], value: Value) -> None:
    assert value_of(statement(data)["mainsnak"]) == value


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"type": "string", "value": " "}, Code.TEXT_EMPTY),
        ({"type": "string", "value": 5}, Code.WRONG_TYPE),
        ({"type": "music", "value": {}}, Code.WRONG_TYPE),
        ({"type": "time", "value": {"time": "soon", "precision": 9}}, Code.WRONG_LAYOUT),
        ({"type": "time", "value": {"time": "+1879-00-00T00:00:00Z"}}, Code.WRONG_LAYOUT),
        ({"type": "quantity", "value": {"amount": "many", "unit": "1"}}, Code.WRONG_LAYOUT),
        ({"type": "quantity", "value": {"amount": 5, "unit": "1"}}, Code.WRONG_LAYOUT),
        (
            {"type": "wikibase-entityid", "value": {"entity-type": "thing", "numeric-id": 5}},
            Code.WRONG_LAYOUT,
        ),
        ({"type": "wikibase-entityid", "value": {"id": 5}}, Code.WRONG_LAYOUT),
        ({"type": "monolingualtext", "value": {"text": ""}}, Code.WRONG_LAYOUT),
        ({"type": "globecoordinate", "value": {"latitude": None, "longitude": 1}}, Code.WRONG_LAYOUT),
    ],
)
def test_other_values_are_refused(data: dict[str, Any], code: Code) -> None:
    found = value_of(statement(data)["mainsnak"])
    assert isinstance(found, Refusal)
    assert found.code is code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "type",
                    "labels",
                    "aliases",
                    "claims",
                    "en",
                    "value",
                    "P5",
                    "mainsnak",
                    "snaktype",
                    "datavalue",
                    "time",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["labels", "aliases", "descriptions", "sitelinks", "claims"]), JSON))
def test_whatever_a_line_holds_ends_nothing(row: dict[str, Any]) -> None:
    found = taken(row | {"id": "Q1", "type": "item"})
    assert all(value.text or value.id for some in found.values.values() for value in some)
