"""Plan what a workspace can do without: all that neither a kept bundle nor a pointer was made from.

A plan is data; :func:`engine.storage.removal.carry_out` removes what it lists, in its order: bundles before
what they were made from, and of each thing first what tells readers that it is whole.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.corpus.blocks.format import read_descriptions
from engine.corpus.schema import read_manifest
from engine.errors import BundleError, StorageError, UserError
from engine.evaluation.scores import REPORT
from engine.storage.bundle import MANIFEST, Manifest, manifest_of
from engine.storage.corpora import KEPT
from engine.storage.local_files import ASIDE, is_left_behind, is_temporary
from engine.storage.parts import CURRENT
from engine.storage.removal import JOURNAL, Removal, counted
from engine.storage.workspace import Workspace
from jobs.steps.cleaning_runs import masked_lm_removals, roots_of_runs, run_removals, stage_removals
from jobs.steps.cleaning_sources import (
    contrast_removals,
    description_removals,
    feature_removals,
    input_removals,
    lexical_removals,
    taught_removals,
    type_removals,
)
from jobs.steps.measuring import CELLS
from jobs.steps.survey import DAY, LISTED, SOURCES, UNFINISHED, Survey

READERS = 16
"""Threads that read reports."""
NEVER = ("corpus", "expansions", "chat", "locks")
"""Folders that are never touched: what was imported, answers, what was paid for, and who works here."""

_OF_A_CORPUS = re.compile(r"\d{8}T\d{6}(\d{6})?-[0-9a-f]{8}")
_ASIDE = re.compile(rf"\.(?P<target>.+){re.escape(ASIDE)}[0-9a-f]{{32}}", re.DOTALL)


@dataclass(frozen=True)
class Plan:
    """What is removed, in this order; the bundles that stay, newest first; and what is left as unknown."""

    removals: list[Removal]
    bundles: list[str]
    unknown: list[str]


def plan_cleaning(
    workspace: Workspace, keep: int, unfinished_s: float = 7 * DAY, now: float | None = None
) -> Plan:
    """Return what a workspace can do without.

    Args:
        workspace: that is looked at; nothing is written.
        keep: bundles that stay, the newest; the current one counts among them and always stays.
        unfinished_s: seconds without a change after which an unfinished training is given up.
        now: seconds since the epoch; None: this moment.

    Raises:
        UserError: there is no workspace.
    """
    found = Survey.of(workspace, unfinished_s, now)
    if not found.top & {*LISTED, *NEVER}:
        raise UserError(f"{workspace.root.uri}: no workspace here; check the address given with --workspace")
    bundles = _Bundles.of(found, keep)
    ablated = list(_ablation_bundles(found))
    roots = [f"{folder}/{name}" for folder in SOURCES if (name := found.pointed(folder))]
    documents = [manifest.settings for manifest in bundles.kept] + [one.get("settings") for one in ablated]
    fingerprints = {str(one.settings.get("types", {}).get("fingerprint")) for one in bundles.kept}
    now_there = _current_corpus(workspace)
    corpora = {str(one.settings.get("corpus")) for one in bundles.kept} | now_there
    used = found.made_from([*roots, *roots_of_runs(found)], documents)
    alive = {*bundles.alive, *(str(one.get("id")) for one in ablated)}
    removals = [
        *bundles.removals,
        *_cells(found, alive),
        *stage_removals(found, alive, min(map(_made_at, bundles.kept), default=found.now)),
        *run_removals(found, used),
        *masked_lm_removals(found, corpora),
        *contrast_removals(found, used),
        *input_removals(found, used),
        *type_removals(found, fingerprints),
        *taught_removals(found),
        *(description_removals(found, read_descriptions(workspace)) if now_there else ()),
        *lexical_removals(found),
        *feature_removals(found, used),
        *(() if workspace.root.is_local else _corpora(found)),
    ]
    removals += _leftovers(found, {step for removal in removals for step in removal.steps})
    safe = [one for one in removals if not found.listing.links & set(one.steps)]
    links = [one.path for one in removals if one not in safe]
    unknown = sorted({*found.unknown, *links, *_unknown_at_top(found)})
    return Plan(counted(found.listing, safe), [one.id for one in bundles.kept], unknown)


@dataclass(frozen=True)
class _Bundles:
    """The bundles that stay, newest first; names of all that may be used; and what goes."""

    kept: list[Manifest]
    alive: set[str]
    removals: list[Removal]

    @classmethod
    def of(cls, found: Survey, keep: int) -> _Bundles:
        current = found.pointed("bundles")
        whole, others, removals = [], set[str](), []
        for name in found.listing.children("bundles"):
            path = f"bundles/{name}"
            if name == CURRENT:
                continue
            try:
                whole.append(manifest_of(found.workspace, name))
            except BundleError:
                unfinished = bool(found.listing.children(path)) and not found.listing.holds(
                    f"{path}/{MANIFEST}"
                )
                if unfinished and name != current and found.given_up(path):
                    removals.append(Removal(path, "bundle", UNFINISHED, (path,), f"bundles/{CURRENT}"))
                    continue
                others.add(name)  # of another version, damaged, or being written
                if not unfinished:
                    found.unknown.append(path)
        newest = sorted(whole, key=lambda one: _age_key(found, one), reverse=True)
        kept = [one for one in newest if one.id == current]
        kept += [one for one in newest if one.id != current][: keep - len(kept)]
        kept.sort(key=newest.index)
        for one in newest:
            if one not in kept:
                steps = (f"bundles/{one.id}/{MANIFEST}", f"bundles/{one.id}")
                reason = f"of {one.created[:16]}, not among those that are kept"
                removals.append(Removal(steps[1], "bundle", reason, steps, f"bundles/{CURRENT}"))
        return cls(kept, others | {one.id for one in kept}, removals)


def _current_corpus(workspace: Workspace) -> set[str]:
    try:
        return {read_manifest(workspace).digest}
    except StorageError:  # there is none
        return set()


def _age_key(found: Survey, manifest: Manifest) -> tuple[str, float]:
    """Return what orders bundles by their age: those of the same second by the time of their manifest."""
    return manifest.created, found.listing.changed(f"bundles/{manifest.id}/{MANIFEST}")


def _made_at(manifest: Manifest) -> float:
    """Return when a bundle was made (seconds)."""
    return datetime.datetime.fromisoformat(manifest.created).timestamp()


def _ablation_bundles(found: Survey) -> Iterator[dict[str, Any]]:
    """Yield the manifests of the bundles that `seedset ablate` made for itself; they stay."""
    for entry in found.listing.below("runs/ablate"):
        parts = entry.path.split("/")
        if len(parts) == 6 and parts[3] == "bundles" and parts[5] == MANIFEST:
            document = found.document(entry.path)
            if isinstance(document, dict):
                yield document


def _cells(found: Survey, alive: set[str]) -> Iterator[Removal]:
    """Yield the measured cells of each bundle that is not there any more, or not for long."""
    folder = f"runs/{CELLS}"
    of_bundle: dict[str, list[str]] = defaultdict(list)
    paths = [f"{folder}/{name}" for name in found.listing.children(folder)]
    measured = [path for path in paths if found.listing.holds(f"{path}/{REPORT}")]
    for path in paths:
        if path not in measured and found.given_up(path):
            yield Removal(path, "evaluation", UNFINISHED, (path,))
    with ThreadPoolExecutor(READERS) as pool:  # a bucket takes its time over each
        reports = list(pool.map(found.document, (f"{path}/{REPORT}" for path in measured)))
    for path, report in zip(measured, reports, strict=True):
        if not isinstance(report, dict) or not isinstance(report.get("bundle"), str):
            found.unknown.append(path)
        elif report["bundle"] not in alive:
            of_bundle[report["bundle"]] += [f"{path}/{REPORT}", path]
    for bundle, steps in of_bundle.items():
        reason = f"{len(steps) // 2} of bundle {bundle}, which is not kept"
        yield Removal(folder, "evaluations", reason, tuple(steps))


def _corpora(found: Survey) -> Iterator[Removal]:
    """Yield former corpora of a bucket but the last one, which jobs that began with it still read.

    Files of theirs that those two have, too, stay.
    """
    current = found.pointed("corpora")
    names = [name for name in found.listing.children("corpora") if name != CURRENT]
    known = [name for name in names if _OF_A_CORPUS.fullmatch(name)]
    found.unknown.extend(f"corpora/{name}" for name in names if name not in known)
    if current not in known:
        return
    former = [name for name in known if name < current]  # names begin with the time
    whole = [name for name in former if found.listing.holds(f"corpora/{name}/{MANIFEST}")]
    stay = {current, *whole[-1:]}
    needed = {file for name in stay for file in _of_others(found, name)}
    for name in known:
        path, reason = f"corpora/{name}", "a former corpus, older than the one before the current"
        if name in stay or (name not in former and not found.given_up(path)):
            continue
        files = [entry.path for entry in found.listing.below(path)]
        gone = [file for file in files if file not in needed]
        if name not in former:
            reason = "an import that did not end"
        if gone:
            gone.sort(key=lambda file: file != f"{path}/{MANIFEST}")
            steps = (*gone[:1], path) if len(gone) == len(files) else tuple(gone)
            yield Removal(path, "corpus", reason, steps, f"corpora/{CURRENT}")


def _of_others(found: Survey, name: str) -> Iterator[str]:
    """Yield the paths of a corpus' files that lie in folders of former ones."""
    lists = found.document(f"corpora/{name}/{KEPT}")
    for owner, files in (lists if isinstance(lists, dict) else {}).items():
        yield from (f"corpora/{owner}/{file}" for file in files)


