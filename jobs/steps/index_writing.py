"""Write codes beside the views that are too large to be read for every query."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.retrieval.code_building import (
    AUTO,
    BAR,
    CodesReport,
    K,
    fill_codes,
    kind_for,
    train_codes,
    tune_codes,
    write_codes,
)
from engine.retrieval.codes import EXACT, codes_file
from engine.retrieval.index import VectorIndex, Vectors, have_vectors, index_file, map_hubness
from jobs import console


def add_codes(staged: Path, views: Mapping[str, Vectors], asked: str) -> dict[str, Any]:
    """Write codes beside the views that get some; return what a manifest says of it.

    Args:
        staged: with the views' hubness, where they have one.
        views: as they were written.
        asked: one of :data:`engine.retrieval.code_building.KINDS`.
    """
    made: dict[str, dict[str, Any]] = {}
    for name, vectors_ND in views.items():
        present = int(have_vectors(vectors_ND).sum())
        kind = kind_for(asked, present, vectors_ND.shape[1])
        if kind == EXACT:
            if asked not in (AUTO, EXACT):
                console.say(f"view {name!r}: {present} entities have a vector, so it is searched exactly")
            continue
        hubness_N = map_hubness(staged / index_file(name))
        console.say(f"view {name!r}: lists for codes {kind} of {present} vectors of {vectors_ND.shape[1]}")
        codes = train_codes(vectors_ND, hubness_N, kind)
        with console.meter(f"codes of {name}, vectors", present) as meter:
            fill_codes(codes, vectors_ND, hubness_N, meter.add)
        report = tune_codes(codes, VectorIndex(vectors_ND, hubness_N), hubness_N is not None)
        write_codes(codes, staged / codes_file(name))
        console.say(_line(name, report))
        made[name] = report.record()
    return {"asked": asked, "codes": made}


def _line(view: str, report: CodesReport) -> str:
    with_hubness = f", {report.recall_hubness:.3f} with hubness" if report.recall_hubness is not None else ""
    below = "" if report.least >= BAR else f": below {BAR}; `--index exact` searches everything"
    return (
        f"view {view!r}: {report.kind}, {report.code_bytes >> 20} MiB of codes, a query reads "
        f"{report.probes} of {report.lists} lists; recall@{K} {report.recall:.3f}{with_hubness} on "
        f"{report.queries} queries{below}"
    )
