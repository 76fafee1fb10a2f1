"""Train typing models and measure them: what ``train_typing`` and ``evaluate_typing`` share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.models.fingerprint import model_fingerprint
from engine.models.hub import NamedModel
from engine.storage.parts import content_key, read_pointer, write_pointer
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.settings import TypingSettings
from engine.typing.files import TypingData, find_data
from engine.typing.labels import label_words, read_label_words, read_labels
from engine.typing.labels_file import LABELS, Rule
from engine.typing.mentions import TypedMention, labels_of, read_mentions
from engine.typing.metrics import TypingScores, measure_types
from engine.typing.model import TypingModel, chosen_labels
from jobs import console
from jobs.steps.teacher import TaughtMentions
from jobs.workers.trainer import cluster_for, train_or_load_summary
from jobs.workers.typing import JOB, TypingRun

NEWEST = "newest"
MEASURED = 512
"""Mentions that are typed at a time while a model is measured."""


@dataclass(frozen=True)
class Labels:
    """The types that a model is to know, and the words that a user gave some of them."""

    labels: list[str]
    words: Mapping[str, str]


def choose_labels(data: TypingData, labels: str | None, words: str | None) -> Labels:
    """Return the labels of a training: of a file, of the list beside the data, or those that the data has.

    Args:
        data: of the training.
        labels: a file with one a line, or None.
        words: a JSON file of labels' words, or None.

    Raises:
        UserError: a file is not there or not readable, or labels clash in words.
    """
    file = Store.open(labels) if labels else data.labels
    found = read_labels(file) if file else sorted(labels_of(read_mentions(data.mentions)))
    given = read_label_words(Store.open(words)) if words else {}
    label_words(found, given)  # which refuses what clashes, before anything is trained
    return Labels(found, given)


def typing_model(workspace: Workspace, model: str) -> str:
    """Return a typing model's folder, given its path, its run's path or name, or "newest": the run made last.

    Raises:
        UserError: there is none.
    """
    runs = workspace.runs(JOB)
    if model == NEWEST:
        name = read_pointer(runs)
        if name is None:
            raise UserError(f"{runs.uri}: no typing model here yet; run `seedset train-typing` first")
        return (runs / name / TypingRun.artifact).uri
    run = Store.open(model) if "/" in model else runs / model
    of_run = run / TypingRun.artifact
    return of_run.uri if (of_run / LABELS).exists() else model


def is_typing_model(name: str) -> bool:
    """Return whether a model's folder is one that a typing model was written to."""
    return NamedModel.open(name, "--model").find(LABELS) is not None


def train_typing(
    workspace: Workspace,
    data: Store,
    labels: Labels,
    settings: TypingSettings,
    model: str,
    workers: int = 1,
    gpu: bool = False,
    restart: bool = False,
    examples: int | None = None,
    checkpoint_seconds: float = 60,
    make_current: bool = True,
    taught: TaughtMentions | None = None,
) -> dict[str, Any]:
    """Train a typing model and return the run's summary, with the model's folder under ``folder``.

    Args:
        workspace: receives ``runs/train_typing/<name>``.
        data: file of mentions.
        labels: that are learnt.
        settings: of the run; they, the labels, the data and the model make its name.
        model: an encoder to begin with, or a typing model to go on from.
        workers: training processes.
        gpu: one GPU a worker and NCCL; else gloo on the CPU.
        restart: forget the checkpoints of a run with the same name.
        examples: mentions of each type that are drawn from the data; None: all that are in it.
        checkpoint_seconds: time between checkpoints; one more is made at the end.
        make_current: let "newest" name this model from now on.
        taught: mentions that a teacher labelled, to train on beside the data.
    """
    fingerprint, digest = model_fingerprint(model), data.sha256()
    words = json.dumps(dict(labels.words), sort_keys=True)
    made_from = [settings.model_dump_json(), digest, fingerprint, json.dumps(labels.labels), words]
    content = content_key(*made_from, str(examples), *([taught.key] if taught else []))
    run = TypingRun(
        workspace=workspace.root.uri,
        name=f"{Path(data.name).name.split('.')[0]}-{len(labels.labels)}-{content[:12]}",
        settings=settings,
        gpu=gpu,
        checkpoint_seconds=checkpoint_seconds,
        data=data.uri,
        digest=digest,
        examples=examples,
        model=model,
        typed=is_typing_model(model),
        fingerprint=fingerprint,
        labels=tuple(labels.labels),
        words=words,
        teacher=taught.teacher if taught else None,
        taught=taught.files if taught else (),
    )
    with cluster_for(workers, gpu, workspace.root):
        summary = train_or_load_summary(run, workers, restart)
    if make_current:
        write_pointer(workspace.runs(JOB), run.name)
    return {**summary, "folder": (run.folder / run.artifact).uri}


def measure(model: TypingModel, mentions: Sequence[TypedMention], rule: Rule | None) -> TypingScores:
    """Type mentions and measure the types, with a meter."""
    pairs = []
    with console.meter("typing, mentions", len(mentions)) as meter:
        for start in range(0, len(mentions), MEASURED):
            some = mentions[start : start + MEASURED]
            scores_nN = model.scores([one.mention for one in some])
            for one, scores_N in zip(some, scores_nN, strict=True):
                chosen = chosen_labels(scores_N, model.labels, rule or model.about.rule)
                pairs.append((one.labels, chosen))
            meter.add(len(some))
    return measure_types(pairs)


@dataclass(frozen=True)
class FewShot:
    """Which model is measured, and what it is trained on before: the options of ``evaluate-typing``."""

    model: str
    train: Sequence[str]
    labels: str | None
    label_words: str | None
    rule: Rule | None
    examples: Sequence[int]
    training: TypingSettings
    workers: int
    gpu: bool
    restart: bool


def evaluate_splits(
    workspace: Workspace, asked: FewShot, mentions: Sequence[TypedMention]
) -> Iterator[dict[str, Any]]:
    """Yield the measures of the model as it is, or after each training on a few examples.

    Args:
        workspace: with the model.
        asked: which model, files and numbers.
        mentions: to measure on.
    """
    name = typing_model(workspace, asked.model)
    if not asked.train:
        model = TypingModel.load(name)
        if asked.labels or asked.label_words:
            given = read_label_words(Store.open(asked.label_words)) if asked.label_words else {}
            own = read_labels(Store.open(asked.labels)) if asked.labels else model.labels
            model.exchange_labels(own, given)
        yield _row(None, None, measure(model, mentions, asked.rule))
    numbers: Sequence[int | None] = asked.examples or [None]
    for number in numbers:
        for file in asked.train:
            data = find_data(file, "--train")
            labels = choose_labels(data, asked.labels, asked.label_words)
            summary = train_typing(
                workspace,
                data.mentions,
                labels,
                asked.training,
                name,
                asked.workers,
                asked.gpu,
                asked.restart,
                number,
                make_current=False,
            )
            model = TypingModel.load(summary["folder"])
            yield _row(file, number, measure(model, mentions, asked.rule)) | {"run": summary["run"]}


def _row(file: str | None, examples: int | None, found: TypingScores) -> dict[str, Any]:
    return {
        "train": file,
        "examples": examples,
        "strict": found.strict,
        "macro_p": found.macro.precision,
        "macro_r": found.macro.recall,
        "macro_f1": found.macro.f1,
        "micro_p": found.micro.precision,
        "micro_r": found.micro.recall,
        "micro_f1": found.micro.f1,
        "mentions": found.mentions,
    }
