"""Measure a typing model: on mentions of its own types, or after a few examples of other ones (FiveFine).

Trainings on a few examples are runs of their own (runs/train_typing), which are found again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Any, Literal

from pydantic import Field

from cluster.commandline import command
from cluster.effect import keys_within
from cluster.options import RUN, CommandSettings, Flag, declared
from engine.errors import UserError
from engine.storage.relative import check_relative
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.settings import TypingSettings
from jobs import console
from jobs.settings import DATA, TYPING_HEADINGS, LabelWords, TrainingProcesses

EXAMPLES = """
  seedset evaluate-typing --workspace work --test ufet/crowd/dev.json
  seedset evaluate-typing --workspace work --test fet/test.json --labels fet/type_vocab.txt
  seedset evaluate-typing --workspace work --test fet/test.json --labels fet/type_vocab.txt \\
      --train fet/train_fewshot5_0.json --train fet/train_fewshot5_1.json
  seedset evaluate-typing --workspace work --test fet/test.json --labels fet/type_vocab.txt \\
      --train fet/train_fewshot5_0.json --model embedded --examples 1 --examples 5
"""

FEW_SHOT = TypingSettings(
    epochs=14, batch_size=48, learning_rate=2e-4, label_weight=1.0, mlm=False, next_word=False
)
"""Settings of a training on a few examples."""


class EvaluateTypingSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with the model; receives what is trained.")
    test: str = Field(description="Measure on this file of mentions with types (JSON lines).")
    model: str = Field(
        default="newest",
        description='Measure this typing model: its folder, its run, or "newest". With --train also an '
        'encoder (a folder, a hub name, "embedded"): then nothing was learnt of types before.',
    )
    train: list[str] = Field(
        default=[],
        description="Train on this file of a few examples first. Repeat it for several splits: each is "
        "trained on by itself, and the mean is told.",
    )
    labels: str | None = Field(
        default=None,
        description="Know the types of this file, one a line, in place of the model's own.  [default: the "
        "model's; with --train the list beside the file, else its types]",
    )
    label_words: str | None = declared(LabelWords, "label_words")
    rule: Literal["threshold", "single"] | None = Field(
        default=None,
        description="Predict all types whose score is above 0 (the best one where none is), or a single one "
        "and its parents.  [default: single where types are paths]",
    )
    examples: list[int] = Field(
        default=[],
        description="Draw so many examples of each type from the files of --train. Repeat it for a curve.  "
        "[default: all]",
    )
    training: TypingSettings = FEW_SHOT
    processes: TrainingProcesses = TrainingProcesses()
    restart: bool = Field(default=False, description="Train again what is trained already.")
    json_file: Annotated[Path | None, Flag("--json")] = Field(
        default=None, description="Also write the measures of every split to this file."
    )

    def unused(self) -> dict[str, str]:
        """Return the options that are of trainings, where there is none, and why."""
        if not self.train:
            names = [*keys_within(type(self), "training"), *keys_within(type(self), "processes")]
            return dict.fromkeys([*names, "examples", "restart"], "without --train")
        if not (self.training.mlm or self.training.next_word):
            return {"objective_weight": "without --mlm or --next-word"}
        return {}


@command(
    EXAMPLES,
    headings={**TYPING_HEADINGS, "examples": DATA, "restart": RUN},
)
def main(settings: EvaluateTypingSettings) -> None:
    """Measure predicted types: strict accuracy, loose macro and loose micro P, R and F1, in percent.

    Without --train the model is measured as it is, on its own types or, of --labels, on types that it was
    never trained on. With --train it is trained on each file by itself, with the types exchanged.
    """
    from engine.typing.mentions import read_mentions
    from jobs.steps.typing import FewShot, evaluate_splits

    started = time.monotonic()
    if settings.json_file is not None:
        check_relative(settings.json_file)
    if any(number < 1 for number in settings.examples):
        raise UserError("--examples: give 1 or more; 0 examples are measured by leaving --train out")
    mentions = read_mentions(Store.open(settings.test))
    asked = FewShot(
        settings.model,
        settings.train,
        settings.labels,
        settings.label_words,
        settings.rule,
        settings.examples,
        settings.training,
        settings.processes.workers,
        settings.processes.gpu,
        settings.restart,
    )
    rows = list(evaluate_splits(Workspace.open(settings.workspace), asked, mentions))
    if settings.json_file is not None:
        settings.json_file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    numbers: list[int | None] = [*settings.examples] or [None]
    groups = {number: [row for row in rows if row["examples"] == number] for number in numbers}
    _show(groups)
    last = _mean(groups[numbers[-1]])
    counts: dict[str, Any] = {name: f"{mean:.2f}" for name, (mean, _) in last.items()}
    if len(groups[numbers[-1]]) > 1:
        counts["macro_f1_deviation"] = f"{last['macro_f1'][1]:.2f}"
    console.result(
        mentions=len(mentions),
        splits=len(groups[numbers[-1]]),
        **counts,
        seconds=f"{time.monotonic() - started:.1f}",
    )


MEASURES = ("strict", "macro_p", "macro_r", "macro_f1", "micro_p", "micro_r", "micro_f1")


def _mean(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation (of the splits, not of a sample) of every measure."""
    found = {name: [row[name] for row in rows] for name in MEASURES}
    return {name: (fmean(values), pstdev(values)) for name, values in found.items()}


def _show(groups: dict[int | None, list[dict[str, Any]]]) -> None:
    rows = []
    for number, some in groups.items():
        name = "all" if number is None else str(number)
        cells = _mean(some).values()
        spread = len(some) > 1
        rows.append([name, *(f"{mean:.1f}" + (f"±{sd:.1f}" if spread else "") for mean, sd in cells)])
    header = ["examples", "strict", "maP", "maR", "maF1", "miP", "miR", "miF1"]
    console.console.print(console.table("types", header, rows))


if __name__ == "__main__":
    main.run()
