"""Name the methods: each is a pipeline, described once and run in three places."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import QueryError
from engine.generation.prompts import CotLevel, Part
from engine.renames import current_name
from engine.stages.base import Pipeline, Stage
from engine.stages.case import CaSE
from engine.stages.cgexpan import CGExpan
from engine.stages.chat_expand import ChatExpand
from engine.stages.compare import Compare
from engine.stages.conditioned_retrieve import ConditionedRetrieve
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.generate import Generate
from engine.stages.generative_rerank import GenerativeRerank
from engine.stages.membership import Membership
from engine.stages.rerank import ContrastRerank, SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.stages.setexpan import SetExpan
from engine.stages.types import TypeRerank
from engine.stages.window_search import WindowSearch


def with_new_entities(pipeline: Pipeline) -> Pipeline:
    """Return what answers queries with new entities, too: these are encoded before the first stage."""
    return EncodeNewEntities() >> pipeline


def _thinking(level: CotLevel, *given: Part) -> Pipeline:
    """Return GenExpan with a chain of thought of some depth; queries say the given parts themselves."""
    return Generate(cot_level=level, given=given) >> SegmentRerank(by="likelihood", length=4)


METHODS: dict[str, Pipeline] = {
    # The paper's RetExpan: recall by the positive seeds, then segments of four by the negative ones.
    "retexpan": Retrieve(view="mask") >> SegmentRerank(view="mask", length=4),
    # Its confidence-based segments (appendix K).
    "retexpan+cds": Retrieve(view="mask") >> SegmentRerank(view="mask", confidence=0.03),
    # Without the negative seeds: the ablation of the paper's table 4.
    "retexpan-negative": Pipeline((Retrieve(view="mask"),)),
    # Its ultra-fine contrastive learning (section 5.1.2), read as RetExpan is, without the query's seeds:
    # that gains more here. And what is recalled so, read anew with the seeds behind every sentence.
    "retexpan+contrast": Retrieve(view="contrast") >> SegmentRerank(view="contrast", length=4),
    "retexpan+contrast-conditioned": Retrieve(k=300, view="contrast")
    >> ConditionedRetrieve()
    >> SegmentRerank(by="evidence", view="contrast", length=4),
    # By types in words, too: those that the seeds share, and those that tell them apart.
    "retexpan+types": Retrieve(view="mask") >> TypeRerank() >> SegmentRerank(view="mask", length=4),
    # The paper's GenExpan: rounds of generation, re-ranked by the likelihood of the negative seeds.
    "genexpan": Generate() >> SegmentRerank(by="likelihood", length=4),
    # With a class name that the model gives the seeds, and what they have in common (table 2).
    "genexpan+cot": _thinking("positive"),
    # The depths of table 8: the class name alone; with what the positive seeds share, as above; with what
    # the negative ones share. And with the ground truth's in place of the model's, given by the query: the
    # class name; the positive attributes after the model's class name; both kinds of attributes after it.
    "genexpan+cot-class": _thinking("class"),
    "genexpan+cot-positive": _thinking("positive"),
    "genexpan+cot-negative": _thinking("negative"),
    "genexpan+cot-class-given": _thinking("class", "class_name"),
    "genexpan+cot-positive-given": _thinking("positive", "positive"),
    "genexpan+cot-negative-given": _thinking("negative", "positive", "negative"),
    # The class name by the types of the seeds in place of the model's: ours.
    "genexpan+cot-class-types": Generate(cot_level="class", class_names="types")
    >> SegmentRerank(by="likelihood", length=4),
    # Ours: a quarter of the beams, steered by what retrieval knows of the names that they may lead to.
    "genexpan+lookahead": Generate(beams=10, lookahead=4) >> SegmentRerank(by="likelihood", length=4),
    # With the descriptions of the listed entities in front of the prompt (appendix J).
    "genexpan+ra": Generate(descriptions=True) >> SegmentRerank(by="likelihood", length=4),
    # One recalls 1,000 candidates, the other ranks them (table 9).
    "retexpan+genexpan": Retrieve(k=1000, view="mask") >> Generate() >> SegmentRerank(by="likelihood"),
    "genexpan+retexpan": Generate(k=1000) >> Retrieve(view="mask") >> SegmentRerank(view="mask"),
    # Recalled candidates are scored by the language model, after seeds of both kinds, in place of being
    # generated. Segments by the negative seeds would use these twice, and lower what was measured.
    "retexpan+lm-rerank": Retrieve(k=1000, view="mask") >> GenerativeRerank(),
    # The method of queries that name none: the best that was measured.
    "default": Retrieve(k=600, view="joint", hubness=0.6)
    >> ContrastRerank(view="joint", soft_minimum=0.5)
    >> Membership(),
    # The same with the views weighed for each query by how well they tell its seeds apart.
    "default+view-weights": Retrieve(k=600, view="joint", hubness=0.6, view_weights=0.2)
    >> ContrastRerank(view="joint", soft_minimum=0.5, view_weights=0.2),
    # The default with a language model between recall and the negative seeds: the composed graph.
    "default+lm-rerank": Retrieve(k=600, view="joint", hubness=0.6)
    >> GenerativeRerank(weight=0.25)
    >> ContrastRerank(view="joint", soft_minimum=0.5),
    # The views of the default one by one and together, without negative seeds: what each brings.
    "joint": Pipeline((Retrieve(view="joint"),)),
    "description": Pipeline((Retrieve(view="description"),)),
    "lexical": Pipeline((Retrieve(view="lexical"),)),
    # What single seeds say, combined by three rules; these know context pairs, too.
    "mean": Pipeline((Compare(rule="mean"),)),
    "best": Pipeline((Compare(rule="best"),)),
    "sum": Pipeline((Compare(rule="sum"),)),
    # A chat model behind an endpoint: UltraWiki's GPT-4 and MESED's GPT-3.5; MESED's GPT+Name.
    "chat": Pipeline((ChatExpand(),)),
    "chat+class-name": Pipeline((ChatExpand(class_name=True),)),
    # ProbExpan, a baseline of the paper: window search over what the text head predicts; with segments by
    # the negative seeds (table 4).
    "probexpan": Pipeline((WindowSearch(view="mask"),)),
    "probexpan+segments": WindowSearch(view="mask") >> SegmentRerank(view="mask", length=4),
    # MultiExpan: the same search over predicted distributions of sentences and images.
    "multiexpan": Pipeline((WindowSearch(),)),
    # Beyond that paper, which has no negative seeds: segments by these, and RetExpan as it is, by the
    # mask representations of sentences and images.
    "multiexpan+segments": WindowSearch() >> SegmentRerank(view="multimodal"),
    "multimodal": Retrieve(view="multimodal") >> SegmentRerank(view="multimodal"),
    # The three steps one after the other: recall by the positive seeds, the language model, segments by the
    # negative seeds. These belong to the last step alone, so the model takes nothing off for them (contrast
    # 0), unlike in "default+lm-rerank". View, width, hubness and weight are that method's.
    "composed": Retrieve(k=600, view="joint", hubness=0.6)
    >> GenerativeRerank(weight=0.25, contrast=0)
    >> SegmentRerank(view="joint", length=4),
    # The same after MultiExpan's recall, by what sentences and images say together.
    "composed+images": WindowSearch()
    >> GenerativeRerank(weight=0.25, contrast=0)
    >> SegmentRerank(view="multimodal", length=4),
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
    # Contrastive learning as its authors answer: every sentence of every entity, read anew for each query.
    "retexpan+contrast-everything": ConditionedRetrieve(everything=True, sentences=None)
    >> SegmentRerank(by="evidence", view="contrast", length=4),
    # Image-only: with "lexical" it shows what either modality brings.
    "image": Pipeline((Retrieve(view="image"),)),
    # GenExpan without negative seeds (table 4), without the trie (table 3), and with negative seeds in the
    # prompt beside the re-ranking (table 15): measured, not served. Table 3's "without further pre-training"
    # is `genexpan` on a bundle whose model came from `pretrain-lm --epochs 0`.
    "genexpan-negative": Pipeline((Generate(),)),
    "genexpan-trie": Generate(constrained=False) >> SegmentRerank(by="likelihood", length=4),
    "genexpan+negatives": Generate(negatives_in_prompt=True) >> SegmentRerank(by="likelihood", length=4),
    # The re-ranking of "retexpan+lm-rerank" over the joint view: what a language model adds that was trained
    # on lists of that view (`pretrain-lm --neighbor-view joint`) is told from what the view itself knows.
    "joint+lm-rerank": Retrieve(k=1000, view="joint") >> GenerativeRerank(),
    # GenExpan with our search, selection and prompts, as it was before it followed its authors' program.
    "genexpan-seedset": Generate(search="seedset", selection="seedset", prompts="seedset", max_tokens=None)
    >> SegmentRerank(by="likelihood", length=4),
    # MultiExpan as its authors measure it: all classes grow together, and an entity comes in one at most.
    "multiexpan+joint": Pipeline((WindowSearch(jointly=True),)),
}


ABOUT: Mapping[str, str] = {
    "retexpan": "UltraWiki's RetExpan: nearest to the positive seeds, then segments by the negative ones",
    "retexpan+cds": "RetExpan with segments by confidence (appendix K)",
    "retexpan+contrast": "RetExpan with contrastive learning, read without the query's seeds",
    "retexpan+contrast-conditioned": "the same, and what is recalled is read with the seeds appended",
    "retexpan+types": "RetExpan with what a typing model says the seeds are (train-typing)",
    "retexpan-negative": "RetExpan without the negative seeds (table 4)",
    "genexpan": "UltraWiki's GenExpan: rounds of generation, then segments by likelihood",
    "genexpan+cot": "GenExpan that names the class and what the positive seeds share first (table 2)",
    "genexpan+cot-class": "GenExpan that names the class first (table 8)",
    "genexpan+cot-positive": "the same, and what the positive seeds share (table 8)",
    "genexpan+cot-negative": "the same, and what the seeds of both kinds share (table 8)",
    "genexpan+cot-class-given": "GenExpan with the class name that the query gives (table 8)",
    "genexpan+cot-positive-given": "GenExpan with the positive attributes that the query gives (table 8)",
    "genexpan+cot-negative-given": "GenExpan with attributes of both kinds that the query gives (table 8)",
    "genexpan+cot-class-types": "GenExpan with the class that a typing model says the seeds are of",
    "genexpan+lookahead": "GenExpan with 10 beams, steered by how near to the seeds what they lead to is",
    "genexpan+ra": "GenExpan with descriptions in the prompt (appendix J)",
    "retexpan+genexpan": "retrieval recalls 1,000 entities, generation ranks them (table 9)",
    "genexpan+retexpan": "generation recalls 1,000 entities, retrieval ranks them (table 9)",
    "retexpan+lm-rerank": "retrieval recalls 1,000 entities, a language model scores them",
    "default": "what answers best: three views together, and contrast by the negative seeds",
    "default+view-weights": "the default with the three views weighed by how well they tell the seeds apart",
    "default+lm-rerank": "the default with a language model in between",
    "joint": "the three views together, without negative seeds",
    "description": "by descriptions alone",
    "lexical": "by words alone",
    "mean": "mean similarity to the positive seeds less that to the negative ones; takes pairs",
    "best": "similarity to the nearest positive seed less that to the nearest negative one; takes pairs",
    "sum": "every seed has a bounded say: a sum of sigmoids of similarities; takes pairs",
    "probexpan": "ProbExpan: window search over the text head's predicted distributions",
    "probexpan+segments": "ProbExpan, then segments by the negative seeds (table 4)",
    "setexpan": "SetExpan: entities that share the contexts that tell the seeds apart",
    "setexpan+segments": "SetExpan, then segments by the negative seeds",
    "case": "CaSE: shared contexts and vectors together",
    "case+segments": "CaSE, then segments by the negative seeds",
    "cgexpan": "CGExpan: class names that a masked language model is probed for guide the expansion",
    "cgexpan+segments": "CGExpan, then segments by the negative seeds",
    "chat": "a chat model behind an endpoint lists entities: the GPT rows (SEEDSET_CHAT_URL, …_MODEL, …_KEY)",
    "chat+class-name": "the same, and the chat model names the class first (MESED's GPT+Name)",
    "multiexpan": "MESED's MultiExpan: window search over predicted distributions of text and images",
    "multiexpan+segments": "MultiExpan, then segments by the negative seeds",
    "multimodal": "RetExpan by the mask representations of sentences and images",
    "composed": "retrieval recall, then a language model, then segments by the negative seeds",
    "composed+images": "MultiExpan's recall, then a language model, then segments by the negative seeds",
    "retexpan+contrast-everything": "contrastive learning that reads every entity anew for each query",
    "image": "by images alone",
    "genexpan-negative": "GenExpan without the negative seeds (table 4)",
    "genexpan-trie": "GenExpan without the trie of names (table 3)",
    "genexpan+negatives": "GenExpan with the negative seeds in the prompt (table 15)",
    "genexpan-seedset": "GenExpan with this project's own search, selection and prompts",
    "joint+lm-rerank": "the three views recall 1,000 entities, a language model scores them",
    "multiexpan+joint": "MultiExpan that grows all classes together, as its authors measure it",
}
"""What a method is, in a line, for lists."""

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
        return {**METHODS, **ABLATIONS}[current_name("method", name, RENAMED)].settled()
    except KeyError:
        raise QueryError(f"unknown method {name!r}; known: {', '.join([*METHODS, *ABLATIONS])}") from None
