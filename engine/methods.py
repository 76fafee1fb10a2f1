"""Name the methods: each is a pipeline, described once and run in three places."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import QueryError
from engine.renames import current_name
from engine.stages.base import Pipeline, Stage
from engine.stages.case import CaSE
from engine.stages.cgexpan import CGExpan
from engine.stages.generate import Generate
from engine.stages.generative_rerank import GenerativeRerank
from engine.stages.rerank import ContrastRerank, SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.stages.setexpan import SetExpan
from engine.stages.window_search import WindowSearch

METHODS: dict[str, Pipeline] = {
    # The paper's RetExpan: recall by the positive seeds, then segments of four by the negative ones.
    "retexpan": Retrieve(view="mask") >> SegmentRerank(view="mask", length=4),
    # Its confidence-based segments (appendix K).
    "retexpan+cds": Retrieve(view="mask") >> SegmentRerank(view="mask", confidence=0.03),
    # Without the negative seeds: the ablation of the paper's table 4.
    "retexpan-negative": Pipeline((Retrieve(view="mask"),)),
    # The paper's GenExpan: rounds of generation, re-ranked by the likelihood of the negative seeds.
    "genexpan": Generate() >> SegmentRerank(by="likelihood", length=4),
    # With a class name that the model gives the seeds, and what they have in common (tables 2 and 8).
    "genexpan+cot": Generate(cot_level="positive") >> SegmentRerank(by="likelihood", length=4),
    # With the descriptions of the listed entities in front of the prompt (appendix J).
    "genexpan+ra": Generate(descriptions=True) >> SegmentRerank(by="likelihood", length=4),
    # One recalls 1,000 candidates, the other ranks them (table 9).
    "retexpan+genexpan": Retrieve(k=1000, view="mask") >> Generate() >> SegmentRerank(by="likelihood"),
    "genexpan+retexpan": Generate(k=1000) >> Retrieve(view="mask") >> SegmentRerank(view="mask"),
    # Recalled candidates are scored by the language model, after seeds of both kinds, in place of being
    # generated. Segments by the negative seeds would use these twice, and lower what was measured.
    "retexpan+lm-rerank": Retrieve(k=1000, view="mask") >> GenerativeRerank(),
    # The method of queries that name none: the best that was measured.
    "default": Retrieve(k=600, view="joint", hubness=0.6) >> ContrastRerank(view="joint"),
    # The same with a language model between recall and the negative seeds: the composed graph.
    "default+lm-rerank": Retrieve(k=600, view="joint", hubness=0.6)
    >> GenerativeRerank(weight=0.25)
    >> ContrastRerank(view="joint"),
    # The views of the default one by one and together, without negative seeds: what each brings.
    "joint": Pipeline((Retrieve(view="joint"),)),
    "description": Pipeline((Retrieve(view="description"),)),
    "lexical": Pipeline((Retrieve(view="lexical"),)),
    # MultiExpan: window search over predicted distributions of sentences and images.
    "multiexpan": Pipeline((WindowSearch(),)),
    # Beyond that paper, which has no negative seeds: segments by these, and RetExpan as it is, by the
    # mask representations of sentences and images.
    "multiexpan+segments": WindowSearch() >> SegmentRerank(view="multimodal"),
    "multimodal": Retrieve(view="multimodal") >> SegmentRerank(view="multimodal"),
    # The text baselines of the paper's table 2: shared contexts, and contexts with vectors. Their papers
    # have no negative seeds; segments by these are ours.
    "setexpan": Pipeline((SetExpan(),)),
    "setexpan+segments": SetExpan() >> SegmentRerank(view="mask"),
    "case": Pipeline((CaSE(),)),
    "case+segments": CaSE() >> SegmentRerank(view="mask"),
    "cgexpan": Pipeline((CGExpan(),)),
    "cgexpan+segments": CGExpan() >> SegmentRerank(view="mask"),
}

ABLATIONS: Mapping[str, Pipeline] = {
    # Image-only: with "lexical" it shows what either modality brings.
    "image": Pipeline((Retrieve(view="image"),)),
    # GenExpan without negative seeds (table 4), without the trie (table 3), and with the negative seeds
    # in the prompt (table 15): measured, not served.
    "genexpan-negative": Pipeline((Generate(),)),
    "genexpan-trie": Generate(constrained=False) >> SegmentRerank(by="likelihood", length=4),
    "genexpan+negatives": Generate(negatives_in_prompt=True) >> SegmentRerank(by="likelihood", length=4),
    # MultiExpan as its authors measure it: all classes grow together, and an entity comes in one at most.
    "multiexpan+joint": Pipeline((WindowSearch(jointly=True),)),
}


RENAMED = {"genexpan+unwanted": "genexpan+negatives"}
"""Former names of methods, which :func:`method` still takes."""


def register(name: str, pipeline: Stage | Pipeline) -> None:
    """Add a method under a name, for this process.

    One that commands and the service are to know has a line in :data:`METHODS`.

    Raises:
        QueryError: the name is taken.
    """
    if name in METHODS or name in ABLATIONS:
        raise QueryError(f"method {name!r} is taken; give yours another name")
    METHODS[name] = pipeline if isinstance(pipeline, Pipeline) else Pipeline((pipeline,))


def method(name: str) -> Pipeline:
    """Return the pipeline of a method or an ablation.

    Raises:
        QueryError: no such method; names those there are.
    """
    try:
        return {**METHODS, **ABLATIONS}[current_name("method", name, RENAMED)]
    except KeyError:
        raise QueryError(f"unknown method {name!r}; known: {', '.join([*METHODS, *ABLATIONS])}") from None
