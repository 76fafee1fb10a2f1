"""Test files of sets with the programs that read them: csv and our import, json, rdflib."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdflib import Graph, Literal, URIRef
from rdflib.namespace import RDF, SKOS

from engine.errors import UserError
from engine.queries.set_formats import COLUMNS, FORMATS, Format, Member, SetName, written

JAPAN = Member("Japan", ["Nippon", "Japan"], "An island country.", {"continent": ["Asia"]}, 1, 0.5, 0.25)
ODD = Member('=HYPERLINK("x","y"), or\n"<b>" \\ ;', ["-1+2", "@me", "a|b", "O'Higgins"], "", {}, 2, -0.5)
BASE = "https://example.org/things/"

few = settings(max_examples=20)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
members = st.lists(
    st.builds(Member, texts, st.lists(texts, max_size=3), texts, st.dictionaries(texts, st.lists(texts))),
    max_size=2,
    unique_by=lambda one: one.name,
)


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def objects(kind: Format, *given: Member, label: str = "") -> list[dict[str, object]]:
    content = written(kind, given, SetName(label)).decode()
    return [json.loads(line) for line in content.split("\n")[:-1]]


def graph_of(given: list[Member], label: str = "") -> Graph:
    return Graph().parse(data=written("skos", given, SetName(label, BASE)).decode(), format="turtle")


def test_a_table_has_every_field() -> None:
    content = written("csv", [JAPAN, ODD], SetName())
    assert content.startswith(b"\xef\xbb\xbfrank,name,")
    assert content.count(b"\r\n") == 3
    first, second = rows(content)
    assert list(first) == list(COLUMNS)
    assert (first["rank"], first["name"], first["aliases"]) == ("1", "Japan", "Nippon|Japan")
    assert (first["score"], first["probability"]) == ("0.5", "0.25")
    assert json.loads(first["attributes"]) == {"continent": ["Asia"]}
    # What a spreadsheet would compute is a text; a number is one, and what only looks odd is as it was.
    assert second["name"] == f"'{ODD.name}"
    assert second["aliases"] == "'-1+2|@me|a|b|O'Higgins"
    assert (second["score"], second["probability"], second["description"]) == ("-0.5", "", "")


@few
@given(members)
def test_no_cell_is_a_formula_and_all_others_are_as_they_were(given: list[Member]) -> None:
    for row, one in zip(rows(written("csv", given, SetName())), given, strict=True):
        cells = [row["name"], row["aliases"], row["description"]]
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
        texts = [one.name, "|".join(one.aliases), one.description]
        assert all(cell in (text, f"'{text}") for cell, text in zip(cells, texts, strict=True))


def test_lines_leave_out_what_is_not_there() -> None:
    japan, odd = objects("jsonl", JAPAN, ODD)
    assert japan["attributes"] == {"continent": ["Asia"]}
    assert odd == {"rank": 2, "name": ODD.name, "aliases": list(ODD.aliases), "score": -0.5}


def test_patterns_match_words_in_any_case_and_leave_the_rest_to_the_tokenizer() -> None:
    given = Member("Saudi Arabia", ["K.S.A.", "SAUDI ARABIA", "Route 66", "B52", "Île d'Yeu"])
    patterns = objects("patterns", given, Member("Saudi arabia"), label="country")
    assert {one["label"] for one in patterns} == {"country"}
    assert [one["pattern"] for one in patterns] == [
        [{"lower": "saudi"}, {"lower": "arabia"}],
        "K.S.A.",
        [{"lower": "route"}, {"lower": "66"}],
        "B52",
        "Île d'Yeu",
    ]
    assert objects("patterns", JAPAN)[0]["label"] == "ENTITY"


def test_a_scheme_holds_names_aliases_and_what_is_known() -> None:
    graph = graph_of([JAPAN, ODD], "countries / of Asia")
    (scheme,) = graph.subjects(RDF.type, SKOS.ConceptScheme)
    assert graph.value(scheme, SKOS.prefLabel) == Literal("countries / of Asia")
    japan = URIRef(f"{BASE}Japan")
    assert graph.value(japan, SKOS.prefLabel) == Literal("Japan")
    assert list(graph.objects(japan, SKOS.altLabel)) == [Literal("Nippon")]
    assert graph.value(japan, SKOS.definition) == Literal("An island country.")
    assert graph.value(japan, SKOS.note) == Literal("continent: Asia")
    assert graph.value(japan, SKOS.topConceptOf) == graph.value(japan, SKOS.inScheme) == scheme


@few
@given(members, texts)
def test_any_text_is_read_back_from_turtle(given: list[Member], label: str) -> None:
    graph = graph_of(given, label)
    found = {}
    for concept in graph.subjects(RDF.type, SKOS.Concept):
        (name,) = graph.objects(concept, SKOS.prefLabel)
        found[str(name)] = {str(alias) for alias in graph.objects(concept, SKOS.altLabel)}
    assert found == {one.name: set(one.aliases) - {one.name} for one in given}


@pytest.mark.parametrize("base", ["", "things/", "https://example.org/a b/", "https://example.org/things"])
def test_a_scheme_needs_an_address_that_names_can_follow(base: str) -> None:
    with pytest.raises(UserError, match="an absolute address that names can follow"):
        written("skos", [JAPAN], SetName("", base))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_set_is_a_file_and_half_a_pair_is_no_error(kind: Format) -> None:
    written(kind, [], SetName("", BASE)).decode()
    assert b"?" in written(kind, [Member("\ud800")], SetName("\udfff", BASE))
