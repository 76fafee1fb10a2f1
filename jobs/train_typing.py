"""Train a model that types mentions (FiveFine): on ultra-fine types, or further on a few examples of others.

The one trainer takes the steps: in this process with one worker on the CPU, else Ray Train starts the
workers. A run that was stopped goes on from its last checkpoint, also on another number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import RUN, CommandSettings, declared
from engine.errors import UserError
from engine.models.hub import EMBEDDED
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.settings import TypingSettings
from engine.typing.teacher import NEGATIVE, POSITIVE, Thresholds
from jobs import console
from jobs.settings import DATA, MODEL, TRAINING, TYPING_HEADINGS, LabelWords, TrainingProcesses
from jobs.workers.executor import AutoExecutor

if TYPE_CHECKING:
    from jobs.steps.teacher import TaughtMentions

EXAMPLES = """
  seedset train-typing --workspace work --data ufet
  seedset train-typing --workspace work --data ufet/crowd/train.json --labels ufet/ontology/types.txt
  seedset train-typing --workspace work --data ufet --weak weak.jsonl.gz --weak-epochs 1
  seedset train-typing --workspace work --data ufet --self-train mentions.jsonl.gz --teacher newest
  seedset train-typing --workspace work --data fet/train.json --model newest --label-weight 1 --epochs 14
  ray job submit --working-dir . -- python -m jobs.train_typing --workspace s3://b/work --data s3://b/ufet \\
      --model bert-base-uncased --workers 4 --gpu
"""


class TrainTypingSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that receives the model; needs no corpus.")
    data: str = Field(
        description="Train on this file of mentions with types (JSON lines), or on the train.json of this "
        "folder (UFET's: crowd/train.json)."
    )
    weak: str | None = Field(
        default=None,
        description="Train on this file of weakly labelled mentions first, in the same layouts; the labels "
        "are those of --data.",
    )
    self_train: str | None = Field(
        default=None,
        description="Train on the mentions of this file beside --data, in the same layouts, with the types "
        "that --teacher gives them; types that they have are not read.",
    )
    teacher: str | None = Field(
        default=None,
        description="Let this typing model label the mentions of --self-train: its folder, its run, or "
        '"newest". It knows all types that are learnt.',
    )
    positive_probability: float = Field(
        default=POSITIVE,
        gt=0,
        lt=1,
        description="Types to which the teacher gives this probability or more hold. The default is that of "
        "the paper's program.",
    )
    negative_probability: float = Field(
        default=NEGATIVE,
        gt=0,
        lt=1,
        description="Types to which the teacher gives this probability or less do not hold; those between "
        "the two do not count in the loss. The default is that of the paper's program.",
    )
    labels: str | None = Field(
        default=None,
        description="Learn the types of this file, one a line.  [default: types.txt, type_vocab.txt or "
        "ontology/types.txt beside the data, else the types that it has]",
    )
    label_words: str | None = declared(LabelWords, "label_words")
    model: str = Field(
        default=EMBEDDED,
        description="Begin with this encoder: a folder or a hub name; a BERT without its head of a masked "
        'language model gets one. Or go on from a typing model: its folder, its run, or "newest".',
    )
    training: TypingSettings = TypingSettings()
    weak_epochs: int = Field(default=1, ge=1, description="Pass over the weak data so many times.")
    processes: TrainingProcesses = TrainingProcesses()
    checkpoint_seconds: float = Field(
        default=60, ge=0, description="Write a checkpoint after this many seconds."
    )
    restart: bool = Field(default=False, description="Begin again, and forget the checkpoints.")

    def unused(self) -> dict[str, str]:
        """Return the options that the training asked for does without, and why."""
        found = {} if self.weak else {"weak_epochs": "without --weak"}
        if not self.self_train:
            names = ("teacher", "positive_probability", "negative_probability")
            found |= dict.fromkeys(names, "without --self-train")
        if not (self.training.mlm or self.training.next_word):
            found["objective_weight"] = "with --no-mlm and --no-next-word"
        return found


@command(
    EXAMPLES,
    headings={
        **TYPING_HEADINGS,
        "weak": DATA,
        "weak_epochs": TRAINING,
        "self_train": DATA,
        "teacher": MODEL,
        "positive_probability": TRAINING,
        "negative_probability": TRAINING,
        "restart": RUN,
    },
    writes=Writes("train-typing"),
)
def main(settings: TrainTypingSettings) -> None:
    """Train a model that types mentions of entities, and reads types as words.

    Writes runs/train_typing/RUN: the model (a masked language model, its tokenizer, the pooling of labels,
    labels.json), checkpoints, summary.json, TensorBoard events. The same settings again go on where they
    were. `seedset evaluate-typing` measures it.
    """
    from engine.typing.files import find_data
    from jobs.steps.typing import choose_labels, train_typing, typing_model

    started = time.monotonic()
    workspace, data = Workspace.open(settings.workspace), find_data(settings.data)
    labels = choose_labels(data, settings.labels, settings.label_words)
    model, processes = typing_model(workspace, settings.model), settings.processes
    given = processes.workers, processes.gpu, settings.restart
    taught = _taught(settings, workspace, labels.labels) if settings.self_train else None
    if settings.weak:
        first = settings.training.model_copy(update={"epochs": settings.weak_epochs})
        weak = train_typing(
            workspace, Store.open(settings.weak), labels, first, model, *given, make_current=False
        )
        model = weak["folder"]
    summary = train_typing(
        workspace,
        data.mentions,
        labels,
        settings.training,
        model,
        *given,
        checkpoint_seconds=settings.checkpoint_seconds,
        taught=taught,
    )
    console.result(
        run=summary["run"],
        model=summary["folder"],
        steps=summary["steps"],
        mentions=summary["mentions"],
        labels=summary["labels"],
        loss=f"{summary['loss']:.4f}",
        mentions_per_second=summary["mentions_per_second"],
        seconds=f"{time.monotonic() - started:.1f}",
    )


def _taught(settings: TrainTypingSettings, workspace: Workspace, labels: Sequence[str]) -> TaughtMentions:
    """Let the teacher label the mentions of --self-train."""
    from jobs.steps.teacher import teach
    from jobs.steps.typing import typing_model

    assert settings.self_train is not None
    if not settings.teacher:
        raise UserError(
            "--self-train: no model to label its mentions; name one with --teacher: a typing model's folder, "
            'its run, or "newest"'
        )
    thresholds = Thresholds(settings.positive_probability, settings.negative_probability)
    teacher, file = typing_model(workspace, settings.teacher), Store.open(settings.self_train)
    with AutoExecutor(settings.processes.workers, [workspace.root.uri]) as executor:
        return teach(workspace, file, teacher, labels, thresholds, executor)


if __name__ == "__main__":
    main.run()
