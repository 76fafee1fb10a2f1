"""Check the settings that queries of a table change for themselves, by the pipeline that answers them."""

from __future__ import annotations

from dataclasses import replace

from engine.errors import QueryError
from engine.queries.formats import QuerySet, RefusedQuery
from engine.refusals import Code, Refusal
from engine.stages.base import Pipeline
from engine.stages.options import checked_options


def with_checked_options(found: QuerySet, pipeline: Pipeline) -> QuerySet:
    """Return the queries as the pipeline's stages read them; those whose ``options`` are wrong are refused.

    Raises:
        QueryError: none is left; names the first reason.
    """
    if not any(labelled.query.options for labelled in found.queries):
        return found
    usable, refused = [], []
    for labelled in found.queries:
        query = labelled.query
        try:
            options = checked_options(pipeline.stages, dict(query.options))
        except QueryError as error:
            refusal = Refusal(Code.QUERY_INVALID, f"query {query.id!r}: options: {error}")
            refused.append(RefusedQuery(labelled.label, 0, query.id, refusal))
        else:
            usable.append(replace(labelled, query=replace(query, options=options)))
    if not usable:
        raise QueryError(f"none of the queries can be used; the first: {refused[0].reason}")
    return QuerySet(usable, [*found.refused, *refused])
