"""The named methods: each is a pipeline, described once and run in three places."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import QueryError
from engine.stages.base import Pipeline
from engine.stages.rerank import ContrastRerank, SegmentRerank
from engine.stages.retrieve import Retrieve

METHODS: Mapping[str, Pipeline] = {
    # The paper's RetExpan: recall by the positive seeds, then segments of four by the negative ones.
    "retexpan": Retrieve(view="mask") >> SegmentRerank(view="mask", length=4),
    # Its confidence-based segments (appendix K).
    "retexpan+cds": Retrieve(view="mask") >> SegmentRerank(view="mask", confidence=0.03),
    # Without the negative seeds: the ablation of the paper's table 4.
    "retexpan-negative": Pipeline((Retrieve(view="mask"),)),
    # What is used when nobody names a method: the best that was measured.
    "default": Retrieve(k=600, view="joint", hubness=0.6) >> ContrastRerank(view="joint"),
    # The views of the default one by one and together, without negative seeds: what each brings.
    "joint": Pipeline((Retrieve(view="joint"),)),
    "description": Pipeline((Retrieve(view="description"),)),
    "lexical": Pipeline((Retrieve(view="lexical"),)),
}


def method(name: str) -> Pipeline:
    """Return the pipeline of a method.

    Raises:
        QueryError: no such method; names those there are.
    """
    try:
        return METHODS[name]
    except KeyError:
        raise QueryError(f"unknown method {name!r}; known: {', '.join(METHODS)}") from None
