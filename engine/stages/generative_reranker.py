"""The worker of :class:`engine.stages.generative_rerank.GenerativeRerank`; it brings the models along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from engine.generation.artifacts import Artifacts, open_artifacts
from engine.generation.prompts import SEEDS_SHOWN, list_prompt
from engine.generation.seeds import described, draws
from engine.generation.trie import Trie
from engine.generation.trie_scores import name_logprobs
from engine.query import Expansion, Query
from engine.stages.generative_rerank import GenerativeRerank
from engine.storage.bundle import Bundle


class GenerativeReranker:
    """The worker of :class:`GenerativeRerank`."""

    @classmethod
    def open(cls, stage: GenerativeRerank, bundle: Bundle) -> GenerativeReranker:
        """Load the language model and the trie."""
        return cls(stage, open_artifacts(bundle))

    def __init__(self, stage: GenerativeRerank, artifacts: Artifacts) -> None:
        self._stage, self._artifacts = stage, artifacts
        self._prompts_scored = self._names_scored = 0

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        """Return each expansion ranked anew."""
        done: list[Expansion] = []
        for start in range(0, len(expansions), self._stage.at_once):
            done += self._rerank(expansions[start : start + self._stage.at_once])
        return done

    def counts(self) -> Mapping[str, int]:
        """Return how many prompts were made, and how many names were scored after them."""
        return {"prompts": self._prompts_scored, "names": self._names_scored}

    def _rerank(self, expansions: Sequence[Expansion]) -> list[Expansion]:
        stage, artifacts = self._stage, self._artifacts
        asked = [
            (place, sign, seeds)
            for place, e in enumerate(expansions)
            for sign, seeds in ((1.0, e.query.positive), (-stage.contrast, e.query.negative))
            if len(e.ranking) and seeds and sign
        ]
        tries = {place: artifacts.trie.restrict(expansions[place].ranking.ids) for place, _, _ in asked}
        prompts = [
            prompt
            for place, _, seeds in asked
            for prompt in self._prompts(expansions[place].query, seeds, tries[place])
        ]
        repeated = [tries[place] for place, _, _ in asked for _ in range(stage.prompts)]
        found = name_logprobs(artifacts.model, prompts, repeated)
        self._prompts_scored += len(prompts)
        self._names_scored += sum(trie.n_entities for trie in repeated)
        scores = {place: np.zeros(len(expansions[place].ranking)) for place in tries}
        for first, (place, sign, _) in zip(range(0, len(found), stage.prompts), asked, strict=True):
            own = found[first : first + stage.prompts]
            mean = np.mean([f.logprobs.astype(np.float64) for f in own], axis=0)
            scores[place] += sign * mean[np.searchsorted(own[0].ids, expansions[place].ranking.ids)]
        return [
            replace(e, ranking=stage.fused(e.ranking, scores[place])) if place in scores else e
            for place, e in enumerate(expansions)
        ]

    def _prompts(self, query: Query, seeds: Sequence[int], trie: Trie) -> list[list[int]]:
        """Return prompts of different draws of some seeds, the same for the same seeds.

        Raises:
            QueryError: a prompt and the longest name after it do not fit the model.
        """
        stage, artifacts = self._stage, self._artifacts
        random = draws(stage.seed, query, seeds)
        drawn = [random.permutation(seeds)[:SEEDS_SHOWN].tolist() for _ in range(stage.prompts)]
        prompts = [
            artifacts.model.encode(
                list_prompt(
                    query.seed_names(ids, artifacts.names),
                    descriptions=described(ids, artifacts.description) if stage.descriptions else (),
                )
            )
            for ids in drawn
        ]
        artifacts.model.check_room(max(map(len, prompts)) + int(np.diff(trie.starts).max()))
        return prompts
