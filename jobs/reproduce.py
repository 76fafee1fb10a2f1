"""Run the commands of a preset one after the other: from a paper's official folder to its table.

What has ended is noted in ``runs/reproduce/NAME.json`` of the workspace, with the settings that it had; a
rerun goes on after it, and where a step's settings are others, with that step. One that was stopped goes on
where it was, as the command itself does. Where a preset has the settings of ``report``, which fills the
tables, ``evaluate`` is left out: it would measure the same methods once more.
"""

from __future__ import annotations

import json
import time
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cluster.commandline import Command, command
from cluster.options import CommandSettings, declared
from cluster.presets import Presets
from cluster.seedset import entries
from cluster.settings_file import sections
from engine.errors import FormatError, UserError
from engine.storage.parts import read_model, write_model
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import PRESETS
from jobs.steps.query_tables import QueryTableSettings

EXAMPLES = """
  seedset reproduce --preset ultrawiki --source UltraWiki --workspace work
  seedset reproduce --preset mesed --source MESED --queries MESED/query_seed=5 --workspace work --gpu
  seedset reproduce --preset my-settings.yaml --source UltraWiki --workspace work --first train-encoder
"""

TRAININGS = ("train-encoder", "pretrain-lm", "ablate")
"""Commands that take ``--workers`` and ``--gpu``."""


class ReproduceSettings(CommandSettings):
    """The settings of the command."""

    preset: str = Field(
        description=f"Run commands with a paper's settings: {', '.join(Presets(PRESETS, '').names)}; or with "
        "those of a YAML file of your own, a section for each command in their order."
    )
    source: str = Field(description="Official folder of the data set, or s3:// address.")
    workspace: str = Field(description="Folder or s3:// prefix that will hold all that is made.")
    queries: str | None = Field(
        default=None, description="Measure on these queries.  [default: those in the source]"
    )
    columns: str = declared(QueryTableSettings, "columns")
    first: str | None = Field(
        default=None,
        description="Begin with this command: what those before it make is there.  [default: the first that "
        "has not ended]",
    )
    workers: int = Field(default=1, ge=1, description="Train in this many processes.")
    gpu: bool = Field(default=False, description="Give each process that trains a GPU.")


class Done(BaseModel):
    """What a run has ended: the digest of each step's settings, and of those before it, by command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: dict[str, str] = {}


@command(EXAMPLES)
def main(settings: ReproduceSettings) -> None:
    """Run all commands of a preset, from an official folder to the table; a rerun goes on where it was."""
    started = time.monotonic()
    file = Presets(PRESETS, "").path(settings.preset)
    plan = planned(settings, sections(file), str(file))
    if settings.first is not None and settings.first not in plan:
        raise UserError(f"--first {settings.first}: {file} has {', '.join(plan)}")
    record = Workspace.open(settings.workspace).runs("reproduce") / f"{file.stem}.json"
    done = Done() if not record.exists() else read_model(record, Done, "remove it to begin again")
    alike = settings.model_copy(update={"workers": 1, "gpu": False})  # the machine changes no result
    digests = digests_of(planned(alike, list(plan), str(file)))
    kept = list(plan)[: first_missing(digests, done, settings.first)]
    ended = Done(steps={name: digests[name] for name in kept})
    for name in kept:
        console.say(f"{name}: done before")
    for name in list(plan)[len(kept) :]:
        console.say(f"\n$ seedset {name} {' '.join(plan[name])}")
        load(name)(load(name).parse(plan[name]))
        ended = Done(steps={**ended.steps, name: digests[name]})
        write_model(record, ended)
    console.result(
        preset=file.stem,
        steps=len(plan),
        made=len(plan) - len(kept),
        seconds=f"{time.monotonic() - started:.1f}",
    )


def load(name: str) -> Command[Any]:
    """Return a command by its name.

    Raises:
        FormatError: none is called so.
    """
    found = dict(entries()).get(name)
    if found is None:
        raise FormatError(f"no command is called {name!r}; `seedset --help` lists them")
    return found.load()


def planned(settings: ReproduceSettings, names: list[str], file: str) -> dict[str, list[str]]:
    """Return the words of each command, in order; all of them are checked before the first one runs.

    Raises:
        UserError: a section of no command, or a setting that it does not take.
    """
    if not names:
        raise FormatError(f"{file}: holds no command's settings")
    asked = ["--queries", settings.queries or settings.source]
    asked += ["--columns", settings.columns] if settings.columns else []
    trained = ["--workers", str(settings.workers), *(["--gpu"] if settings.gpu else [])]
    more = {
        "import": ["--source", settings.source],
        "mine-contrast": asked,
        "evaluate": asked,
        "report": asked,
        **dict.fromkeys(TRAININGS, trained),
        "ablate": [*asked, *trained],
    }
    plan = {
        name: ["--preset", settings.preset, "--workspace", settings.workspace, *more.get(name, [])]
        for name in names
        if name != "evaluate" or "report" not in names
    }
    for name, words in plan.items():
        if load(name).presets is None:
            raise FormatError(f"{file}: {name} takes no preset")
        load(name).parse(words)
    return plan


def digests_of(plan: dict[str, list[str]]) -> dict[str, str]:
    """Return for each command a digest of its settings and of those of all before it."""
    digest = sha256()
    found = {}
    for name, words in plan.items():
        given = load(name).parse(words).model_dump(mode="json")
        digest.update(json.dumps([name, given], sort_keys=True).encode())
        found[name] = digest.hexdigest()[:16]
    return found


def first_missing(digests: dict[str, str], done: Done, first: str | None) -> int:
    """Return the place of the command to begin with."""
    names = list(digests)
    if first is not None:
        return names.index(first)
    return next(
        (place for place, name in enumerate(names) if done.steps.get(name) != digests[name]), len(names)
    )


if __name__ == "__main__":
    main.run()
