"""Plan which runs a workspace can do without, and which checkpoints of those that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import DamagedFileError, MissingFileError
from engine.evaluation.kept_stages import BUNDLE, SUFFIX
from engine.storage.parts import CURRENT
from engine.storage.removal import Removal
from jobs.steps.masked_lm import MASKED_LMS, corpus_of
from jobs.steps.measuring import CELLS
from jobs.steps.reporting import STAGES
from jobs.steps.survey import DAY, JOBS, Survey
from jobs.workers.encoder import EncoderRun
from jobs.workers.lm import JOB as LM_JOB
from jobs.workers.lm import LmRun
from jobs.workers.summaries import SUMMARY, finished_summary
from jobs.workers.training_sessions import CHECKPOINTS, OF_RAY_TRAIN, SNAPSHOT
from jobs.workers.typing import JOB as TYPING_JOB
from jobs.workers.typing import TypingRun

RESULTS = ("ablate", "evaluate", "report", "reproduce", MASKED_LMS, CELLS, STAGES)
"""Folders of runs that hold something else than trainings."""

_ARTIFACTS: Mapping[str, str] = {LM_JOB: LmRun.artifact, TYPING_JOB: TypingRun.artifact}


def roots_of_runs(found: Survey) -> Iterator[str]:
    """Yield the paths of runs that stay whether or not something names them.

    Unfinished ones that may go on; typing models, which other workspaces and people name by their path; and
    of a job without a pointer the run that ended last: it may be about to be published. A bucket tells times
    in seconds: of runs that ended in the same one all stay.
    """
    for job in JOBS:
        paths = [f"runs/{job}/{name}" for name in found.listing.children(f"runs/{job}") if name != CURRENT]
        ended = [path for path in paths if found.listing.holds(f"{path}/{SUMMARY}")]
        yield from (
            path for path in paths if path not in ended and not found.given_up(path, found.unfinished_s)
        )
        if job == TYPING_JOB:
            yield from ended
        elif ended and found.pointed(f"runs/{job}") is None:
            times = [found.listing.changed(f"{path}/{SUMMARY}") for path in ended]
            yield from (path for path, time in zip(ended, times, strict=True) if time == max(times))


def run_removals(found: Survey, used: set[str]) -> Iterator[Removal]:
    """Yield trainings that nothing names, or that were given up, and checkpoints of trainings that ended.

    Args:
        found: the workspace.
        used: paths of the runs that stay.
    """
    listing = found.listing
    known = {*JOBS, *RESULTS}
    found.unknown.extend(f"runs/{name}" for name in listing.children("runs") if name not in known)
    for job in JOBS:
        pointer = f"runs/{job}/{CURRENT}"
        for path in (f"runs/{job}/{name}" for name in listing.children(f"runs/{job}") if name != CURRENT):
            if listing.holds(path):  # a file
                found.unknown.append(path)
            elif path in used:
                yield from _checkpoints(found, job, path)
            elif listing.holds(f"{path}/{SUMMARY}"):
                reason = "no kept bundle and no pointer names it"
                yield Removal(path, "run", reason, (f"{path}/{SUMMARY}", path), pointer)
            else:
                reason = f"unfinished, and untouched for {found.unfinished_s / DAY:g} days"
                yield Removal(path, "run", reason, (path,), pointer)


def _checkpoints(found: Survey, job: str, path: str) -> Iterator[Removal]:
    """Yield the checkpoints of a training that ended, if what it made is whole: else it goes on from them."""
    names = found.listing.children(path)
    # Ray Train's record first: it names the checkpoints.
    steps = [name for name in (SNAPSHOT, CHECKPOINTS) if name in names]
    steps += [name for name in names if name.startswith(OF_RAY_TRAIN) and name != SNAPSHOT]
    if not steps or SUMMARY not in names:
        return
    try:
        finished_summary(found.workspace.root / path, _ARTIFACTS.get(job, EncoderRun.artifact))
    except (MissingFileError, DamagedFileError):
        return
    yield Removal(path, "checkpoints", "the training has ended", tuple(f"{path}/{name}" for name in steps))


def masked_lm_removals(found: Survey, corpora: set[str]) -> Iterator[Removal]:
    """Yield masked language models of other corpora; those of a former version do not say theirs, and stay.

    Args:
        found: the workspace.
        corpora: digests of the corpora of what is kept.
    """
    for name in found.listing.children(f"runs/{MASKED_LMS}"):
        path = f"runs/{MASKED_LMS}/{name}"
        corpus = corpus_of(found.workspace.root / path) if found.listing.holds(path) else None
        if corpus is not None and corpus not in corpora:
            yield Removal(path, "masked language model", "of a corpus that nothing kept is of", (path,))


def stage_removals(found: Survey, alive: set[str], oldest: float) -> Iterator[Removal]:
    """Yield what slow first stages answered for bundles that are not kept.

    Args:
        found: the workspace.
        alive: ids of bundles.
        oldest: when the first of the bundles that stay was made (seconds): what a former version kept does
            not say of which bundle it is, and is of none of these if it is older.
    """
    for name in found.listing.children(f"runs/{STAGES}"):
        path = f"runs/{STAGES}/{name}"
        bundle = _bundle_of(found, path)
        if bundle is None and found.listing.changed(path) >= oldest:
            continue
        if bundle is None:
            yield Removal(path, "answers of a stage", "of a bundle before those that are kept", (path,))
        elif bundle not in alive:
            yield Removal(path, "answers of a stage", f"of bundle {bundle}, which is not kept", (path,))


def _bundle_of(found: Survey, path: str) -> str | None:
    for entry in found.listing.below(path):
        if not entry.path.endswith(SUFFIX):
            continue
        try:
            with (found.workspace.root / entry.path).open_input() as stream:
                metadata = pq.read_schema(stream).metadata or {}
        except (MissingFileError, pa.ArrowException):
            continue
        bundle = metadata.get(BUNDLE.encode())
        return None if bundle is None else bundle.decode()
    return None
