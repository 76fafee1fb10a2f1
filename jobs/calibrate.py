"""Fit how probable it is that an answer belongs to the set, from queries of which it is known.

Everything runs in this process. The classes are split in two: constants fitted to one half are measured on
the other, of which nothing was seen; those that are published are fitted to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.methods import METHOD_NAME, pipelines
from cluster.options import CommandSettings, declared
from engine.catalogue.opening import open_catalogue
from engine.errors import QueryError, UserError
from engine.evaluation.measuring import by_truth, in_order
from engine.evaluation.plots import available, reliability_plot
from engine.membership import (
    CONSTANTS,
    FITTED,
    MEMBERSHIP,
    Answered,
    Constants,
    Reliability,
    all_constants,
    f1_above,
    fit,
    outdated,
    probabilities,
    proposed_f1,
    read_constants,
    reliability,
    write_constants,
)
from engine.stages.base import Pipeline
from engine.stages.membership import COHESION_VIEW, Membership, open_cohesions
from engine.storage.bundle import Bundle
from engine.storage.publishing import derive
from engine.storage.relative import check_relative
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.query_tables import QueryTableSettings, read_query_table

EXAMPLES = """
  seedset make-queries --workspace work --output queries  # where entities have attributes
  seedset calibrate --workspace work --queries queries/queries.jsonl
  seedset calibrate --workspace work --queries q.jsonl --method retexpan --plot reliability.png
  seedset calibrate --workspace work --queries q.jsonl --dry-run  # how good are the constants that are there?
