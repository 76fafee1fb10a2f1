"""Texts whose links mark mentions: to entities by title, alias and redirect, with exact places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.link import main
from jobs.steps.linking import LinkTask, LinkWorker
from tests.support.commands import run_command
from tests.support.corpora import jsonl, run_import

ENTITIES: list[dict[str, Any]] = [
    {"name": "Mira Sound", "aliases": ["Mira Sound (strait)", "The Sound"]},
    {"name": "Vessel Island", "aliases": ["Vessel"], "description": "An island of fishermen."},
    {"name": "Vessel (ship)", "aliases": ["Vessel"], "description": "A ship that carries coal."},
    {"name": "lighthouse"},
    {"name": "Old Harbour"},
]

PAGE = """{{Infobox strait|name={{nowrap|Mira Sound}}|see=[[Old Harbour]]}}
'''Mira  Sound'''<ref>[[lighthouse]]</ref> parts
[[Vessel Island|the island of Mr. Vessel]] from the [[mainland]].
[[File:Sound.jpg|thumb|The [[lighthouse]].]]
== Trade ==
* Coal comes by [[Vessel|an old vessel]].
* Its [[lighthouse]]s shine over the [[mira_Sound (strait)#West|strait]].
* Boats rest in the [[old port]]. Cafe\u0301s of [[Yahoo! Bay|Mira! Bay]] are [[The Sound|]] no more.
[[Category:Straits]]
"""

HTML = (
    'Mira Sound\n\nIt parts <a href="Vessel%20Island">the island</a> from '
    'the <a href="mainland">mainland</a>.\n'
    "Boats rest in the &lt;a href=&quot;old%20port&quot;&gt;port&lt;/a&gt;."
)


def link(root: Path, *extra: object, page: str = PAGE, markup: str = "wikitext") -> int:
    entities = jsonl(root / "e.jsonl", ENTITIES)
    texts = root / "raw" / "AA" / "wiki_00"
    if not texts.exists():
        jsonl(texts, [{"id": "1", "title": "Mira", "text": page}])
    redirects = root / "r.csv"
    redirects.write_text(
        "from,to\nold port,Old Harbour\nYahoo! Bay,Vessel_Island\nnothing,nowhere\n", "utf-8"
    )
    words = ["--entities", entities, "--texts", texts.parent.parent, "--text-format", "jsonl"]
    words += ["--text-columns", "text=text,document=title", "--markup", markup]
    words += ["--redirects", redirects] if markup != "none" else []
    return run_command(main, *words, "--output", root / "out", "--workers", 1, *extra)


def rows(root: Path) -> list[dict[str, Any]]:
    files = sorted((root / "out" / "sentences").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def mentions(root: Path) -> list[tuple[str, str, str]]:
    return [(r["entity"], r["sentence"][r["start"] : r["end"]], r["sentence"]) for r in rows(root)]


EXPECTED = [
    (
        "Vessel Island",
        "the island of Mr. Vessel",
        "Mira Sound parts the island of Mr. Vessel from the mainland.",
    ),
    ("lighthouse", "lighthouses", "Its lighthouses shine over the strait."),
    ("Mira Sound", "strait", "Its lighthouses shine over the strait."),
    ("Old Harbour", "old port", "Boats rest in the old port."),
    ("Vessel Island", "Mira! Bay", "Cafés of Mira! Bay are The Sound no more."),
    ("Mira Sound", "The Sound", "Cafés of Mira! Bay are The Sound no more."),
]


def test_links_of_wikitext_are_the_mentions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert link(tmp_path) == 0
    told = capsys.readouterr()
    assert "entities=5 texts=1 sentences=5 mentions=6 drawn=6 refused=0" in told.out
    assert "redirects: 2 lead to entities" in told.err
    assert mentions(tmp_path) == EXPECTED
    assert {row["document"] for row in rows(tmp_path)} == {"Mira"}
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| links | 8 |" in report
    assert "| of these to no entity | 1 |" in report
    assert "## Links to no entity of the table: 1" in report
    assert "| Mainland | 1 |" in report
    assert "Coal comes by [an old vessel]." in report
    got = run_import(tmp_path / "w", tmp_path / "out", "parquet")
    assert (got.manifest.counts.mentions, got.quarantine) == (6, [])
    narrowed = {"the island of Mr. Vessel": "Vessel", "lighthouses": "lighthouse"}  # to the name within
    assert sorted(got.held) == sorted((entity, narrowed.get(held, held)) for entity, held, _ in EXPECTED)


@pytest.mark.parametrize(("policy", "entities"), [("all", [1, 2]), ("nearest", [2])])
def test_ambiguous_links_are_decided_as_names_are(tmp_path: Path, policy: str, entities: list[int]) -> None:
    assert link(tmp_path, "--ambiguous", policy) == 0
    found = [one for one in mentions(tmp_path) if one not in EXPECTED]
    names = [ENTITIES[place]["name"] for place in entities]
    assert found == [(name, "an old vessel", "Coal comes by an old vessel.") for name in names]


def test_links_that_wikiextractor_writes(tmp_path: Path) -> None:
    assert link(tmp_path, page=HTML, markup="wikiextractor") == 0
    assert mentions(tmp_path) == [
        ("Vessel Island", "the island", "It parts the island from the mainland."),
        ("Old Harbour", "port", "Boats rest in the port."),
    ]


def test_texts_that_are_not_split_are_one_sentence(tmp_path: Path) -> None:
    assert link(tmp_path, "--no-split") == 0
    found = mentions(tmp_path)
    assert [one[:2] for one in found] == [one[:2] for one in EXPECTED]
    assert len({sentence for *_, sentence in found}) == 1
    assert run_import(tmp_path / "w", tmp_path / "out", "parquet").manifest.counts.mentions == len(EXPECTED)


def test_a_rerun_links_again_what_other_redirects_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked: list[str] = []
    call = LinkWorker.__call__

    def noting(self: LinkWorker, task: LinkTask) -> Any:
        linked.append(task.source)
        return call(self, task)

    monkeypatch.setattr(LinkWorker, "__call__", noting)
    assert link(tmp_path) == 0
    assert link(tmp_path) == 0
    assert len(linked) == 1
    other = jsonl(tmp_path / "other.jsonl", [{"title": "mainland", "target": "Vessel Island"}])
    columns = ("--redirects", other, "--redirect-columns", "from=title,to=target")
    assert link(tmp_path, *columns) == 0
    assert len(linked) == 2
    assert ("Vessel Island", "mainland") in {one[:2] for one in mentions(tmp_path)}
    assert link(tmp_path, markup="none") == 0
    assert len(linked) == 3
    assert "annotated" not in rows(tmp_path)[0]


def test_rows_of_redirects_that_cannot_be_used_are_in_quarantine(tmp_path: Path) -> None:
    bad = jsonl(
        tmp_path / "bad.jsonl", [{"from": "old port", "to": "Old Harbour"}, {"from": 3, "to": "x"}, "{"]
    )
    assert link(tmp_path, "--redirects", bad) == 0
    lines = (tmp_path / "out" / "quarantine" / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    found = [(one["source"], one["code"]) for one in map(json.loads, lines)]
    assert found == [("bad.jsonl", "wrong_type"), ("bad.jsonl", "not_json")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--redirects", "{}/e.jsonl"],
            "e.jsonl: no column from (found: name, aliases); give --redirect-columns",
        ),
        (["--redirects", "{}/none.jsonl"], "none leads to an entity of --entities"),
        (["--redirect-columns", "title=x"], "there is no column title; known are from, to"),
        (["--markup", "none"], "--redirects has no effect without --markup"),
        (["--case", "any"], "--case has no effect with --markup"),
        (["--no-compounds"], "--no-compounds has no effect with --markup"),
        (["--too-common", "1"], "--too-common has no effect with --markup"),
        (["--markup", "html"], "--markup"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    jsonl(tmp_path / "none.jsonl", [{"from": "a", "to": "b"}])
    assert link(tmp_path, *(word.format(tmp_path) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_texts_without_a_link_to_an_entity_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert link(tmp_path, page="Only a [[stone]] and the lighthouse.") == 2
    assert "none of 5 entities is what one of 1 links leads to; see" in capsys.readouterr().err
