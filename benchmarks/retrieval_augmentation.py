"""Measure what descriptions in front of sentences (RA) do to RetExpan, one change at a time.

    python -m benchmarks.retrieval_augmentation --workspace W --queries FOLDER --sentences 5

The workspace holds an imported corpus with descriptions. A cell of the grid is what the encoder was trained
on, what it encodes, and how it was trained:

* inputs: ``plain`` (no descriptions), ``kept`` (as they are: the paper's), ``masked`` (the entity's own names
  masked in them: ours), ``mixed`` (kept in front of every other sentence);
* training: ``none``, ``fast`` (this project's defaults), ``constant`` (the paper's 20 epochs at 4e-5, nothing
  clipped, weight decay 1e-2, in batches of 32, as a small corpus has few), ``constant+dropout`` (with BERT's
  dropout in the last layer).

Each cell is one line of ``cells.jsonl`` in ``--out``, a folder for each draw of sentences and length: a
finished one is not run again. Queries with even numbers are there to choose by, those with odd ones to
report. ``retexpan`` and ``retexpan-negative`` are measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.evaluation.report import evaluate
from engine.methods import method
from engine.models.hub import EMBEDDED
from engine.models.text import TextEncoder
from engine.queries.formats import QuerySet, read_queries
from engine.retrieval.index import VectorIndex, unit
from engine.storage.bundle import Bundle
from engine.storage.publishing import publish
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import CachedStates, masked_sums
from engine.training.input_rows import InputRows
from engine.training.settings import EncoderSettings
from engine.training.text import EncoderTraining
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.model_input import preprocess
from jobs.workers.executor import LocalExecutor

PAPER = EncoderSettings(
    epochs=20, batch_size=32, learning_rate=4e-5, learning_rate_schedule="constant", weight_decay=1e-2, clip=0
)
TRAININGS: dict[str, EncoderSettings | None] = {
    "none": None,
    "fast": EncoderSettings(),
    "constant": PAPER,
    "constant+dropout": PAPER.model_copy(update={"last_layer_dropout": 0.1}),
}
INPUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kept": {"descriptions": True},
    "masked": {"descriptions": True, "description_names": "masked"},
}
CELLS = [
    *[("none", kind, kind) for kind in ("plain", "kept")],
    *[("constant", kind, to) for kind in ("kept", "plain") for to in ("kept", "plain")],
    *[("fast", kind, to) for kind in ("kept", "plain") for to in ("kept", "plain")],
    *[(how, "masked", "masked") for how in ("none", "constant", "fast")],
    *[("constant+dropout", kind, kind) for kind in ("kept", "plain")],
    *[(how, "mixed", "kept") for how in ("constant", "fast")],
]
"""The cells in order: those that tell most come first."""
COLUMNS = ("PosMAP@10", "NegMAP@10", "PosMAP@100", "NegMAP@100", "CombMAP")


@dataclass(frozen=True)
class Sample:
    """The corpus under every kind of input, its frozen states, and its queries by half."""

    workspace: Workspace
    settings: InputSettings
    n_entities: int
    queries: dict[str, QuerySet]

    def rows(self, kind: str) -> tuple[list[InputRows], list[Path]]:
        """Return the parts of a kind of input and their frozen states, after what was missing was made."""
        wanted = self.settings.model_copy(update=INPUTS[kind])
        key = preprocess(self.workspace, EMBEDDED, wanted, LocalExecutor()).key
        inputs = open_inputs(self.workspace, key)
        cache = frozen_cache(self.workspace, inputs, EMBEDDED, executor=LocalExecutor())
        parts = [InputRows.read(part.local_copy(machine_cache()), with_ids=False) for part in inputs.parts]
        return parts, [Path(file.local_copy(machine_cache())) for file in cache.states]

    def states(self, kind: str) -> CachedStates:
        """Return the cached states of a kind of input; ``mixed``: kept in front of every other sentence."""
        if kind != "mixed":
            return CachedStates(*self.rows(kind))
        (plain, plain_files), (kept, kept_files) = self.rows("plain"), self.rows("kept")
        return _Mixed([*plain, *kept], [*plain_files, *kept_files])


class _Mixed(CachedStates):
    """Half of the sentences from either of two kinds of input, which hold the same sentences."""

    @property
    def with_text(self) -> np.ndarray:
        """The rows that are trained on."""
        half = len(self) // 2
        return np.r_[np.arange(0, half, 2), half + np.arange(1, half, 2)]


def prepare(workspace: Workspace, queries: str, sentences: int, length: int) -> Sample:
    """Read the queries, and say how the sentences are drawn."""
    tokenizer = fingerprint(load_tokenizer(EMBEDDED))
    settings = InputSettings(tokenizer=tokenizer, max_length=length, max_sentences=sentences)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = publish_mask(workspace, Path(folder), np.ones((1, 1), np.float32)).vocabulary
    found = read_queries(Store.open(queries), vocabulary)
    halves = {"even": found.queries[::2], "odd": found.queries[1::2]}
    return Sample(workspace, settings, len(vocabulary), {half: QuerySet(own) for half, own in halves.items()})


def publish_mask(workspace: Workspace, scratch: Path, view_ND: np.ndarray) -> Bundle:
    """Publish a bundle of entities and one view in a workspace of its own."""
    place = Workspace.open(scratch)
    staged = place.bundles.staging()
    workspace.entities.fetch(staged / "entities.parquet")
    VectorIndex(view_ND).write(staged / "index" / "mask.faiss")
    publish(place, staged, {})
    return Bundle.open(place)


def trained(sample: Sample, how: str, kind: str, folder: Path) -> tuple[TextEncoder, dict[str, Any]]:
    """Return the encoder of a training, from its file where it is there."""
    encoder, settings = TextEncoder.load(EMBEDDED), TRAININGS[how]
    file = folder / f"{how}-{kind}.safetensors"
    if settings is None:
        return encoder, {}
    if file.exists():
        encoder.last.load_state_dict(load_file(file))
        about: dict[str, Any] = json.loads(file.with_suffix(".json").read_bytes())
        return encoder, about
    started = time.process_time()
    run = EncoderTraining(encoder, sample.states(kind), sample.n_entities, settings)
    for report in run.run():
        if report.step % 50 == 0:
            print(
                f"  {how} {kind}: step {report.step} of {run.total_steps}, loss {report.loss:.3f}", flush=True
            )
    last = float(np.mean(run.losses[-run.steps_per_epoch :]))
    about = {"steps": run.step, "loss": round(last, 3), "cpu_s": round(time.process_time() - started)}
    file.with_suffix(".json").write_text(json.dumps(about))
    save_file(encoder.last.state_dict(), file)
    return encoder, about


def measured(sample: Sample, encoder: TextEncoder, kind: str) -> dict[str, Any]:
    """Return the columns of both methods on both halves of the queries."""
    ids, sums_nD = masked_sums(encoder, sample.states(kind))
    total = np.zeros((sample.n_entities, encoder.dim))
    total[ids] = sums_nD
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = publish_mask(sample.workspace, Path(folder), unit(total))
        for name in ("retexpan", "retexpan-negative"):
            run = method(name).open(bundle)
            for half, queries in sample.queries.items():
                overall = evaluate(run, queries)["overall"]
                found[f"{name} {half}"] = {column: round(overall[column], 2) for column in COLUMNS}
    return found


def main() -> None:
    """Run the cells that are missing and print a table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--sentences", type=int, default=5)
    parser.add_argument("--length", type=int, default=192)
    parser.add_argument("--training", choices=TRAININGS, nargs="*", default=[*TRAININGS], help="these alone")
    parser.add_argument("--out", type=Path, help="[default: WORKSPACE/retrieval_augmentation]")
    given = parser.parse_args()
    out = given.out or Path(given.workspace) / "retrieval_augmentation"
    out /= f"S{given.sentences}-L{given.length}"  # its encoders are trained on these
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "cells.jsonl"
    done = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    sample = prepare(Workspace.open(given.workspace), given.queries, given.sentences, given.length)
    for how, kind, to in [cell for cell in CELLS if cell[0] in given.training]:
        if any((d["training"], d["trained_on"], d["encoded"]) == (how, kind, to) for d in done):
            continue
        encoder, about = trained(sample, how, kind, out)
        cell = {"training": how, "trained_on": kind, "encoded": to, **about, **measured(sample, encoder, to)}
        done.append(cell)
        with lines.open("a") as file:
            file.write(json.dumps(cell) + "\n")
        print(json.dumps(cell), flush=True)
    print("| training | trained on | encoded | loss | " + " | ".join(COLUMNS) + " |")
    for d in done:
        figures = " | ".join(f"{d['retexpan odd'][column]:.1f}" for column in COLUMNS)
        print(f"| {d['training']} | {d['trained_on']} | {d['encoded']} | {d.get('loss', '')} | {figures} |")


if __name__ == "__main__":
    main()
