"""Every command of the documents is one that its own parser takes, or a program that is named here."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.commandline import Command
from cluster.seedset import entries
from tests.support.documents import PAGES, ROOT, Block, blocks, code_spans, command_lines

COMMANDS = {name: entry.module for name, entry in entries()}

HTTP = ("curl", "post", "post()")
"""Requests: see test_http."""
OTHERS = {
    "ray": ("up", "dashboard", "get-auth-token", "job"),
    "serve": ("deploy", "build"),
    "source": (".venv/bin/activate",),
    "tensorboard": ("--logdir",),
    "kubectl": ("apply", "-n"),
    "docker": ("build",),
}
"""Programs of others, by what may follow."""

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

SHELL = [block for page in PAGES for block in blocks(page, "bash")]

SPANS = [
    (page, shlex.split(span))
    for page in PAGES
    for span in code_spans(page)
    if re.match(r"(seedset|python -m|make|tensorboard|serve|pip) [a-z]", span) and "NAME" not in span
]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_every_command_is_taken(block: Block, world: Path) -> None:
    for words in command_lines(block):
        take(words, block.place)


def test_commands_in_passing_are_taken(world: Path) -> None:
    assert len(SPANS) > 10
    for page, words in SPANS:
        module = COMMANDS.get(words[1], "") if words[0] == "seedset" else ""
        if module and not {"--workspace", "--table"} & set(words):  # said of the command, not to be typed
            known = CliRunner().invoke(importlib.import_module(module).main.app, ["--help"]).stdout
            assert all(word in known for word in words[2:] if word.startswith("--")), f"{page.name}: {words}"
        else:
            take(words, page.name)


def test_documents_show_every_command() -> None:
    shown = {words[1] for block in SHELL for words in command_lines(block) if words[0] == "seedset"}
    assert shown == set(COMMANDS)


def take(words: list[str], place: str) -> None:
    """Parse the command in the words; run it where that is quick: what prints settings, or explains them."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    if program in HTTP:
        return
    if program == "make":
        assert {word for word in rest if "=" not in word} <= TARGETS, f"{place}: no such target in {words}"
    elif program == "seedset":
        if rest[1:]:
            take_ours(COMMANDS[rest[0]], rest[1:], place)
    elif words[:2] == ["python", "-m"]:
        take_module(words[2], words[3:], place)
    elif program == "pip":
        assert words[1] == "install"
    else:
        assert program in OTHERS, f"{place}: {program} is not known here"
        assert rest[0] in OTHERS[program], f"{place}: {words}"
        if program in ("kubectl", "docker"):
            files = [after for word, after in itertools.pairwise(words) if word == "-f"]
            assert all((ROOT / file).is_file() for file in files), f"{place}: {words}"
        if "--" in rest:
            take(rest[rest.index("--") + 1 :], place)


def take_module(module: str, words: list[str], place: str) -> None:
    if module in COMMANDS.values():
        take_ours(module, words, place)
    else:
        assert importlib.util.find_spec(module), f"{place}: no module {module}"


def take_ours(module: str, words: list[str], place: str) -> None:
    command: Command[Any] = importlib.import_module(module).main
    redirected = words.index(">") if ">" in words else len(words)
    given, file = words[:redirected], words[redirected + 1 :]
    if {"--print-config", *(action.flag for action in command.actions)} & set(given):
        done = CliRunner().invoke(command.app, given, catch_exceptions=False)
        assert done.exit_code == 0, f"{place}: {done.output}"
        if file:
            Path(file[0]).write_text(done.stdout, encoding="utf-8")
    else:
        command.parse(given)
