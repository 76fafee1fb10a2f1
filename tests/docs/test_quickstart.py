"""The quickstart is walked as it is written, with a tiny encoder in the place of MiniLM."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from engine.expander import Expander
from jobs.workers import executor
from serve.http.requests import ExpandRequest
from tests.docs.test_commands import COMMANDS
from tests.support.commands import run_command
from tests.support.documents import ROOT, blocks, command_lines, write_titled
from tests.support.encoders import write_encoder

PAGE = ROOT / "docs" / "quickstart.md"


def test_from_two_files_to_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor, "_has_cluster", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_titled(tmp_path, PAGE)
    write_encoder(tmp_path / "tiny")
    ran, asked = [], []
    for block in blocks(PAGE, "bash"):
        for program, *words in command_lines(block):
            if program == "seedset" and words[0] != "serve":
                more = ("--model", "tiny") if words[0] == "preprocess" else ()
                main = importlib.import_module(COMMANDS[words[0]]).main
                assert run_command(main, *words[1:], *more) == 0, words
                ran.append(words[0])
            if program == "curl":
                asked.append(ExpandRequest.model_validate_json(words[words.index("-d") + 1]))
    first = ["import", "preprocess", "train-encoder", "build-index", "evaluate"]
    assert ran == [*first, "mine-contrast", "train-encoder", "build-index"]
    namespace: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(compile(block.code, block.page, "exec"), namespace)
    (body,) = asked
    positive, negative = ([str(seed) for seed in seeds] for seeds in (body.positive, body.negative))
    assert namespace["answer"] == Expander.open("work").expand(positive, negative, body.top_k)
    assert len(namespace["answer"].results) == body.top_k
