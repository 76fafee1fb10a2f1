"""Generate more names of the same kind with the language model (GenExpan, section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from engine.catalogue.entities import Catalogue
from engine.catalogue.opening import open_catalogue, open_types
from engine.entity_types import TYPES, EntityTypes
from engine.errors import QueryError
from engine.filters import Filters
from engine.generation.files import LM_FILES
from engine.generation.prompts import CotLevel, Part, PromptStyle, parts_of
from engine.generation.seeds import NO_DESCRIPTION, described, query_rng
from engine.query import Expansion, Ids, Query, Ranking, Scores
from engine.retrieval.index import Index, index_file, mean_of, seed_vectors
from engine.retrieval.opening import open_index
from engine.stages.base import Stage, Worker, without
from engine.stages.types import class_in_plural
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # a description brings no model library along: what does is imported where it is used
    from engine.generation.artifacts import Artifacts
    from engine.generation.beam import BeamSearch
    from engine.generation.expansion import ExpansionState, Round, Rules
    from engine.generation.free import FreeSearch
    from engine.generation.reasoning import Reasoning
    from engine.generation.trie import Trie

FREE_TOKENS = 20
"""New tokens of a search without the trie, which would not end by itself."""

CACHED_TRIES = 8
"""Tries of filtered entities that a worker caches."""


def _listed(given: object) -> object:
    """Return the parts of a text such as "positive,negative", as a command line has them."""
    return tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given


class Generate(Stage):
    """Grow a list by rounds of constrained beam search, and rank it by likelihood of the positive seeds.

    After a stage that recalled candidates only these can be generated; as the first stage, every name of an
    entity that fulfils the query's filters. Scores are the mean likelihood of the positive seeds after
    "{e} is similar to" (equation 8). After the query's deadline no round begins: the list is what it is
    then, or, if there was no round at all, what was recalled before.

    The defaults are GenExpan as its authors ran it: ``search``, ``selection`` and ``prompts`` are the
    paper's, each with ours beside it (:mod:`engine.generation.beam`, :mod:`engine.generation.expansion`,
    :mod:`engine.generation.prompts`). A name longer than ``max_tokens`` is not generated, as in theirs;
    None lifts that. ``patience`` is the paper's; the program has 5. ``cot_level`` is the depth of the chain
    of thought, and ``given`` names the parts of it that a query says itself (table 8).
    ``class_names`` is ours: "types" names the class by the rarest type that the positive seeds share, in the
    plural, and leaves it to the model where there is none.
    ``lookahead`` is ours, too: what a standard deviation of the cosine to the positive seeds, in the view
    ``lookahead_view``, weighs in the search, in nats (:mod:`engine.generation.lookahead`). It decides which
    names are found with few ``beams``; the likelihood that selects and ranks them is the model's alone.
    """

    k: int = Field(default=200, ge=1)
    beams: int = Field(default=40, ge=1)
    max_tokens: int | None = Field(default=20, ge=1)
    length_penalty: float = Field(default=0.6, ge=0)
    search: Literal["paper", "seedset"] = "paper"
    top_p: float = Field(default=0.7, gt=0, le=1)
    selection: Literal["paper", "seedset"] = "paper"
    patience: int = Field(default=20, ge=1)
    max_rounds: int = Field(default=200, ge=1)
    normalise: Literal["allowed", "vocabulary"] = "allowed"
    prompts: PromptStyle = "paper"
    cot_level: CotLevel = "none"
    given: Annotated[tuple[Part, ...], BeforeValidator(_listed)] = ()
    class_names: Literal["model", "types"] = "model"
    descriptions: bool = False
    negatives_in_prompt: bool = False
    constrained: bool = True
    lookahead: float = Field(default=0, ge=0)
    lookahead_view: str = "mask"
    seed: int = Field(default=13, ge=0)
    query_batch_size: int = Field(default=8, ge=1)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "k": (1, 500),
        "beams": (1, 100),
        "top_p": (0.01, 1),
        "patience": (1, 100),
        "max_rounds": (1, 1_000),
    }
    renamed: ClassVar[Mapping[str, str]] = {
        "reason": "cot_level",
        "unwanted": "negatives_in_prompt",
        "at_once": "query_batch_size",
    }
    unit: ClassVar[str] = "beams"
    budget: ClassVar[int] = 320  # those of ``query_batch_size`` queries, as both are by default

    @model_validator(mode="after")
    def _asks_for_what_is_given(self) -> Generate:
        asked = parts_of(self.cot_level)
        if unasked := [part for part in self.given if part not in asked]:
            raise ValueError(
                f"given names {unasked[0]!r}, but a chain of thought of cot_level {self.cot_level!r} has "
                f"{', '.join(asked) or 'no parts'}; set a deeper cot_level, or leave it out of given"
            )
        if self.class_names == "types" and ("class_name" not in asked or "class_name" in self.given):
            raise ValueError(
                f"class_names 'types' names the class, which a chain of thought of cot_level "
                f"{self.cot_level!r} with given {self.given} does not ask for; set cot_level to 'class' or "
                "deeper, and leave class_name out of given"
            )
        if self.lookahead and not self.constrained:
            raise ValueError(
                "lookahead steers a search through the trie, which a search that is not constrained does "
                "without; set lookahead to 0, or constrained to true"
            )
        return self

    def cost(self, expansion: Expansion) -> int:
        """Return how many beams search for a query."""
        return self.asked(expansion.query).beams

    def needs(self) -> tuple[str, ...]:
        """Name the language model, the trie, the types where these name the class, and the view looked at."""
        types = (TYPES,) if self.class_names == "types" else ()
        view = (index_file(self.lookahead_view),) if self.lookahead else ()
        return (*LM_FILES, *types, *view)

    def open(self, bundle: Bundle) -> Worker:
        """Load the language model and the trie."""
        return Generator.open(self, bundle)


class Generator:
    """The worker of :class:`Generate`. :meth:`rounds` shows lists while they grow."""

    @classmethod
    def open(cls, stage: Generate, bundle: Bundle) -> Generator:
        """Load the language model and the trie."""
        from engine.generation.artifacts import open_artifacts

        types = open_types(bundle) if stage.class_names == "types" else None
        index = open_index(bundle, stage.lookahead_view) if stage.lookahead else None
        return cls(stage, open_artifacts(bundle), open_catalogue(bundle), types, index)

    def __init__(
        self,
        stage: Generate,
        artifacts: Artifacts,
        catalogue: Catalogue,
        types: EntityTypes | None = None,
        index: Index | None = None,
    ) -> None:
        self._stage, self._catalogue, self._types, self._index = stage, catalogue, types, index
        self._artifacts = replace(artifacts, likelihood=artifacts.likelihood.with_own_counts())
        self._rounds = 0
        self._filtered_trie = lru_cache(CACHED_TRIES)(self._restricted)
        self._searches: dict[int, BeamSearch | FreeSearch] = {}

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        """Return each expansion with its grown list."""
        growing = self.start(expansions)
        for _ in self.rounds(growing):
            pass
        answered = []
        for expansion, one in zip(expansions, growing, strict=True):
            try:
                answered.append(self.answer(expansion, one))
            except QueryError as error:
                if len(expansions) == 1:
                    raise
                answered.append(without(expansion, self._stage.name, str(error)))
        return answered

    def start(self, expansions: Sequence[Expansion]) -> list[ExpansionState]:
        """Return the state of each query before its first round."""
        from engine.generation.expansion import ExpansionState

        stage = self._stage
        tries = [self._trie(e) for e in expansions]
        ahead = self._lookahead([e.query for e in expansions], tries)
        return [
            ExpansionState(
                query=e.query,
                trie=trie,
                lookahead=one_ahead,
                reasoning=reasoning,
                wanted=max(stage.asked(e.query).k, e.query.wanted),
                rng=query_rng(stage.seed, e.query, e.query.positive),
                refused=refused,
            )
            for e, trie, one_ahead, (reasoning, refused) in zip(
                expansions, tries, ahead, self._reasoned([e.query for e in expansions]), strict=True
            )
        ]

    def _lookahead(self, queries: Sequence[Query], tries: Sequence[Trie]) -> list[Scores | None]:
        """Return the look-ahead in each query's trie; None without a seed with a vector, or a name."""
        from engine.generation.lookahead import lookahead

        if self._index is None:
            return [None] * len(queries)
        seeds = seed_vectors(self._index, self._stage.lookahead_view, [(q, q.positive) for q in queries])
        pairs = zip(seeds, tries, strict=True)
        places = [n for n, (vectors, trie) in enumerate(pairs) if vectors.any() and trie.n_entities]
        products = self._index.similarities([(tries[n].entity_ids, mean_of(seeds[n])[None]) for n in places])
        ahead: list[Scores | None] = [None] * len(queries)
        for n, own in zip(places, products, strict=True):
            ahead[n] = lookahead(tries[n], own[:, 0], self._stage.lookahead)
        return ahead

    def _reasoned(self, queries: Sequence[Query]) -> list[tuple[Reasoning, str]]:
        """Return what each query's prompts say of its entities, and why it cannot be answered, if so."""
        from engine.generation.reasoning import Reasoning, reason

        stage = self._stage
        try:
            known = [class_in_plural(query, self._types) for query in queries] if self._types else []
            found = reason(self._artifacts, queries, stage.cot_level, stage.prompts, stage.given, known)
            return [(one, "") for one in found]
        except QueryError as error:
            if len(queries) == 1:
                return [(Reasoning(), str(error))]
        half = len(queries) // 2
        return [*self._reasoned(queries[:half]), *self._reasoned(queries[half:])]

    def rounds(self, growing: Sequence[ExpansionState]) -> Iterator[Round]:
        """Yield every round of every query while the lists grow; those of equal settings grow together."""
        from engine.generation.expansion import run_rounds

        together: dict[Generate, list[ExpansionState]] = {}
        for one in growing:
            together.setdefault(self._stage.asked(one.query), []).append(one)
        for stage, some in together.items():
            search, rules = self._search(stage), rules_of(stage)
            for done in run_rounds(self._artifacts, search, some, rules, stage.query_batch_size):
                self._rounds += 1
                yield done

    def _search(self, stage: Generate) -> BeamSearch | FreeSearch:
        """Return the search with a stage's beams: of what it depends on, a query may change these alone."""
        from engine.generation.beam import BeamSearch
        from engine.generation.free import FreeSearch

        artifacts, beams = self._artifacts, stage.beams
        tokens, penalty = stage.max_tokens, stage.length_penalty
        if beams not in self._searches:
            self._searches[beams] = (
                BeamSearch(
                    artifacts.model,
                    beams,
                    tokens,
                    stage.normalise,
                    penalty,
                    competing=stage.search == "paper",
                )
                if stage.constrained
                else FreeSearch(artifacts.model, artifacts.names, beams, tokens or FREE_TOKENS, penalty)
            )
        return self._searches[beams]

    def counts(self) -> Mapping[str, int]:
        """Return forward passes of the search, rounds, and cache hits and misses of equation 8."""
        likelihood = self._artifacts.likelihood
        return {
            "decode_steps": sum(search.forward_passes for search in self._searches.values()),
            "rounds": self._rounds,
            "cache_hits": likelihood.hits,
            "cache_misses": likelihood.misses,
        }

    def answer(self, expansion: Expansion, grown: ExpansionState) -> Expansion:
        """Return the expansion with the list as it is now; a round may have brought more than is wanted.

        Raises:
            QueryError: the query does not fit the model from the beginning, or lacks what the stage is given.
        """
        expansion = replace(expansion, reasoning={**expansion.reasoning, **grown.reasoning.notes()})
        if grown.refused:
            if not grown.rounds:
                raise QueryError(grown.refused)
            expansion = without(expansion, self._stage.name, grown.refused)
        elif grown.stopped:
            note = f"stopped by the deadline after {grown.rounds} rounds"
            expansion = without(expansion, self._stage.name, note)
            if not grown.rounds:
                return expansion
        if self._stage.descriptions and not described(expansion.query, self._artifacts.description):
            expansion = without(expansion, self._stage.name, NO_DESCRIPTION)
        if self._index is not None and grown.lookahead is None and grown.trie.n_entities:
            note = (
                f"no positive seed has a vector in {self._stage.lookahead_view!r}: searched without lookahead"
            )
            expansion = without(expansion, self._stage.name, note)
        ids, scores, times = grown.ranked(grown.wanted, self._stage.selection)
        recalled = _evidence_of(expansion.ranking, ids)
        columns = {**recalled, "likelihood": scores, "generated": times}
        return replace(expansion, ranking=Ranking(ids, scores, columns))

    def _trie(self, expansion: Expansion) -> Trie:
        """Return the names that may be generated. Seeds are left out where that costs nothing."""
        if not len(expansion.ranking):
            return self._filtered_trie(expansion.query.filters)
        recalled = expansion.ranking.ids
        return self._artifacts.trie.restrict(recalled[~np.isin(recalled, expansion.query.kept_out)])

    def _restricted(self, filters: Filters) -> Trie:
        trie = self._artifacts.trie
        if not filters and self._catalogue.all_are_there:
            return trie
        return trie.restrict(self._catalogue.matching(filters))


def _evidence_of(ranking: Ranking, ids: Ids) -> Mapping[str, Scores]:
    """Return the evidence that a ranking holds of some of its entities; nothing if it is empty."""
    if not len(ranking):
        return {}
    by_id = np.argsort(ranking.ids)
    return ranking.take(by_id[np.searchsorted(ranking.ids, ids, sorter=by_id)]).evidence


def rules_of(stage: Generate) -> Rules:
    """Return the rules by which lists grow."""
    from engine.generation.expansion import Rules

    return Rules(
        top_p=stage.top_p,
        selection=stage.selection,
        patience=stage.patience,
        max_rounds=stage.max_rounds,
        descriptions=stage.descriptions,
        negatives_in_prompt=stage.negatives_in_prompt,
        prompts=stage.prompts,
    )