def _leftovers(found: Survey, gone: set[str]) -> Iterator[Removal]:
    """Yield temporary files and folders of programs that were killed, on this disk.

    Args:
        found: the workspace; in a bucket nothing has a temporary name.
        gone: paths of what is removed otherwise.
    """
    hidden = set[str]()
    for listed in (*(entry.path for entry in found.listing.entries), *found.listing.empty):
        parts = listed.split("/")
        if (place := next((i for i, part in enumerate(parts) if part.startswith(".")), None)) is not None:
            hidden.add("/".join(parts[: place + 1]))
    for name in sorted(hidden) if found.workspace.root.is_local else ():
        if any(f"{name}/".startswith(f"{one}/") for one in gone):
            continue
        path = Path(found.workspace.root.path) / name
        aside = _ASIDE.fullmatch(path.name)
        left = is_left_behind(path) or (aside is not None and path.with_name(aside["target"]).exists())
        if left and found.now - found.listing.changed(name) >= DAY:
            yield Removal(name, "leftover", "of a program that was killed", (name,))


def _unknown_at_top(found: Survey) -> set[str]:
    known = {*LISTED, *NEVER, JOURNAL} - ({"corpora"} if found.workspace.root.is_local else set())
    return {name for name in found.top - known if not (is_temporary(name) or _ASIDE.fullmatch(name))}
