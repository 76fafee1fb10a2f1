"""The quickstart is walked as it is written, with a tiny encoder in the place of MiniLM."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.expander import Expander
from engine.storage.store import Store
from jobs.workers import executor
from serve.http.requests import ExpandRequest
from tests.docs.test_commands import COMMANDS
from tests.support.commands import run_command
from tests.support.documents import ROOT, blocks, command_lines, write_titled
from tests.support.encoders import write_encoder

PAGE = ROOT / "docs" / "quickstart.md"


BUCKET = "s3://bucket"
"""What the page calls a bucket of the reader's."""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files and a tiny encoder, in which the commands run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor, "has_cluster", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_titled(tmp_path, PAGE)
    write_encoder(tmp_path / "tiny")
    return tmp_path


def walk(lines: list[list[str]]) -> list[str]:
    """Run command lines, with the tiny encoder; return the commands' names."""
    for _, *words in lines:
        more = ("--model", "tiny") if words[0] == "preprocess" else ()
        main = importlib.import_module(COMMANDS[words[0]]).main
        assert run_command(main, *words[1:], *more) == 0, words
    return [words[1] for words in lines]


def test_from_two_files_to_an_answer(page: Path) -> None:
    shown = [words for block in blocks(PAGE, "bash") for words in command_lines(block)]
    own = [w for w in shown if w[0] == "seedset" and w[1] != "serve" and BUCKET not in " ".join(w)]
    first = ["import", "preprocess", "train-encoder", "build-index", "evaluate"]
    assert walk(own) == [*first, "mine-contrast", "build-index", "train-encoder", "build-index"]
    namespace: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(compile(block.code, block.page, "exec"), namespace)
    (body,) = [
        ExpandRequest.model_validate_json(words[words.index("-d") + 1])
        for words in shown
        if words[0] == "curl"
    ]
    positive, negative = ([str(seed) for seed in seeds] for seeds in (body.positive, body.negative))
    assert namespace["answer"] == Expander.open("work").expand(positive, negative, body.top_k)
    assert len(namespace["answer"].results) == body.top_k


def test_from_raw_texts_on_a_bucket_to_a_table_of_answers(page: Path, s3: str) -> None:
    """The tables are as Spark writes them; the texts are the page's sentences, which name no entity."""
    rows = [json.loads(line) for line in (page / "birds/sentences.jsonl").read_text("utf-8").splitlines()]
    bucket = Store.open(s3)
    names = list(dict.fromkeys(row["entity"] for row in rows))
    queries = [json.loads(line) for line in (page / "queries.jsonl").read_text("utf-8").splitlines()]
    texts = [row["sentence"] for row in rows]
    asked = {"request": [q["id"] for q in queries], "day": [1] * len(queries)}
    asked |= {"wanted": [q["positive"] for q in queries], "unwanted": [q["negative"] for q in queries]}
    tables = {
        "products": pa.table({"title": names, "price": pa.nulls(len(names))}),
        "asked": pa.table(asked),
        "reviews": pa.table({"body": texts, "n": range(len(texts))}),
        "labelled": pa.table({"product": [row["entity"] for row in rows], "comment": texts}),
    }
    for name, table in tables.items():
        with (bucket / name / "part-00000-1f.c000.snappy.parquet").writing() as path:
            pq.write_table(table, path, flavor="spark")  # one part, for which this process is enough
        for beside in ("_SUCCESS", ".part-00000-1f.c000.snappy.parquet.crc"):
            (bucket / name / beside).write_bytes(b"")
    lines = [words for block in blocks(PAGE, "bash") for words in command_lines(block)]
    on_bucket = [[w.replace(BUCKET, s3) for w in words] for words in lines if BUCKET in " ".join(words)]
    commands = ["link", "import", "preprocess", "train-encoder", "build-index", "expand", "import"]
    assert walk(on_bucket) == commands
    (part,) = (bucket / "answers").files(".parquet")
    with part.open_input() as stream:
        answers = pq.read_table(stream)
    assert set(answers["query_id"].to_pylist()) == {query["id"] for query in queries}
    assert set(answers["name"].to_pylist()) <= set(names)
