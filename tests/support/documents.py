"""The documents as data: their code blocks, code spans and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r'^```(\w+)?(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: its language, its title ("" without one), its text, and the line it begins at."""

    page: Path
    language: str
    title: str
    code: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, language: str) -> list[Block]:
    """Return a page's code blocks in a language, in order."""
    text = page.read_text(encoding="utf-8")
    every = [
        Block(page, m[1] or "", m[2] or "", m[3], text.count("\n", 0, m.start(3)) + 1)
        for m in _FENCE.finditer(text)
    ]
    return [block for block in every if block.language == language]


def prose(page: Path) -> str:
    """Return a page's text without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def code_spans(page: Path) -> list[str]:
    """Return what stands between single backticks, line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def command_lines(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block; comments are left out."""
    held = ""
    for line in block.code.splitlines():
        held = f"{held}{line}"
        if held.endswith("\\"):
            held = held[:-1]
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quotation goes on
            held += "\n"
            continue
        held = ""
        if words:
            yield words
    assert not held, f"{block.place}: the last command has no end"


def write_titled(folder: Path, page: Path) -> None:
    """Write the JSON blocks of a page that are titled with a file's name into a folder."""
    for block in blocks(page, "json"):
        if block.title.endswith((".jsonl", ".json")):
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code, encoding="utf-8")


def first_cells(page: Path, heading: str, column: int = 0) -> list[str]:
    """Return the code spans of one column of the tables below a heading, in order."""
    text = page.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    tables = re.findall(r"^\| ---.*\n((?:\|.*\n?)*)", text, re.MULTILINE)
    rows = [line.split(" | ") for table in tables for line in table.splitlines()]
    return [span for row in rows if len(row) > column for span in re.findall(r"`([^`]+)`", row[column])]
