"""MediaWiki's markup: what stays of it, and where its links are."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.linking.markup import Link, MarkedText
from engine.corpus.linking.wikitext import read_wikitext


def shown(markup: str) -> tuple[str, list[tuple[str, str]]]:
    """The text on one line, and each link's text and target."""
    found = read_wikitext(markup)
    return " ".join(found.text.split()), [(found.text[a:b], target) for a, b, target in found.links]


@pytest.mark.parametrize(
    ("markup", "text", "links"),
    [
        ("A [[lake]] here.", "A lake here.", [("lake", "lake")]),
        ("Near [[Lake Vessel|the lake]].", "Near the lake.", [("the lake", "Lake Vessel")]),
        ("Two [[lake]]s, [[bus|coach]]es.", "Two lakes, coaches.", [("lakes", "lake"), ("coaches", "bus")]),
        ("Im [[Haus]]人 da", "Im Haus人 da", [("Haus", "Haus")]),
        ("[[Mira (star)|]] shines", "Mira shines", [("Mira", "Mira (star)")]),
        (
            "[[Mira#Orbit|its orbit]], [[#Below|below]]",
            "its orbit, below",
            [("its orbit", "Mira#Orbit"), ("below", "#Below")],
        ),
        ("a|b [[x|y|z]]", "a|b y|z", [("y|z", "x")]),
        (
            "[[:Category:Lakes]] and [[:fr:Lac|lac]]",
            "Category:Lakes and lac",
            [("Category:Lakes", ":Category:Lakes"), ("lac", ":fr:Lac")],
        ),
        ("Text.[[Category:Lakes|V]][[Kategorie:Seen]] [[de:See]] [[zh-yue:X]]", "Text.", []),
        ("[[File:A.jpg|thumb|A [[lake]] at [[dusk|night]]]] Then.", "Then.", []),
        ("[[Datei:A.jpg|mini|Ein\nSee]] Dann.", "Dann.", []),
        ("[[Star Road: The Way]]", "Star Road: The Way", [("Star Road: The Way",) * 2]),
        ("''It'' is '''bold''', '''''both''''', l''''x'.", "It is bold, both, l'x'.", []),
        ("A{{cite|b={{c}}|d}} b {{{p|{{q}}}}} c", "A b c", []),
        ("x\n{| class=a\n|-\n| [[cell]] {{t|}}\n{|\n| y\n|}\n|}\nz", "x z", []),
        ("{{t|\n{| \n|a\n|}\n}} after", "after", []),
        ("== Past ==\nOnce.\n=== [[Old]] ===\n----\n* one\n** [[two]]", "Once. one two", [("two", "two")]),
        ("Fact.<ref name=a>See [[x]].</ref><ref name=a /> More<references/>.", "Fact. More.", []),
        ("H<sub>2</sub>O<br />and<!-- [[no]] --> so <math>x < y</math>on", "H2O and so on", []),
        (
            "[https://a.example/b the page], [//c.example], https://d.example",
            "the page, , https://d.example",
            [],
        ),
        ("<nowiki>[[no]] ''x'' {{y}}</nowiki> &amp; AT&T &#91;[", "[[no]] ''x'' {{y}} & AT&T [[", []),
        ("[[A &amp; B]] [[x|&eacute;t&eacute;]]", "A & B été", [("A & B", "A &amp; B"), ("été", "x")]),
        ("__NOTOC__ __init__ stays", "__init__ stays", []),
        ("[[open|x and [[shut]]", "open|x and shut", [("shut", "shut")]),
        ("[[a [[b]] c]] d]]", "a b c d", [("b", "b")]),
        ("{{open and }} then }} x {| y", "then x {| y", []),
        ("<ref>open [[a]]", "open a", [("a", "a")]),
        ("#REDIRECT [[Lake Vessel]]", "", []),
        (" #weiterleitung: [[See]]", "", []),
        ("# [[First]] of a list", "First of a list", [("First", "First")]),
        ("[[a\nb]] [[x|one\n\ntwo]] [[x|one\ntwo]]", "a b x|one two one two", [("one\ntwo", "x")]),
    ],
)
def test_what_a_reader_sees_stays(markup: str, text: str, links: list[tuple[str, str]]) -> None:
    assert shown(markup) == (text, links)


