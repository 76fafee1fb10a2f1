"""Say how far a new bundle's answers are from those of the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.evaluation.report import evaluate, key_figures
from engine.plugins import find_method
from engine.queries.formats import QuerySet
from engine.retrieval.index import index_file, read_vectors, views_of
from engine.retrieval.neighbor_overlap import neighbor_overlap
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.measuring import measuring
from jobs.steps.query_tables import read_query_table

VIEW = "joint"
METHOD = "default"


def neighbor_overlap_of(before: Bundle, after: Bundle) -> float | None:
    """Return the share of neighbours in the joint view that stayed; None: not both have it, or ids differ."""
    grew = after.vocabulary.grew_from(before.vocabulary)
    if not grew or any(VIEW not in views_of(bundle.manifest) for bundle in (before, after)):
        return None
    views = [read_vectors(bundle.path(index_file(VIEW))) for bundle in (before, after)]
    return neighbor_overlap(views[0], views[1])


def measured(
    workspace: Workspace, bundles: Sequence[Bundle], queries: str, columns: str = ""
) -> list[dict[str, float]]:
    """Return the key figures of `default` on each bundle, in percent, on the queries that all can read."""
    asked = [read_query_table(queries, columns, bundle.vocabulary) for bundle in bundles]
    shared = set.intersection(*({one.query.id for one in own.queries} for own in asked))
    if left_out := max(len(own.queries) for own in asked) - len(shared):
        console.say(f"{left_out} queries name entities that not both bundles have, and are not measured")
    return [
        _key_figures(workspace, bundle, QuerySet([one for one in own.queries if one.query.id in shared]))
        for bundle, own in zip(bundles, asked, strict=True)
    ]


def _key_figures(workspace: Workspace, bundle: Bundle, queries: QuerySet) -> dict[str, float]:
    how = measuring(workspace, bundle, queries)
    pipeline = find_method(METHOD).open(bundle)
    with console.meter(f"{METHOD} on bundle {bundle.id}", len(queries.queries)) as meter:
        return key_figures(evaluate(pipeline, queries, on_batch=meter.add, measures=how.measures))
