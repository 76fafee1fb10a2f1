"""What holds of every page: its length, its links, the paths it names; and what code cites."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.documents import PAGES, ROOT, blocks, code_spans, links

WORDS = 900

ROOMS = ("benchmarks", "cluster", "docs", "engine", "examples", "jobs", "serve", "tests")

PATH = re.compile(rf"(?:{'|'.join(ROOMS)})/[\w./-]*")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in links(page):
        file, _, _ = target.partition("#")
        if file == "changelog.md":  # docs/hooks.py makes that page
            file = "../CHANGELOG.md"
        assert not re.match(r"[a-z]+:", file), f"{page.name}: {target} leaves the repository"
        assert not file or (page.parent / file).is_file(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page: Path) -> None:
    for span in code_spans(page):
        if PATH.fullmatch(span):
            assert (ROOT / span).exists(), f"{page.name}: {span}"


def test_every_room_is_in_the_tree() -> None:
    tree = blocks(ROOT / "docs" / "architecture.md", "text")[0].code
    named = set(re.findall(r"[\w.]+", tree))
    for room in ("engine", "serve"):
        inside = {
            p.stem for p in (ROOT / room).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
        }
        lacking = inside - named - {Path(name).stem for name in named} - {"__init__"}
        assert lacking <= {"messages", "errors"}, f"not in the tree of {room}/: {sorted(lacking)}"


def test_code_cites_no_document_that_is_not_here() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.toml", "*.yaml", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in tracked:
        if name.startswith("tests/docs/"):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        for cited in re.findall(r"[\w./-]+\.md\b", text):
            places = (ROOT / cited, (ROOT / name).parent / cited, ROOT / "docs" / cited)
            made = cited.endswith(("report.md", "changelog.md"))  # by programs
            assert made or any(place.exists() for place in places), f"{name}: {cited}"
        assert not re.search(r"METHODS(?:, section|: as )|: METHODS,", text), f"{name}: cites METHODS"
