"""Re-rank by generation: score the recalled candidates in place of generating them.

Generation searches round after round; here the language model says at once, for each candidate, how
likely it continues a list of positive seeds, and how much likelier than one of negative seeds. The names
form a small trie that one pass goes through, so the time is known beforehand: choose it where an answer
has a deadline, or as evidence in addition to retrieval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.errors import QueryError
from engine.generation.files import LM_FILES
from engine.generation.prompts import SEEDS_SHOWN, list_prompt
from engine.generation.seeds import descriptions_of, query_rng
from engine.query import Expansion, Query, Ranking
from engine.stages.base import Stage, Worker, by_settings, without
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # a description brings no model library along: what does is imported where it is used
    from engine.generation.artifacts import Artifacts
    from engine.generation.trie import Trie


class GenerativeRerank(Stage):
    """Add to each candidate's score how likely the model lists it after the seeds.

    With r the scores so far, g+ and g- the mean log-probabilities after ``prompts`` draws of the positive
    and of the negative seeds, and z(.) a column less its mean, over its standard deviation,

        score := r + weight * std(r) * z(g+ - contrast * g-)

    so that ``weight`` is how much the language model counts against what ranked the list before, on the
    scale of that. ``alone`` ranks by the model only. The time grows with the candidates: the recall
    decides it.
    """

    prompts: int = Field(default=4, ge=1)
    weight: float = Field(default=0.5, gt=0)
    contrast: float = Field(default=1, ge=0)
    alone: bool = False
    descriptions: bool = False
    query_batch_size: int = Field(default=4, ge=1)
    seed: int = Field(default=13, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "prompts": (1, 16),
        "weight": (0.001, 1_000),
        "contrast": (0, 100),
    }
    renamed: ClassVar[Mapping[str, str]] = {"at_once": "query_batch_size"}
    unit: ClassVar[str] = "candidates"
    budget: ClassVar[int] = 4_000  # ``query_batch_size`` queries by default, with 1,000 each

    def cost(self, expansion: Expansion) -> int:
        """Return how many candidates are scored."""
        return max(1, len(expansion.ranking))

    def needs(self) -> tuple[str, ...]:
        """Name the language model and the trie."""
        return LM_FILES

    def open(self, bundle: Bundle) -> Worker:
        """Load the language model and the trie."""
        return GenerativeReranker.open(self, bundle)

    def fused(self, ranking: Ranking, generation: npt.NDArray[np.float64]) -> Ranking:
        """Return the ranking by the fused score, with the model's scores as evidence."""
        scores = generation
        if not self.alone:
            before = ranking.scores.astype(np.float64)
            scores = before + self.weight * before.std() * standardised(generation)
        order = np.lexsort((ranking.ids, -scores))
        evidence = generation.astype(np.float32)
        return replace(ranking.with_evidence(generation=evidence), scores=scores.astype(np.float32)).take(
            order
        )


class GenerativeReranker:
    """The worker of :class:`GenerativeRerank`."""

    @classmethod
    def open(cls, stage: GenerativeRerank, bundle: Bundle) -> GenerativeReranker:
        """Load the language model and the trie."""
        from engine.generation.artifacts import open_artifacts

        return cls(stage, open_artifacts(bundle))

    def __init__(self, stage: GenerativeRerank, artifacts: Artifacts) -> None:
        self._stage, self._artifacts = stage, artifacts
        self._prompts_scored = self._names_scored = 0

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        """Return each expansion ranked anew."""
        return by_settings(self._stage, expansions, self._in_batches)

    def _in_batches(self, stage: GenerativeRerank, expansions: list[Expansion]) -> list[Expansion]:
        done: list[Expansion] = []
        for start in range(0, len(expansions), stage.query_batch_size):
            done += self._rerank(stage, expansions[start : start + stage.query_batch_size])
        return done

    def counts(self) -> Mapping[str, int]:
        """Return how many prompts were made, and how many names were scored after them."""
        return {"prompts": self._prompts_scored, "names": self._names_scored}

    def _rerank(self, stage: GenerativeRerank, expansions: Sequence[Expansion]) -> list[Expansion]:
        from engine.generation.trie_scores import name_logprobs

        artifacts = self._artifacts
        asked: list[tuple[int, float]] = []
        prompts: list[list[int]] = []
        tries: dict[int, Trie] = {}
        refused: dict[int, str] = {}
        for place, e in enumerate(expansions):
            sides = ((1.0, e.query.positive), (-stage.contrast, e.query.negative))
            wanted = [(sign, seeds) for sign, seeds in sides if len(e.ranking) and seeds and sign]
            if not wanted:
                continue
            trie = artifacts.trie.restrict(e.ranking.ids)
            try:
                made = [
                    prompt for _, seeds in wanted for prompt in self._prompts(stage, e.query, seeds, trie)
                ]
            except QueryError as error:  # the others are answered
                if len(expansions) == 1:
                    raise
                refused[place] = str(error)
                continue
            tries[place] = trie
            prompts += made
            asked += [(place, sign) for sign, _ in wanted]
        repeated = [tries[place] for place, _ in asked for _ in range(stage.prompts)]
        found = name_logprobs(artifacts.model, prompts, repeated)
        self._prompts_scored += len(prompts)
        self._names_scored += sum(trie.n_entities for trie in repeated)
        scores = {place: np.zeros(len(expansions[place].ranking)) for place in tries}
        for first, (place, sign) in zip(range(0, len(found), stage.prompts), asked, strict=True):
            own = found[first : first + stage.prompts]
            mean = np.mean([f.logprobs.astype(np.float64) for f in own], axis=0)
            scores[place] += sign * mean[np.searchsorted(own[0].ids, expansions[place].ranking.ids)]
        ranked = [
            replace(e, ranking=stage.fused(e.ranking, scores[place])) if place in scores else e
            for place, e in enumerate(expansions)
        ]
        return [
            without(e, stage.name, refused[place]) if place in refused else e
            for place, e in enumerate(ranked)
        ]

    def _prompts(
        self, stage: GenerativeRerank, query: Query, seeds: Sequence[int], trie: Trie
    ) -> list[list[int]]:
        """Return prompts of different draws of some seeds, the same for the same seeds.

        Raises:
            QueryError: a prompt and the longest name after it do not fit the model.
        """
        artifacts = self._artifacts
        rng = query_rng(stage.seed, query, seeds)
        drawn = [rng.permutation(seeds)[:SEEDS_SHOWN].tolist() for _ in range(stage.prompts)]
        prompts = [
            artifacts.model.encode(
                list_prompt(
                    query.seed_names(ids, artifacts.names),
                    descriptions=descriptions_of(ids, artifacts.description) if stage.descriptions else (),
                )
            )
            for ids in drawn
        ]
        artifacts.model.check_length(max(map(len, prompts)) + int(np.diff(trie.starts).max()))
        return prompts


def standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values less their mean over their standard deviation; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
