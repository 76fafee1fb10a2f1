"""Generative re-ranking: the recalled candidates are scored in place of being generated.

Generation searches round after round; here the language model says at once, for each candidate, how
likely it continues a list of positive seeds. The names form a small trie that one pass goes through, so
the time is known beforehand: choose it where an answer has a deadline, or as evidence beside retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.bundle import Bundle
from engine.generation.artifacts import Artifacts, open_artifacts
from engine.generation.prompts import SEEDS_SHOWN, list_prompt
from engine.generation.trie_scores import name_logprobs
from engine.query import Expansion, Query, Ranking
from engine.stages.base import Stage, Worker


class GenerativeRerank(Stage):
    """Add to each candidate's score how likely the model lists it after the positive seeds.

    With r the scores so far, g the mean log-probability over ``prompts`` draws of the seeds, and z(.)
    a column less its mean, over its standard deviation,

        score := r + weight * std(r) * z(g)

    so that ``weight`` is how much the language model counts beside what ranked the list before, on the
    scale of that. ``alone`` ranks by g only. The time grows with the candidates: the recall decides it.
    """

    prompts: int = Field(default=3, ge=1)
    weight: float = Field(default=0.5, gt=0)
    alone: bool = False
    descriptions: bool = False
    at_once: int = Field(default=4, ge=1)
    seed: int = Field(default=13, ge=0)

    def open(self, bundle: Bundle) -> Worker:
        """Load the language model and the trie."""
        artifacts = open_artifacts(bundle)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            done: list[Expansion] = []
            for start in range(0, len(expansions), self.at_once):
                done += self._rerank(artifacts, expansions[start : start + self.at_once])
            return done

        return run

    def _rerank(self, artifacts: Artifacts, expansions: Sequence[Expansion]) -> list[Expansion]:
        scored = [e for e in expansions if len(e.ranking)]
        tries = [artifacts.trie.restrict(e.ranking.ids) for e in scored]
        prompts = [prompt for e in scored for prompt in self._prompts(artifacts, e.query)]
        found = name_logprobs(artifacts.model, prompts, [t for t in tries for _ in range(self.prompts)])
        answers = {}
        for place, e in enumerate(scored):
            own = found[place * self.prompts : (place + 1) * self.prompts]
            mean = np.mean([f.logprobs.astype(np.float64) for f in own], axis=0)
            answers[id(e)] = self._fused(e.ranking, mean[np.searchsorted(own[0].ids, e.ranking.ids)])
        return [replace(e, ranking=answers.get(id(e), e.ranking)) for e in expansions]

    def _prompts(self, artifacts: Artifacts, query: Query) -> list[list[int]]:
        """Return prompts of different draws of the positive seeds, the same for the same query."""
        random = np.random.default_rng([self.seed, *query.positive])
        drawn = [random.permutation(query.positive)[:SEEDS_SHOWN].tolist() for _ in range(self.prompts)]
        return [
            artifacts.model.encode(
                list_prompt(
                    [artifacts.names[i] for i in ids],
                    descriptions=[artifacts.descriptions[i] for i in ids] if self.descriptions else (),
                )
            )
            for ids in drawn
        ]

    def _fused(self, ranking: Ranking, logprobs: npt.NDArray[np.float64]) -> Ranking:
        """Return the ranking by the fused score, with the log-probabilities as evidence."""
        scores = logprobs
        if not self.alone:
            before = ranking.scores.astype(np.float64)
            scores = before + self.weight * before.std() * standardised(logprobs)
        order = np.lexsort((ranking.ids, -scores))
        evidence = logprobs.astype(np.float32)
        reordered = replace(ranking.with_evidence(generation=evidence), scores=scores.astype(np.float32))
        return reordered.take(order)


def standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values less their mean over their standard deviation; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
