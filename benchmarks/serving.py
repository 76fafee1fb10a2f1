"""Share what the serving benchmarks need: a bundle, a served application in a process of its own, and answers
held against those of one process.

The made-up bundle holds 5,000 names, random views of the sizes that real ones have, and a LLaMA of 24M
parameters with random weights. All is drawn from fixed seeds. Load comes from :mod:`benchmarks.load`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.likelihood import random_llama
from benchmarks.load import Ask, Http, Response
from cluster.processes import stop, wait_for_words
from engine.generation.names import name_trie
from engine.generation.tokenizers import train_tokenizer
from engine.methods import METHODS
from engine.query import Expansion, Query, Ranking
from engine.retrieval.index import VectorIndex, unit
from engine.stages.base import LocalPipeline
from engine.storage.bundle import MANIFEST, Bundle
from engine.storage.publishing import publish
from engine.storage.workspace import Workspace
from engine.vocabulary import ENTITY_SCHEMA
from serve.http.requests import encode
from serve.settings import NAME

ROOT = Path(__file__).parents[1]

PATH = "/v1/expand"

ENTITIES = 5_000
DIMENSIONS = {"mask": 384, "description": 384, "joint": 1024}
TOKENS = 1_000
"""Vocabulary of the tokenizer: names have about six tokens, as real ones. The output layer has 32,000."""

QUERIES, SEEDS, TOP_K = 20, 3, 50

READY_S = 180.0
STOP_S = 60.0

OTHER = "another ranking"
"""Verdict on an answer that one process would not give."""

WIDE = 1e-4
"""Tolerance of a model's score against that of another batch, relatively: products of other shapes differ in
the last digits. Without a model an answer is equal to the last bit."""


def made_up_names(count: int = ENTITIES, seed: int = 0) -> list[str]:
    """Return distinct names of one to three words, made of syllables."""
    random = np.random.default_rng(seed)
    syllables = [
        a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "on")
    ]
    found: dict[str, None] = {}
    while len(found) < count:
        words = (
            "".join(random.choice(syllables, random.integers(2, 4))) for _ in range(random.integers(1, 4))
        )
        found[" ".join(words).title()] = None
    return list(found)


def made_up_bundle(workspace: Workspace) -> Bundle:
    """Publish a random bundle with all that the methods measured need, and return it."""
    staged, names = workspace.bundles.staging(), made_up_names()
    columns = {
        "entity_id": range(len(names)),
        "name": names,
        "aliases": [[] for _ in names],
        "description": [None] * len(names),
        "attributes": [[] for _ in names],
    }
    pq.write_table(pa.table(columns, schema=ENTITY_SCHEMA), staged / "entities.parquet")
    random = np.random.default_rng(0)
    for view, dimensions in DIMENSIONS.items():
        vectors_ND = random.standard_normal((len(names), dimensions), np.float32)
        VectorIndex(unit(vectors_ND)).write(staged / "index" / f"{view}.faiss")
    np.save(staged / "index/joint.hubness.npy", random.random(len(names), np.float32))
    train_tokenizer([f" {name}.\n" for name in names], TOKENS, staged / "lm")
    model = random_llama(staged / "lm")
    model.model.save_pretrained(staged / "lm")
    name_trie(model.tokenizer, names).save(staged / "trie")
    publish(workspace, staged, {"views": DIMENSIONS})
    return Bundle.open(workspace)


def shuffled_bundle(workspace: Workspace, bundle: Bundle) -> Bundle:
    """Publish a bundle with the same names and model whose vectors belong to other entities."""
    staged = workspace.bundles.staging()
    shutil.copytree(bundle.folder, staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    order = np.random.default_rng(1).permutation(len(bundle.vocabulary))
    for path in sorted((staged / "index").glob("*.faiss")):
        vectors_ND = VectorIndex.read(path).vectors_of(order.tolist())
        path.unlink()
        VectorIndex(vectors_ND).write(path)
    publish(workspace, staged, {**bundle.manifest.settings, "shuffled": True}, bundle.id)
    return Bundle.open(workspace)


@contextmanager
def input_of(given: Path | None) -> Iterator[Bundle]:
    """Yield the current bundle of a copy of ``given``'s, or a made-up one: nothing of the user's changes."""
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        workspace = Workspace.open(folder)
        if given is None:
            yield made_up_bundle(workspace)
            return
        bundle = Bundle.open(Workspace.open(given))
        target = Path(folder) / "bundles"
        shutil.copytree(bundle.folder, target / bundle.id)
        (target / "CURRENT").write_text(f"{bundle.id}\n")
        yield Bundle.open(workspace)


class Inputs:
    """Queries, their bodies, and what one process answers to them.

    Args:
        bundle: what is asked.
        count: queries; each has three positive and three negative seeds, drawn from a fixed seed.
    """

    def __init__(self, bundle: Bundle, count: int = QUERIES) -> None:
        random, n = np.random.default_rng(7), len(bundle.vocabulary)
        picks = [random.choice(n, 2 * SEEDS, replace=False).tolist() for _ in range(count)]
        self.bundle = bundle
        self.queries = [
            Query(f"q{number}", tuple(seeds[:SEEDS]), tuple(seeds[SEEDS:]), TOP_K)
            for number, seeds in enumerate(picks)
        ]
        self._opened: dict[str, LocalPipeline] = {}
        self._expected: dict[tuple[str, int], Expansion] = {}

    def answer(self, method: str, place: int) -> Expansion:
        """Answer a query by a method in this process, alone."""
        found = self.local(method)([self.queries[place]])[0]
        self._expected[method, place] = found
        return found

    def expected(self, method: str, place: int) -> Expansion:
        """Return what a query was answered here; answer it if it was not."""
        return self._expected.get((method, place)) or self.answer(method, place)

    def expect(self, methods: Sequence[str]) -> None:
        """Answer all queries by these methods, so that none is computed while the service is measured."""
        for method in methods:
            for place in range(len(self.queries)):
                self.expected(method, place)

    def local(self, method: str) -> LocalPipeline:
        """Return a method in this process, opened once."""
        if method not in self._opened:
            self._opened[method] = METHODS[method].open(self.bundle)
        return self._opened[method]

    def body(self, place: int, method: str) -> bytes:
        """Return the body of a request."""
        query = self.queries[place]
        asked = {"positive": query.positive, "negative": query.negative, "top_k": query.top_k}
        return encode({**asked, "id": query.id, "method": method})


def generative(method: str) -> bool:
    """Return whether a language model has a part in a method's scores."""
    return "lm-" in method or "genexpan" in method