def test_items_and_headings_part_paragraphs() -> None:
    text = read_wikitext("Before\n== H ==\nafter\n* one\n* two\nlast\nline").text
    assert [" ".join(part.split()) for part in text.split("\n\n") if part.strip()] == [
        *("Before", "after", "one", "two"),
        "last line",
    ]


WORD = st.text(st.sampled_from("abcXYé中 ,."), min_size=1, max_size=6)
TITLE = st.sampled_from(["Lake", "lake (water)", "A b", "Été", "X#y", "a_b"])


def wrapped(before: str, inner: st.SearchStrategy[str], after: str) -> st.SearchStrategy[str]:
    return inner.map(lambda held: before + held + after)


LINK = st.builds(lambda title, text: f"[[{title}|{text}]]", TITLE, WORD.filter(str.strip)) | wrapped(
    "[[", TITLE, "]]"
)
MARKUP = st.recursive(
    WORD | LINK,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4).map(" ".join)
        | wrapped("'' ", inner, " ''")
        | wrapped("{{t|", inner, "}}")
        | wrapped("{{{1|", inner, "}}}")
        | wrapped("\n{|\n| ", inner, "\n|}\n")
        | wrapped("<ref>", inner, "</ref>")
        | wrapped("<b>", inner, "</b>")
        | wrapped("\n* ", inner, "\n")
        | wrapped("<!-- ", inner, " -->")
        | wrapped("[[File:a.jpg|thumb|", inner, "]]")
        | wrapped("[https://a.example ", WORD, "]")
    ),
    max_leaves=12,
)


@given(MARKUP)
def test_stripping_twice_is_stripping_once(markup: str) -> None:
    once = read_wikitext(markup)
    assert read_wikitext(once.text) == MarkedText(once.text, [])


SIGNS = [
    "[[",
    "]]",
    "|",
    "{{",
    "}}",
    "{|",
    "|}",
    "\n",
    "''",
    "<ref>",
    "</ref>",
    "<ref/>",
    "<!--",
    "-->",
    "=",
    "*",
]
SIGNS += [
    "a",
    "b",
    " ",
    "File:",
    "&amp;",
    "<nowiki>",
    "</nowiki>",
    "[//x y]",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "é",
    ":",
]


@given(st.lists(st.sampled_from(SIGNS), max_size=30).map("".join) | st.text(max_size=40) | MARKUP)
def test_links_are_places_of_the_text_in_order(markup: str) -> None:
    text, links = read_wikitext(markup)
    at = 0
    for start, end, target in links:
        assert at <= start <= end <= len(text)
        assert "|" not in target
        at = end


@given(st.lists(st.tuples(WORD, TITLE, WORD.filter(str.strip)), max_size=5), WORD)
def test_every_link_holds_its_surface(parts: list[tuple[str, str, str]], rest: str) -> None:
    markup = "".join(f"{before}.[[{title}|{surface}]]. " for before, title, surface in parts) + rest
    text, links = read_wikitext(markup)
    assert [(text[a:b], target) for a, b, target in links] == [(s, t) for _, t, s in parts]
    assert text == "".join(f"{before}.{surface}. " for before, _, surface in parts) + rest


OPEN = [
    "[[",
    "]]",
    "{{",
    "}}",
    "<ref>",
    "<nowiki>",
    "<!--",
    "[[a|",
    "'",
    "=",
    "<",
    "{|\n",
    "[//x ",
    "* ",
    "&lt;a ",
]


@pytest.mark.parametrize(("sign", "end"), [*((sign, "") for sign in OPEN), ("[[a ", "]]"), ("{{a", "}}")])
def test_signs_without_end_take_linear_time(sign: str, end: str) -> None:
    started = time.process_time()
    read_wikitext(sign * 100_000 + end * 100_000)
    assert time.process_time() - started < 20


def test_an_empty_link_is_no_place() -> None:
    assert read_wikitext("[[]] [[|x]]").links == [Link(0, 0, ""), Link(1, 2, "")]
