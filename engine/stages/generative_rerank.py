"""Generative re-ranking: the recalled candidates are scored in place of being generated.

Generation searches round after round; here the language model says at once, for each candidate, how
likely it continues a list of positive seeds, and how much likelier than one of negative seeds. The names
form a small trie that one pass goes through, so the time is known beforehand: choose it where an answer
has a deadline, or as evidence beside retrieval.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.query import Expansion, Ranking
from engine.stages.base import Stage, Worker
from engine.stages.generate import LM_FILES
from engine.storage.bundle import Bundle


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

    unit: ClassVar[str] = "candidates"
    budget: ClassVar[int] = 4_000  # ``at_once`` queries by default, with 1,000 each

    def cost(self, expansion: Expansion) -> int:
        """Return how many candidates are scored."""
        return max(1, len(expansion.ranking))

    def needs(self) -> tuple[str, ...]:
        """Name the language model and the trie."""
        return LM_FILES

    def open(self, bundle: Bundle) -> Worker:
        """Load the language model and the trie."""
        from engine.stages.generative_reranker import GenerativeReranker

        return GenerativeReranker.open(self, bundle)

    def fused(self, ranking: Ranking, generation: npt.NDArray[np.float64]) -> Ranking:
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