class Judge:
    """Holds answers against those of one process, by the bundle that each names.

    Args:
        inputs: by the bundle's id.
    """

    def __init__(self, *inputs: Inputs) -> None:
        self._inputs = {one.bundle.id: one for one in inputs}

    def __call__(self, place: int, method: str, response: Response) -> str:
        """Return "ok", or what is wrong with the answer to a query."""
        if response.status != 200:
            return f"status {response.status}"
        return self.of_answer(place, method, json.loads(response.body))

    def of_answer(self, place: int, method: str, answer: Mapping[str, Any]) -> str:
        """Return "ok", or what is wrong with an answer of the service."""
        if answer["degraded"]:
            return "degraded"
        expected = self._inputs[answer["bundle"]].expected(method, place)
        found = [(result["id"], result["score"]) for result in answer["results"]]
        return "ok" if agree(found, expected.ranking, generative(method)) else OTHER


def agree(found: Sequence[tuple[int, float]], expected: Ranking, loosely: bool) -> bool:
    """Return whether (id, score) pairs equal a ranking to the last bit.

    ``loosely``: entities whose scores are the same within :data:`WIDE` may change places (the last one with
    one left out).
    """
    ids = [entity for entity, _ in found]
    scores = np.array([score for _, score in found], np.float32)
    if len(ids) != len(expected) or len(set(ids)) != len(ids):
        return False
    if not loosely:
        return ids == expected.ids.tolist() and bool(np.array_equal(scores, expected.scores))
    own = dict(zip(expected.ids.tolist(), expected.scores.tolist(), strict=True))
    due = np.array([own.get(entity, expected.scores[-1]) for entity in ids])
    close = WIDE * float(np.abs(expected.scores).max())
    same_place = np.abs(scores - expected.scores) <= close
    return bool((same_place & (np.abs(scores - due) <= close)).all())


@dataclass(frozen=True)
class Server:
    """A service in a process of its own, with all that it started."""

    url: str
    process: psutil.Process

    def tree(self) -> list[psutil.Process]:
        """Return the process and all below it."""
        return [self.process, *self.process.children(recursive=True)]

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Return the processes of a deployment's replicas."""
        title = f"ray::ServeReplica:{NAME}:{deployment}"
        return [child for child in self.tree() if title_of(child) == title]

    def rss(self) -> int:
        """Return the resident bytes of the process and all below it."""
        return sum(_rss(process) for process in self.tree())


def title_of(process: psutil.Process) -> str:
    """Return what a process calls itself, less the call that it is in; nothing once it is gone."""
    try:
        first, *_ = process.cmdline()
    except (psutil.Error, ValueError):
        return ""
    return first.partition(".")[0]


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@contextmanager
def server(workspace: Path, port: int, *options: str, module: str = "serve.run") -> Iterator[Server]:
    """Run a service while the block runs, as a user starts it; its output goes to a file.

    Raises:
        UserError: it does not come up; with the end of what it wrote.
    """
    command = [sys.executable, "-m", module, f"--workspace={workspace}", f"--port={port}", *options]
    # Ray gives each replica as many threads as it has cores, unless the environment says otherwise.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    # Who is told to end, by `timeout` say, must end the service too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        try:
            wait_for_words(process, "serving at", Path(log.name), READY_S)
            yield Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
        finally:
            signal.signal(signal.SIGTERM, before)
            stop(process, STOP_S)


def asker(
    http: Http, inputs: Inputs, methods: Sequence[str], judge: Callable[[int, str, Response], str]
) -> Ask:
    """Return what sends the queries in turn, by the methods in turn, and judges the answers."""
    pairs = [(place, method) for place in range(len(inputs.queries)) for method in methods]
    bodies = [inputs.body(place, method) for place, method in pairs]

    async def ask(number: int) -> tuple[float, str]:
        chosen = number % len(pairs)
        response = await http.post(PATH, bodies[chosen])
        end = time.monotonic()
        return end, judge(*pairs[chosen], response)

    return ask


def verdict(holds: bool) -> str:
    """Return how a bar was met, for the table."""
    return "holds" if holds else "MISSED"
