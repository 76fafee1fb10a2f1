"""Every Python block of the documents runs, in order within its page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.expander import Expander
from tests.support.corpora import run_import
from tests.support.documents import PAGES, ROOT, Block, blocks

SERVED = "http://localhost:8000"

WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.stem != "quickstart"]
"""The quickstart is walked as a whole: see test_quickstart."""


def run(some: list[Block], url: str) -> dict[str, Any]:
    """Run blocks one after another in one namespace, and return that."""
    namespace: dict[str, Any] = {"__name__": "documents"}
    for block in some:
        source = "\n" * (block.line - 1) + block.code.replace(SERVED, url)
        exec(compile(source, block.page, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, world: Path, url: str) -> None:
    run(blocks(page, "python"), url)


def test_an_own_method_changes_the_order_as_it_says(world: Path, url: str) -> None:
    mine = run(blocks(ROOT / "docs" / "python-api.md", "python"), url)["mine"]
    found = mine.expand(["Japan"], top_k=30).results
    gained = [one.evidence["same_initial"] for one in found if one.name.startswith("J")]
    assert gained == [1]  # Jordan: Japan is the seed
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_what_contributors_are_shown_works(world: Path, url: str) -> None:
    made = run(blocks(ROOT / "docs" / "contributing.md", "python"), url)
    assert len(Expander.open("work", "shortened").expand(["Japan"]).results) == 10
    (world / "mine.glossary").write_text("gold: They dug for gold.\nno colon\ntin: Tin melts early.\n")
    taken = run_import(world / "other", world / "mine.glossary", "glossary")
    assert taken.held == [("gold", "gold"), ("tin", "Tin")]
    assert taken.reasons == [("line 2, byte 25", "no colon between entity and sentence")]
    views = SimpleNamespace(views={})
    made["build_letters"](SimpleNamespace(descriptions=["abba", ""]), views)
    assert views.views["letters"].shape == (2, 26)
    assert views.views["letters"][0, :2] == pytest.approx([0.5**0.5] * 2)
