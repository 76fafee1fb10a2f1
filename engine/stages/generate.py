"""Generation: the language model lists more of the same kind (GenExpan, section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from engine.bundle import Bundle
from engine.generation.artifacts import Artifacts, open_artifacts
from engine.generation.beam import BeamSearch
from engine.generation.expansion import Growing, Round, Rules, Search, grow
from engine.generation.free import FreeSearch
from engine.generation.reasoning import Depth, class_names
from engine.generation.trie import Trie
from engine.query import Expansion, Ids, Ranking, Scores
from engine.stages.base import Stage

FREE_TOKENS = 20
"""New tokens of a search without the trie, which would not end by itself."""


class Generate(Stage):
    """Grow a list by rounds of constrained beam search, and rank it by its likeness to the positive seeds.

    After a stage that recalled candidates only these can be generated; as the first stage, every name.
    Scores are the mean likelihood of the positive seeds after "{e} is similar to" (equation 8).
    """

    k: int = Field(default=200, ge=1)
    beams: int = Field(default=40, ge=1)
    top_p: float = Field(default=0.7, gt=0, le=1)
    patience: int = Field(default=20, ge=1)
    max_rounds: int = Field(default=200, ge=1)
    normalise: Literal["allowed", "vocabulary"] = "allowed"
    reason: Depth = "none"
    descriptions: bool = False
    unwanted: bool = False
    constrained: bool = True
    seed: int = Field(default=13, ge=0)
    at_once: int = Field(default=8, ge=1)

    num_cpus: ClassVar[float] = 1

    def open(self, bundle: Bundle) -> Generator:
        """Load the language model and the trie."""
        return Generator(self, open_artifacts(bundle))

    def rules(self) -> Rules:
        """Return the rules by which lists grow."""
        return Rules(
            top_p=self.top_p,
            patience=self.patience,
            max_rounds=self.max_rounds,
            descriptions=self.descriptions,
            unwanted=self.unwanted,
        )


class Generator:
    """The worker of :class:`Generate`. :meth:`rounds` shows lists while they grow."""

    def __init__(self, stage: Generate, artifacts: Artifacts) -> None:
        self._stage, self._artifacts = stage, artifacts
        self._search: Search
        if stage.constrained:
            self._search = BeamSearch(artifacts.model, stage.beams, normalise=stage.normalise)
        else:
            self._search = FreeSearch(artifacts.model, artifacts.names, stage.beams, FREE_TOKENS)

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        """Return each expansion with its grown list."""
        growing = self.start(expansions)
        for _ in self.rounds(growing):
            pass
        return [self.answer(e, one) for e, one in zip(expansions, growing, strict=True)]

    def start(self, expansions: Sequence[Expansion]) -> list[Growing]:
        """Return the state of each query before its first round."""
        stage = self._stage
        classes = class_names(self._artifacts, [e.query for e in expansions], stage.reason)
        return [
            Growing(
                query=e.query,
                trie=self._trie(e),
                class_name=class_name,
                wanted=max(stage.k, e.query.top_k),
                random=np.random.default_rng([stage.seed, *e.query.positive]),
            )
            for e, class_name in zip(expansions, classes, strict=True)
        ]

    def rounds(self, growing: Sequence[Growing]) -> Iterator[Round]:
        """Yield every round of every query while the lists grow."""
        stage = self._stage
        return grow(self._artifacts, self._search, growing, stage.rules(), stage.at_once)

    def answer(self, expansion: Expansion, grown: Growing) -> Expansion:
        """Return the expansion with the list as it is now; a round may have brought more than is wanted."""
        ids, scores, times = grown.ranked(grown.wanted)
        recalled = _evidence_of(expansion.ranking, ids)
        columns = {**recalled, "likelihood": scores, "generated": times}
        return replace(expansion, ranking=Ranking(ids, scores, columns))

    def _trie(self, expansion: Expansion) -> Trie:
        """Return the names that may be generated. Seeds are left out where that costs nothing."""
        if not len(expansion.ranking):
            return self._artifacts.trie
        recalled = expansion.ranking.ids
        return self._artifacts.trie.restrict(recalled[~np.isin(recalled, expansion.query.seeds)])


def _evidence_of(ranking: Ranking, ids: Ids) -> Mapping[str, Scores]:
    """Return the evidence that a ranking holds of some of its entities; nothing if it is empty."""
    if not len(ranking):
        return {}
    by_id = np.argsort(ranking.ids)
    return ranking.take(by_id[np.searchsorted(ranking.ids, ids, sorter=by_id)]).evidence
