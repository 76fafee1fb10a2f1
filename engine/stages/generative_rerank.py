"""Generative re-ranking: the recalled candidates are scored in place of being generated.

Generation searches round after round; here the language model says at once, for each candidate, how
likely it continues a list of positive seeds, and how much likelier than one of negative seeds. The names
form a small trie that one pass goes through, so the time is known beforehand: choose it where an answer
has a deadline, or as evidence beside retrieval.
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
from engine.query import Expansion, Ranking
from engine.stages.base import Stage, Worker


class GenerativeRerank(Stage):
    """Add to each candidate's score how likely the model lists it after the seeds.

    With r the scores so far, g+ and g- the mean log-probabilities after ``prompts`` draws of the positive
    and of the negative seeds, and z(.) a column less its mean, over its standard deviation,

        score := r + weight * std(r) * z(g+ - contrast * g-)

    so that ``weight`` is how much the language model counts beside what ranked the list before, on the
    scale of that. ``alone`` ranks by the model only. The time grows with the candidates: the recall
    decides it.
    """

    prompts: int = Field(default=4, ge=1)
    weight: float = Field(default=0.5, gt=0)
    contrast: float = Field(default=1, ge=0)
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
        asked = [
            (place, sign, seeds)
            for place, e in enumerate(expansions)
            for sign, seeds in ((1.0, e.query.positive), (-self.contrast, e.query.negative))
            if len(e.ranking) and seeds and sign
        ]
        tries = {place: artifacts.trie.restrict(expansions[place].ranking.ids) for place, _, _ in asked}
        prompts = [prompt for _, _, seeds in asked for prompt in self._prompts(artifacts, seeds)]
        repeated = [tries[place] for place, _, _ in asked for _ in range(self.prompts)]
        found = name_logprobs(artifacts.model, prompts, repeated)
        scores = {place: np.zeros(len(expansions[place].ranking)) for place in tries}
        for first, (place, sign, _) in zip(range(0, len(found), self.prompts), asked, strict=True):
            own = found[first : first + self.prompts]
            mean = np.mean([f.logprobs.astype(np.float64) for f in own], axis=0)
            scores[place] += sign * mean[np.searchsorted(own[0].ids, expansions[place].ranking.ids)]
        return [
            replace(e, ranking=self._fused(e.ranking, scores[place])) if place in scores else e
            for place, e in enumerate(expansions)
        ]

    def _prompts(self, artifacts: Artifacts, seeds: Sequence[int]) -> list[list[int]]:
        """Return prompts of different draws of some seeds, the same for the same seeds."""
        random = np.random.default_rng([self.seed, *seeds])
        drawn = [random.permutation(seeds)[:SEEDS_SHOWN].tolist() for _ in range(self.prompts)]
        return [
            artifacts.model.encode(
                list_prompt(
                    [artifacts.names[i] for i in ids],
                    descriptions=[artifacts.descriptions[i] for i in ids] if self.descriptions else (),
                )
            )
            for ids in drawn
        ]

    def _fused(self, ranking: Ranking, generation: npt.NDArray[np.float64]) -> Ranking:
        """Return the ranking by the fused score, with what the model says as evidence."""
        scores = generation
        if not self.alone:
            before = ranking.scores.astype(np.float64)
            scores = before + self.weight * before.std() * standardised(generation)
        order = np.lexsort((ranking.ids, -scores))
        evidence = generation.astype(np.float32)
        return replace(ranking.with_evidence(generation=evidence), scores=scores.astype(np.float32)).take(
            order
        )


def standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values less their mean over their standard deviation; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
