"""Compare conditioned retrieval of recalled entities with its authors' way, which reads every entity anew.

    python -m benchmarks.conditioned_retrieval --workspace W --queries FOLDER --every 13

The workspace's bundle holds a contrastive training (``seedset train-encoder --contrast newest --seed-text``,
``seedset build-index``). For some of the queries every sentence of every entity is read with the query's
seeds appended, once, and the states are kept below ``--out``, a file a query: a rerun goes on where it
ended. From these each setting of ``retexpan+contrast-conditioned`` is answered without reading anything
again: how many entities are recalled (k), how many sentences of each are read, and whether the mean over all
is estimated (:mod:`engine.retrieval.entity_sentences`).

``--whole N`` reads less for the authors' way, where a vocabulary is too large to be read once a query: one
sentence of every entity, and all sentences of the N first by the estimate from these. Their first 100, of
which CombMAP is made, are the same as long as each is among those N. ``--settings default`` compares the
default setting alone.

Of each setting: sentences a query and the share of the authors', agreement with their list (how many of their
first 10 and 100 stand among the first as many here), CombMAP on the queries with even numbers, to choose
by, and on those with odd ones, to report, and its difference from the authors' over all queries with a 95 %
bootstrap interval. Take an odd ``--every``, so that both kinds are met. Queries ask
for as many entities as the figures look at, for a stage keeps as many as a query wants, whatever its k. With
``--timed`` the default method reads a few queries itself, in CPU seconds. ``--count`` needs no contrastive
training: it counts, for all queries, the sentences that either way reads, of entities recalled by the mask
view, and reads none.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.corpus.inputs.format import open_inputs
from engine.evaluation.measuring import QueryScore
from engine.evaluation.metrics import CUTOFFS, SUMMARIES
from engine.evaluation.report import evaluate
from engine.evaluation.significance import intervals
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
from engine.training.input_rows import InputRows

RECALLED = (100, 150, 200, 300, 400, 600)
SENTENCES = (1, 2, 4)
WHOLE = (0, 30, 40, 50)
CONDITIONED = "retexpan+contrast-conditioned"
COLUMNS = ("PosMAP@10", "NegMAP@10", "PosMAP@100", "NegMAP@100", "CombMAP")
FIRST = (10, 100)


class RecordedEncoder(ConditionedEncoder):
    """An encoder that reads no sentence twice under the same seeds, also in a later process.

    Args:
        encoder: that reads.
        folder: where the states are kept, a file a seed text.
    """

    def __init__(self, encoder: ConditionedEncoder, folder: Path) -> None:
        self.__dict__.update(encoder.__dict__ | {"_kept": OrderedDict()})
        self._folder = folder
        self._last: tuple[bytes, Recorded] = b"", Recorded.of({}, 0)

    def forget(self) -> None:
        """Forget answers: what they took is counted anew."""
        self._kept.clear()

    def states(
        self, rows: Sequence[int], text: Sentence, before_pass: Callable[[], None] = lambda: None
    ) -> npt.NDArray[np.float32]:
        """Return the states of some sentences, reading those that were never read with this text."""
        wanted = np.asarray(rows, np.int64)
        recorded = self._recorded(text)
        unread = np.unique(wanted[recorded.place_R[wanted] < 0])
        if len(unread):
            started = time.process_time()
            read_nD = super().states(unread.tolist(), text)
            spent = time.process_time() - started
            print(f"  {len(unread)} sentences in {spent:.1f} CPU seconds", flush=True)
            recorded = recorded.with_more(unread, read_nD)
            recorded.write(self._file(text))
            self._last = text.tobytes(), recorded
        return recorded.states_nD[recorded.place_R[wanted]]

    def _file(self, text: Sentence) -> Path:
        return self._folder / f"{hashlib.sha256(text.tobytes()).hexdigest()[:16]}.npz"

    def _recorded(self, text: Sentence) -> Recorded:
        if self._last[0] != text.tobytes():
            file, count = self._file(text), int(self.sentences.starts[-1])
            kept = np.load(file, allow_pickle=False) if file.exists() else {}
            self._last = text.tobytes(), Recorded.of(kept, count)
        return self._last[1]


@dataclass(frozen=True)
class Recorded:
    """States of the sentences that were read with one seed text.

    Args:
        rows_n: int64, the sentences.
        states_nD: float32, their states.
        place_R: int64, where each sentence of the vocabulary stands among these; -1: it was not read.
    """

    rows_n: npt.NDArray[np.int64]
    states_nD: npt.NDArray[np.float32]
    place_R: npt.NDArray[np.int64]

    @classmethod
    def of(cls, kept: Mapping[str, npt.NDArray[Any]], count: int) -> Recorded:
        """Return what a file holds, or nothing, of so many sentences."""
        rows_n = kept["rows"] if kept else np.zeros(0, np.int64)
        place_R = np.full(count, -1)
        place_R[rows_n] = np.arange(len(rows_n))
        return cls(rows_n, kept["states"] if kept else np.zeros((0, 0), np.float32), place_R)

    def with_more(self, rows_n: npt.NDArray[np.int64], states_nD: npt.NDArray[np.float32]) -> Recorded:
        """Return these and others that were read."""
        states = np.concatenate([self.states_nD, states_nD]) if len(self.rows_n) else states_nD
        both = {"rows": np.concatenate([self.rows_n, rows_n]), "states": states}
        return Recorded.of(both, len(self.place_R))

    def write(self, file: Path) -> None:
        """Write a file, whole or not at all."""
        beside = file.with_suffix(".tmp.npz")
        np.savez(beside, rows=self.rows_n, states=self.states_nD)
        beside.rename(file)


@dataclass(frozen=True)
class Measured:
    """Figures of one pipeline: columns of either half, sentences a query, lists and CombMAP by query."""

    columns: dict[str, dict[str, float]]
    sentences: float
    lists: dict[str, list[int]]
    combined: dict[str, float]

    def agreement(self, other: Measured) -> list[float]:
        """Return the share of another's first entities that stand among the first as many here, in
        percent."""
        return [
            100
            * float(np.mean([len({*own[:n]} & {*other.lists[q][:n]}) / n for q, own in self.lists.items()]))
            for n in FIRST
        ]

    def minus(self, other: Measured) -> str:
        """Return the mean difference of CombMAP from another's, with its 95 % interval over queries."""
        by_query = np.array([[own - other.combined[query]] for query, own in self.combined.items()])
        (low,), (high,) = intervals(by_query)
        return f"{by_query.mean():+.2f} ({low:.2f} to {high:.2f})"