"""

BATCH = 64
LEAST = 4
"""Queries: two of each half."""

ENDS = np.linspace(0.02, 0.98, 49)
"""Probabilities at which all lists may end."""

MEASURED = 100
"""Entities of a list whose probabilities are compared with what is so: nearly all of the rest are not."""


class CalibrateSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(
        description="File or folder of queries (.json, .jsonl, .parquet) with pos_gt, such as `seedset "
        "make-queries` makes of entities' attributes."
    )
    columns: str = declared(QueryTableSettings, "columns")
    method: Annotated[str, METHOD_NAME] = Field(default="default", description="Calibrate this method.")
    view: str = Field(
        default=COHESION_VIEW, description="Compare seeds with each other in this view, as Membership is to."
    )
    plot: Path | None = Field(default=None, description="Draw probabilities against what is so (PNG) here.")
    dry_run: bool = Field(default=False, description="Measure the constants that are there; publish nothing.")


@dataclass(frozen=True)
class Measured:
    """How probabilities of some lists agree with what is so, and mean F1 of what is proposed.

    ``best_f1`` is that of the best beginning of each list, ``same_end_f1`` that of all lists ended at the
    probability that is best for them together: both are known in hindsight alone.
    """

    queries: int
    reliability: Reliability
    proposed_f1: float
    best_f1: float
    same_end_f1: float


@command(EXAMPLES, writes=Writes("calibrate"))
def main(settings: CalibrateSettings) -> None:
    """Fit how probable it is that an answer of a method belongs to the set, and publish it in the bundle.

    A pipeline that ends in the stage Membership, as `default` does, then says of each entity how probable it
    is that it belongs, and how many are proposed as the set. What is measured here is of classes that the
    constants were not fitted to.
    """
    if settings.plot is not None:
        check_relative(settings.plot)
        if not available():
            raise UserError("--plot needs matplotlib; run `pip install 'seedset[report]'`")
    workspace = Workspace.open(settings.workspace)
    bundle = Bundle.open(workspace)
    there = {*CONSTANTS, *all_constants(bundle), *outdated(bundle)}
    if settings.dry_run and settings.method not in there:
        raise UserError(f"--dry-run: there are no constants of {settings.method!r} yet; leave it out")
    known = read_constants(bundle, settings.method) if settings.dry_run else None
    lists = _answered(settings, bundle)
    parts = halves(lists)
    if known is not None:
        held_out = [(known, lists)]
    else:
        held_out = [(_fitted(one), other) for one, other in (parts, parts[::-1])]
    found = measure(held_out)
    if settings.plot is not None:
        settings.plot.write_bytes(reliability_plot(found.reliability, settings.method))
        console.say(f"plot: {settings.plot}")
    _show(settings.method, found)
    if not settings.dry_run:
        constants = _fitted(lists)
        if lost := sorted({*outdated(bundle)} - {settings.method}):
            console.say(f"constants of a former formula are left out; calibrate again: {', '.join(lost)}")
        bundle_id = _publish(workspace, bundle, {**all_constants(bundle), settings.method: constants})
        console.say(f"{settings.method}: {', '.join(f'{n} {v:.3g}' for n, v in constants._asdict().items())}")
    console.result(
        bundle=bundle.id if settings.dry_run else bundle_id,
        queries=found.queries,
        calibration_error=round(found.reliability.error, 4),
        proposed_f1=round(found.proposed_f1, 4),
        same_end_f1=round(found.same_end_f1, 4),
        best_f1=round(found.best_f1, 4),
    )


def halves(lists: Sequence[Answered]) -> tuple[list[Answered], list[Answered]]:
    """Return the lists of every second class and the others; of a single class, every second list."""
    labels = sorted({one.label for one in lists})
    if len(labels) > 1:
        place: Mapping[str, int] = {label: i % 2 for i, label in enumerate(labels)}
        of = [place[one.label] for one in lists]
    else:
        of = [i % 2 for i in range(len(lists))]
    first, second = ([one for one, half in zip(lists, of, strict=True) if half == side] for side in (0, 1))
    return first, second


def measure(parts: Sequence[tuple[Constants, Sequence[Answered]]]) -> Measured:
    """Return how constants do on lists."""
    said = [
        (probabilities(one.scores, one.cohesion, constants), one)
        for constants, lists in parts
        for one in lists
    ]
    values = np.array([proposed_f1(p, one) for p, one in said])
    same_ends = [np.mean([f1_above(p, one.true, one.size, least) for p, one in said]) for least in ENDS]
    return Measured(
        len(said),
        reliability(
            np.concatenate([p[:MEASURED] for p, _ in said]),
            np.concatenate([one.true[:MEASURED] for _, one in said]),
        ),
        float(values[:, 0].mean()),
        float(values[:, 1].mean()),
        float(max(same_ends)),
    )


def _answered(settings: CalibrateSettings, bundle: Bundle) -> list[Answered]:
    """Return the method's lists of all queries with truth.

    Raises:
        QueryError: there are too few.
    """
    found = read_query_table(
        settings.queries, settings.columns, bundle.vocabulary, lambda: open_catalogue(bundle)
    )
    usable, without = by_truth(found.queries)
    console.say_refused([*found.refused, *without], "they are not used")
    stages = pipelines([settings.method], {})[settings.method].stages
    # Membership changes no score, and does not open on constants that this command is to replace.
    expand = Pipeline(tuple(one for one in stages if not isinstance(one, Membership))).open(bundle)
    cohesions = open_cohesions(bundle, settings.view)
    lists: list[Answered] = []
    with console.meter("expand", len(usable)) as meter:
        for batch in in_order(usable, BATCH):
            expansions = expand([replace(one.query, top_k=max(one.query.top_k, FITTED)) for one in batch])
            alike = cohesions([one.query for one in batch])
            for one, e, own in zip(batch, expansions, alike, strict=True):
                true = np.isin(e.ranking.ids, list(one.positive.ids))
                lists.append(Answered(one.label, e.ranking.scores, true, one.positive.size, own))
            meter.add(len(batch))
    lists = [one for one in lists if len(one.scores)]
    if len(lists) < LEAST:
        raise QueryError(
            f"{settings.queries}: {len(lists)} queries have positive truth and an answer; "
            f"at least {LEAST} are needed"
        )
    return lists


def _fitted(lists: Sequence[Answered]) -> Constants:
    """Return the constants that fit some lists.

    Raises:
        QueryError: nothing of them belongs, or all.
    """
    try:
        return fit(lists)
    except ValueError as error:
        raise QueryError(f"{len(lists)} queries cannot be fitted: {error}; give more queries") from None


def _publish(workspace: Workspace, bundle: Bundle, constants: Mapping[str, Constants]) -> str:
    """Publish a bundle's constants beside all that it holds; returns the new bundle's id."""
    entities = "entities.parquet"
    staged = workspace.bundles.staging()
    (workspace.bundles / bundle.id / entities).link_or_fetch(staged / entities)
    write_constants(staged / MEMBERSHIP, constants)
    manifest, left_out = derive(workspace, staged, {}, replaces=())
    if left_out:
        console.say(left_out)
    return manifest.id


def _show(method: str, found: Measured) -> None:
    rows = [
        [f"{said:.2f}", f"{true:.2f}", f"{entities:,}"]
        for said, true, entities in zip(
            found.reliability.said, found.reliability.true, found.reliability.entities, strict=True
        )
    ]
    console.say(f"{method}: the first {MEASURED} entities of {found.queries} lists, by their probability")
    console.console.print(console.table("", ["said", "true", "entities"], rows, texts=0))
    console.say(
        f"expected calibration error {found.reliability.error:.3f}; F1 of the proposed sets "
        f"{found.proposed_f1:.3f}; in hindsight, of the best probability to end every list at "
        f"{found.same_end_f1:.3f}, of the best beginning of each list {found.best_f1:.3f}"
    )


if __name__ == "__main__":
    main.run()
