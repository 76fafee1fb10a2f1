"""Make what a run works on, and what comes of it where nothing dies."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cluster.crashing.checker import Ranking, Undisturbed, as_ranking
from cluster.crashing.clients import Question
from cluster.crashing.commands import once, result_of
from cluster.crashing.work import PART_SIZE, PARTS, read_output, summary_of
from engine.expander import Expander
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace

METHODS = ("retexpan", "default")
"""Of the requests; the table is expanded by the last one."""

SENTENCES = (4, 3, 2)
"""Sentences an entity of the model inputs that bundles are made from; training takes the last."""

QUESTIONS, SEEDS, TOP_K = 12, 3, 20
EPOCHS = 400
"""Of the training: long enough to be stopped between two of its checkpoints, which are 2 s apart."""


@dataclass(frozen=True)
class Prepared:
    """What a run works on.

    Args:
        workspace: its folder, with a bundle that is current.
        inputs: keys of the model inputs.
        questions: that are asked over HTTP.
        expand: words of the command that expands the table, without its output.
        train: words of the command that trains.
        due: what comes where nothing dies.
    """

    workspace: Path
    inputs: Sequence[str]
    questions: Sequence[Question]
    expand: Sequence[object]
    train: Sequence[str]
    due: Undisturbed


def prepare(source: Path, folder: Path, seed: int) -> Prepared:
    """Import a corpus, publish a bundle, and do all work once, undisturbed and without a cluster.

    Args:
        source: a corpus in JSON lines.
        folder: for all that is written.
        seed: of the queries.
    """
    workspace = folder / "workspace"
    at = ("--workspace", workspace)
    once("import", *at, "--format", "jsonl", "--source", source)
    inputs = [result_of(once("preprocess", *at, "--max-sentences", n))["key"] for n in SENTENCES]
    bundle = result_of(once("build-index", *at, "--untrained", "--inputs", inputs[0]))["bundle"]
    table = folder / "queries.jsonl"
    names = Bundle.open(Workspace.open(workspace)).vocabulary.names
    drawn = random.Random(seed)
    rows = [question(f"q{number:04}", names, drawn) for number in range(PARTS * PART_SIZE)]
    table.write_text("".join(json.dumps(row.row()) + "\n" for row in rows), encoding="utf-8")
    expand: list[object] = ["expand", *at, "--bundle", bundle, "--queries", table, "--method", METHODS[-1]]
    expand += ["--part-size", PART_SIZE, "--workers", 1]
    once(*expand, "--output", folder / "undisturbed")
    queries, digests = read_output(folder / "undisturbed")
    options = ["--workspace", str(workspace), "--epochs", str(EPOCHS), "--checkpoint-seconds", "2"]
    once("train-encoder", *options)
    runs = workspace / "runs" / "train_encoder"
    loss, steps, _ = summary_of(runs)
    shutil.rmtree(runs)
    asked = [question(f"ask-{number:02}", names, drawn) for number in range(QUESTIONS)]
    judge = Judge(workspace, asked)
    due = Undisturbed(judge.answer, judge.names, queries, digests, loss, steps)
    train = ["python", "-m", "jobs.train_encoder", *options]
    return Prepared(workspace, inputs, asked, expand, train, due)


def question(name: str, names: Sequence[str], drawn: random.Random) -> Question:
    """Return a query of seeds drawn from the names."""
    seeds = drawn.sample(list(names), 2 * SEEDS)
    return Question(name, tuple(seeds[:SEEDS]), tuple(seeds[SEEDS:]), TOP_K)


class Judge:
    """Answers in this process, of whole bundles of a workspace.

    Args:
        workspace: its folder.
        asked: the questions.
    """

    def __init__(self, workspace: Path, asked: Sequence[Question]) -> None:
        self._asked = {one.id: one for one in asked}
        self._open = cache(lambda bundle, method: Expander.open(workspace, method, bundle))
        self.answer = cache(self._answer)

    def _answer(self, bundle: str, method: str, query: str) -> Ranking:
        asked = self._asked[query]
        answer = self._open(bundle, method).expand(asked.positive, asked.negative, asked.top_k)
        return as_ranking((one.id, one.score) for one in answer.results)

    def names(self, bundle: str) -> Sequence[str]:
        """Return a bundle's names by entity id."""
        return self._open(bundle, METHODS[0]).vocabulary.names