def measured(
    pipeline: Pipeline, bundle: Bundle, recorded: RecordedEncoder, halves: dict[str, QuerySet]
) -> Measured:
    """Measure a pipeline on both halves of the queries."""
    run = LocalPipeline([(stage, stage.open(bundle)) for stage in pipeline.stages])
    recorded.forget()
    columns: dict[str, dict[str, float]] = {}
    lists: dict[str, list[int]] = {}
    combined: dict[str, float] = {}

    def keep(score: QueryScore) -> None:
        lists[score.query.query.id] = score.ranking.ids.tolist()
        values = [score.columns[column] for column in SUMMARIES["CombMAP"]]
        combined[score.query.query.id] = float(np.mean(values))

    for half, queries in halves.items():
        overall = evaluate(run, queries, batch_size=1, on_score=keep)["overall"]
        columns[half] = {column: float(overall[column]) for column in COLUMNS}
    counted = [counts_of(worker).get("sentences", 0) for _, worker in run.opened]
    return Measured(columns, sum(counted) / max(len(lists), 1), lists, combined)


def authors_way(whole: int | None) -> Pipeline:
    """Return what reads every entity; whole: one sentence of each, and all of so many."""
    everything = method("retexpan+contrast-everything")
    if whole is None:
        return everything
    return change(everything, {"ConditionedRetrieve.sentences": 1, "ConditionedRetrieve.whole": whole})


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


def line(name: str, own: Measured, whole: Measured, sentences: int) -> str:
    """Return a row of the table; the authors' way reads so many sentences a query."""
    cells = [name, f"{own.sentences:,.0f}"]
    cells.append(f"{sentences / own.sentences:.0f}" if own.sentences else "")
    cells += [f"{a:.1f}" for a in own.agreement(whole)]
    cells += [f"{own.columns[half]['CombMAP']:.2f}" for half in ("even", "odd")]
    cells += [f"{own.columns['odd'][column]:.2f}" for column in COLUMNS[:-1]]
    cells.append("" if own is whole else own.minus(whole))
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
    parser.add_argument("--whole", type=int, help="entities that the authors' way reads whole [default: all]")
    parser.add_argument("--settings", choices=("all", "default"), default="all", help="that are compared")
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
    head += ["CombMAP even", "odd", *(f"{column} odd" for column in COLUMNS[:-1]), "minus every entity"]
    print(f"{sum(len(own.queries) for own in halves.values())} queries, {len(names)} entities", flush=True)
    count = int(encoder.sentences.starts[-1])
    whole = measured(authors_way(given.whole), bundle, recorded, halves)
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    print(line("every entity", whole, whole, count))
    compared = {name: method(name) for name in ("retexpan", "retexpan+contrast", CONDITIONED)}
    for name, pipeline in [*compared.items(), *(settings(len(names)) if given.settings == "all" else ())]:
        print(line(name, measured(pipeline, bundle, recorded, halves), whole, count), flush=True)


if __name__ == "__main__":
    main()
