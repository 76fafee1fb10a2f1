"""Compare conditioned retrieval of recalled entities with its authors' way, which reads every entity anew.

    python -m benchmarks.conditioned_retrieval --workspace W --queries FOLDER --every 13

The workspace's bundle holds a contrastive training (``seedset train-encoder --contrast newest --seed-text``,
``seedset build-index``). For some of the queries every sentence of every entity is read with the query's
seeds appended, once, and the states are kept below ``--out``, a file a query: a rerun goes on where it
ended. From these each setting of ``retexpan+contrast-conditioned`` is answered without reading anything
again: how many entities are recalled (k), how many sentences of each are read, and whether the mean over all
is estimated (:mod:`engine.retrieval.entity_sentences`).

Of each setting: sentences a query and the share of the authors', agreement with their list (how many of their
first 10 and 100 stand among the first as many here), and CombMAP on the queries with even numbers, to choose
by, and on those with odd ones, to report. Take an odd ``--every``, so that both kinds are met. Queries ask
for as many entities as the figures look at, for a stage keeps as many as a query wants, whatever its k. With
``--timed`` the default method reads a few queries itself, in CPU seconds. ``--count`` needs no contrastive
training: it counts, for all queries, the sentences that either way reads, of entities recalled by the mask
view, and reads none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.corpus.inputs.format import open_inputs
from engine.evaluation.measuring import QueryScore
from engine.evaluation.metrics import CUTOFFS
from engine.evaluation.report import evaluate
from engine.methods import method
from engine.queries.formats import LabelledQuery, QuerySet, read_queries
from engine.query import Expansion
from engine.retrieval.entity_sentences import CONTRAST, Sentence
from engine.stages.base import LocalPipeline, Pipeline, counts_of
from engine.stages.conditioned_encoder import ConditionedEncoder
from engine.stages.conditioned_retrieve import ConditionedRetrieve
from engine.stages.encode_new_entities import max_length
from engine.stages.options import change
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import InputRows

RECALLED = (100, 150, 200, 300, 400, 600)
SENTENCES = (1, 2, 4)
WHOLE = (0, 30, 40, 50)
COLUMNS = ("PosMAP@10", "NegMAP@10", "PosMAP@100", "NegMAP@100", "CombMAP")
FIRST = (10, 100)


class RecordedEncoder(ConditionedEncoder):
    """An encoder that reads every sentence the first time that a query comes, and never again.

    Args:
        encoder: that reads.
        folder: where the states are kept, a file a seed text.
    """

    def __init__(self, encoder: ConditionedEncoder, folder: Path) -> None:
        self.__dict__.update(encoder.__dict__ | {"_kept": OrderedDict()})
        self._folder = folder
        self._last: tuple[bytes, npt.NDArray[np.float32]] = b"", np.zeros((0, 0), np.float32)

    def forget(self) -> None:
        """Forget answers: what they took is counted anew."""
        self._kept.clear()

    def states(
        self, rows: Sequence[int], text: Sentence, before_pass: Callable[[], None] = lambda: None
    ) -> npt.NDArray[np.float32]:
        """Return the states of some sentences out of those of all."""
        return np.asarray(self.every(text)[list(rows)])

    def every(self, text: Sentence) -> npt.NDArray[np.float32]:
        """Return the states of all sentences under a seed text, from its file or after it was written."""
        key = text.tobytes()
        if self._last[0] != key:
            file = self._folder / f"{hashlib.sha256(key).hexdigest()[:16]}.npy"
            if not file.exists():
                started, count = time.process_time(), int(self.sentences.starts[-1])
                states = super().states(range(count), text)
                beside = file.with_suffix(".tmp.npy")
                np.save(beside, states, allow_pickle=False)
                beside.rename(file)
                spent = round(time.process_time() - started, 1)
                file.with_suffix(".json").write_text(json.dumps({"sentences": count, "cpu_s": spent}))
                print(f"  {file.stem}: {count} sentences in {spent} CPU seconds", flush=True)
            self._last = key, np.load(file, allow_pickle=False)
        return self._last[1]


@dataclass(frozen=True)
class Measured:
    """Figures of one pipeline: columns of either half, sentences a query, and the lists by query."""

    columns: dict[str, dict[str, float]]
    sentences: float
    lists: dict[str, list[int]]

    def agreement(self, other: Measured) -> list[float]:
        """Return the share of another's first entities that stand among the first as many here, in
        percent."""
        return [
            100
            * float(np.mean([len({*own[:n]} & {*other.lists[q][:n]}) / n for q, own in self.lists.items()]))
            for n in FIRST
        ]


def measured(
    pipeline: Pipeline, bundle: Bundle, recorded: RecordedEncoder, halves: dict[str, QuerySet]
) -> Measured:
    """Measure a pipeline on both halves of the queries."""
    run = LocalPipeline([(stage, stage.open(bundle)) for stage in pipeline.stages])
    recorded.forget()
    columns: dict[str, dict[str, float]] = {}
    lists: dict[str, list[int]] = {}

    def keep(score: QueryScore) -> None:
        lists[score.query.query.id] = score.ranking.ids.tolist()

    for half, queries in halves.items():
        overall = evaluate(run, queries, batch_size=1, on_score=keep)["overall"]
        columns[half] = {column: float(overall[column]) for column in COLUMNS}
    counted = [counts_of(worker).get("sentences", 0) for _, worker in run.opened]
    return Measured(columns, sum(counted) / max(len(lists), 1), lists)


def settings(most: int) -> Iterator[tuple[str, Pipeline]]:
    """Yield the settings of ``retexpan+contrast-conditioned`` that are compared, by name."""
    for k, sentences, whole in product(RECALLED, SENTENCES, WHOLE):
        if k < most:
            changed = {"Retrieve.k": k, "ConditionedRetrieve.sentences": sentences}
            changed |= {"ConditionedRetrieve.whole": whole}
            yield (
                f"{k} of {sentences}, {whole} whole",
                change(method("retexpan+contrast-conditioned"), changed),
            )
        if k < most and not whole:
            changed["ConditionedRetrieve.estimated"] = False
            yield (
                f"{k} of {sentences}, not estimated",
                change(method("retexpan+contrast-conditioned"), changed),
            )


def halves_of(queries: Sequence[LabelledQuery], every: int) -> dict[str, QuerySet]:
    """Return every n-th query, those with even numbers and those with odd ones, as they are asked here."""
    halves: dict[str, list[LabelledQuery]] = {"even": [], "odd": []}
    for i in range(0, len(queries), every):
        asked = replace(queries[i].query, top_k=CUTOFFS[-1])
        halves["odd" if i % 2 else "even"].append(replace(queries[i], query=asked))
    return {half: QuerySet(own) for half, own in halves.items()}


def line(name: str, own: Measured, whole: Measured | None) -> str:
    """Return a row of the table."""
    cells = [name, f"{own.sentences:,.0f}"]
    fewer = whole.sentences / own.sentences if whole and own.sentences else None
    cells.append("" if fewer is None else f"{fewer:.0f}")
    cells += [f"{a:.1f}" for a in own.agreement(whole)] if whole else ["", ""]
    cells += [f"{own.columns[half]['CombMAP']:.2f}" for half in ("even", "odd")]
    cells += [f"{own.columns['odd'][column]:.2f}" for column in COLUMNS[:-1]]
    return f"| {' | '.join(cells)} |"


def timed(bundle: Bundle, encoder: ConditionedEncoder, queries: QuerySet, n: int) -> None:
    """Print the CPU seconds that the default settings take for some queries."""
    fresh = Bundle(bundle.manifest, bundle.folder)
    fresh.provide(CONTRAST, encoder)
    run = LocalPipeline(
        [(stage, stage.open(fresh)) for stage in method("retexpan+contrast-conditioned").stages]
    )
    run([queries.queries[0].query])  # what is read once
    started = time.process_time()
    for labelled in queries.queries[1 : n + 1]:
        run([labelled.query])
    spent = time.process_time() - started
    read = sum(counts_of(worker).get("sentences", 0) for _, worker in run.opened)
    print(
        f"retexpan+contrast-conditioned: {spent / n:.2f} CPU seconds a query, {read / (n + 1):.0f} sentences"
    )


def counted(workspace: Workspace, bundle: Bundle, queries: QuerySet) -> None:
    """Print how many sentences the authors read for a query, and how many a conditioned one does here."""
    drawn_N = np.zeros(len(bundle.vocabulary), np.int64)
    for part in open_inputs(workspace).parts:
        rows = InputRows.read(part.local_copy(machine_cache()), with_ids=False)
        drawn_N += np.bincount(rows.entity_id, minlength=len(drawn_N))
    recall, conditioned, _ = method("retexpan+contrast-conditioned").stages
    assert isinstance(recall, Retrieve)
    assert isinstance(conditioned, ConditionedRetrieve)
    n = conditioned.sentences or np.iinfo(np.int64).max
    run = recall.model_copy(update={"view": "mask"}).open(bundle)
    asked = [labelled.query for labelled in queries.queries]
    read = np.array([
        drawn_N[[*e.query.seeds, *e.ranking.ids[: conditioned.whole]]].sum()
        + drawn_N[e.ranking.ids[conditioned.whole :]].clip(max=n).sum()
        for e in run([Expansion(query) for query in asked])
    ])  # fmt: skip
    whole, mean, most = drawn_N.sum(), read.mean(), read.max()
    print(
        f"{len(asked)} queries: {whole:,} sentences of {len(drawn_N):,} entities are read by the authors' way"
    )
    print(f"here {mean:,.0f} a query ({whole / mean:.0f} times fewer), {most:,} at most ({whole / most:.0f})")


def main() -> None:
    """Read what is missing and print a table of all settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--queries", required=True, help="a folder of labelled queries")
    parser.add_argument("--every", type=int, default=13, help="take one query in so many, an odd number")
    parser.add_argument("--out", type=Path, help="[default: WORKSPACE/conditioned_retrieval]")
    parser.add_argument("--timed", type=int, default=0, help="time so many queries")
    parser.add_argument("--count", action="store_true", help="count sentences alone")
    given = parser.parse_args()
    workspace = Workspace.open(given.workspace)
    bundle = Bundle.open(workspace)
    names = bundle.vocabulary.names
    queries = read_queries(Store.open(given.queries), bundle.vocabulary)
    if given.count:
        counted(workspace, bundle, queries)
        return
    encoder = ConditionedEncoder.read(bundle.path(CONTRAST), names, max_length(bundle))
    halves = halves_of(queries.queries, given.every)
    if given.timed:
        timed(bundle, encoder, halves["odd"], given.timed)
    folder = (given.out or Path(given.workspace) / "conditioned_retrieval") / bundle.id
    folder.mkdir(parents=True, exist_ok=True)
    recorded = RecordedEncoder(encoder, folder)
    bundle.provide(CONTRAST, recorded)
    head = ["setting", "sentences a query", "times fewer", *(f"agreement@{n}" for n in FIRST)]
    head += ["CombMAP even", "odd", *(f"{column} odd" for column in COLUMNS[:-1])]
    print(f"{sum(len(own.queries) for own in halves.values())} queries, {len(names)} entities", flush=True)
    whole = measured(method("retexpan+contrast-everything"), bundle, recorded, halves)
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    print(line("every entity", whole, whole))
    for name in ("retexpan", "retexpan+contrast"):
        print(line(name, measured(method(name), bundle, recorded, halves), whole))
    for name, pipeline in settings(len(names)):
        print(line(name, measured(pipeline, bundle, recorded, halves), whole), flush=True)


if __name__ == "__main__":
    main()
