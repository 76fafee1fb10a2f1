"""Re-rank by generation: score the recalled candidates in place of generating them.

Generation searches round after round; here the language model says at once, for each candidate, how
likely it continues a list of positive seeds, and how much likelier than one of negative seeds. The names
form a small trie that one pass goes through, so the time is known beforehand: choose it where an answer
has a deadline, or as evidence in addition to retrieval. The model is the bundle's, or one behind an endpoint
that tells log-probabilities (:mod:`engine.chat.name_scores`).

Shape letters: P prompts, N candidates, S sides of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.catalogue.opening import open_catalogue
from engine.chat.settings import (
    SCORES,
    ChatSettings,
    address_in_environment,
    model_in_environment,
    unavailable,
    usable_settings,
)
from engine.errors import QueryError
from engine.generation.files import LM_FILES
from engine.generation.prompts import SEEDS_SHOWN, list_prompt, name_text
from engine.generation.seeds import NO_DESCRIPTION, described, descriptions_of, query_rng
from engine.query import Deadline, Expansion, Ids, Query, Ranking
from engine.stages.base import Stage, Worker, by_settings, without
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # a description brings no model library along: what does is imported where it is used
    from engine.chat.name_scores import EndpointScores
    from engine.generation.artifacts import Artifacts

Logprobs = npt.NDArray[np.float64]


class GenerativeRerank(Stage):
    """Add to each candidate's score how likely the model lists it after the seeds.

    With r the scores so far, g+ and g- the mean log-probabilities after ``prompts`` draws of the positive
    and of the negative seeds, and z(.) a column less its mean, over its standard deviation,

        score := r + weight * std(r) * z(g+ - contrast * g-)

    so that ``weight`` is how much the language model counts against what ranked the list before, on the
    scale of that. ``alone`` ranks by the model only. The time grows with the candidates: the recall
    decides it.

    ``scores="endpoint"`` asks the model ``model`` ("": ``SEEDSET_CHAT_MODEL``) of the endpoint that the
    environment names (:class:`engine.chat.settings.ChatSettings`); its probabilities are over its whole
    vocabulary. Each candidate is a prompt for every draw and side, so let the recall keep few.
    """

    prompts: int = Field(default=4, ge=1)
    weight: float = Field(default=0.5, gt=0)
    contrast: float = Field(default=1, ge=0)
    alone: bool = False
    descriptions: bool = False
    query_batch_size: int = Field(default=4, ge=1)
    seed: int = Field(default=13, ge=0)
    scores: Literal["bundle", "endpoint"] = "bundle"
    model: str = ""
    begin: str = ""

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
        """Name the language model and the trie, unless an endpoint has the model."""
        return LM_FILES if self.scores == "bundle" else ()

    def settled(self) -> Self:
        """Return the stage with the environment's model written out, so that a run is known by it."""
        if self.scores == "bundle" or self.model:
            return self
        return self.model_copy(update={"model": model_in_environment()})

    def unavailable(self) -> str:
        """Return which variable of the environment is missing or wrong; "" if none is."""
        return unavailable(self.model) if self.scores == "endpoint" else ""

    def source(self) -> str:
        """Return the endpoint's address: models of one name at two endpoints need not be the same."""
        return address_in_environment(SCORES) if self.scores == "endpoint" else super().source()

    def account(self, bundle: Bundle) -> str:
        """Return how many requests, tokens and, with prices, how much money are counted beside the cache."""
        from engine.chat.chat import Chat

        if self.scores == "bundle":
            return super().account(bundle)
        return Chat.of_bundle(ChatSettings.of(), bundle).account()

    def open(self, bundle: Bundle) -> Worker:
        """Load the language model and the trie, or read where the endpoint is.

        Raises:
            ChatError: a variable of the environment is missing or wrong.
        """
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


class Prompted(NamedTuple):
    """Prompts, and the candidates that each of them may go on with."""

    prompts: Sequence[str]
    ids: Ids
    deadline: Deadline | None


class NameScorer(Protocol):
    """Says how likely candidates follow prompts."""

    def check(self, asked: Prompted) -> None:
        """Refuse what cannot be scored.

        Raises:
            QueryError: a prompt and the longest name after it do not fit the model.
        """

    def __call__(self, asked: Sequence[Prompted]) -> list[Logprobs]:
        """Return for each the log-probability of each candidate after each prompt, [P, N]."""


class BundleScorer:
    """Scores by the bundle's language model, among the tokens that the candidates' names allow."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def check(self, asked: Prompted) -> None:
        """See :class:`NameScorer`."""
        model, trie = self._artifacts.model, self._artifacts.trie.restrict(asked.ids)
        longest = max(len(model.encode(prompt)) for prompt in asked.prompts)
        model.check_length(longest + int(np.diff(trie.starts).max()))

    def __call__(self, asked: Sequence[Prompted]) -> list[Logprobs]:
        """See :class:`NameScorer`."""
        from engine.generation.trie_scores import name_logprobs

        model = self._artifacts.model
        tries = [self._artifacts.trie.restrict(one.ids) for one in asked]
        prompts = [model.encode(prompt) for one in asked for prompt in one.prompts]
        repeated = [trie for trie, one in zip(tries, asked, strict=True) for _ in one.prompts]
        found = iter(name_logprobs(model, prompts, repeated))
        scored = []
        for trie, one in zip(tries, asked, strict=True):
            by_id = np.stack([next(found).logprobs for _ in one.prompts]).astype(np.float64)
            scored.append(by_id[:, np.searchsorted(trie.entity_ids, one.ids)])
        return scored


class EndpointScorer:
    """Scores by a model behind an endpoint, over its whole vocabulary."""

    def __init__(self, scores: EndpointScores, names: Sequence[str], begin: str) -> None:
        self._scores, self._names, self._begin = scores, names, begin

    def check(self, asked: Prompted) -> None:
        """Refuse nothing: the endpoint says what does not fit its model."""

    def __call__(self, asked: Sequence[Prompted]) -> list[Logprobs]:
        """See :class:`NameScorer`."""
        scored = []
        for one in asked:
            prompts = [self._begin + prompt for prompt in one.prompts]
            names = [name_text(self._names[i]) for i in one.ids.tolist()]
            scored.append(self._scores(prompts, names, one.deadline))
        return scored


class GenerativeReranker:
    """The worker of :class:`GenerativeRerank`."""

    @classmethod
    def open(cls, stage: GenerativeRerank, bundle: Bundle) -> GenerativeReranker:
        """Load the language model and the trie, or read where the endpoint is."""
        names, description = bundle.vocabulary.names, open_catalogue(bundle).description
        if stage.scores == "bundle":
            from engine.generation.artifacts import open_artifacts

            return cls(stage, BundleScorer(open_artifacts(bundle)), names, description)
        from engine.chat.chat import Chat
        from engine.chat.name_scores import EndpointScores

        model = stage.settled().model
        settings = usable_settings(model, stage.name)
        chat = Chat.of_bundle(settings, bundle)
        chat.connect()
        scorer = EndpointScorer(EndpointScores(chat, model), names, stage.begin)
        return cls(stage, scorer, names, description, chat.counts)

    def __init__(
        self,
        stage: GenerativeRerank,
        scorer: NameScorer,
        names: Sequence[str],
        description: Callable[[int], str],
        spent: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._stage, self._scorer, self._spent = stage, scorer, spent
        self._names, self._description = names, description
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
        """Return how many prompts were made and names scored after them, and what an endpoint was sent."""
        return {"prompts": self._prompts_scored, "names": self._names_scored, **self._spent()}

    def _rerank(self, stage: GenerativeRerank, expansions: Sequence[Expansion]) -> list[Expansion]:
        asked: dict[int, Prompted] = {}
        signs: dict[int, list[float]] = {}
        done = list(expansions)
        for place, e in enumerate(expansions):
            sides = ((1.0, e.query.positive), (-stage.contrast, e.query.negative))
            wanted = [(sign, seeds) for sign, seeds in sides if len(e.ranking) and seeds and sign]
            if not wanted:
                continue
            texts = [text for _, seeds in wanted for text in self._prompts(stage, e.query, seeds)]
            one = Prompted(texts, e.ranking.ids, e.query.deadline)
            try:
                self._scorer.check(one)
            except QueryError as error:  # the others are answered
                if len(expansions) == 1:
                    raise
                done[place] = without(e, stage.name, str(error))
                continue
            if stage.descriptions and not described(e.query, self._description):
                done[place] = without(e, stage.name, NO_DESCRIPTION)
            asked[place], signs[place] = one, [sign for sign, _ in wanted]
        for place, logprobs_PN in zip(asked, self._scorer(list(asked.values())), strict=True):
            self._prompts_scored += len(logprobs_PN)
            self._names_scored += logprobs_PN.size
            means_SN = logprobs_PN.reshape(len(signs[place]), stage.prompts, -1).mean(axis=1)
            generation = np.array(signs[place]) @ means_SN
            done[place] = replace(done[place], ranking=stage.fused(done[place].ranking, generation))
        return done

    def _prompts(self, stage: GenerativeRerank, query: Query, seeds: Sequence[int]) -> list[str]:
        """Return prompts of different draws of some seeds, the same for the same seeds."""
        rng = query_rng(stage.seed, query, seeds)
        drawn = [rng.permutation(seeds)[:SEEDS_SHOWN].tolist() for _ in range(stage.prompts)]
        return [
            list_prompt(
                query.seed_names(ids, self._names),
                descriptions=descriptions_of(ids, self._description) if stage.descriptions else (),
            )
            for ids in drawn
        ]


def standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values less their mean over their standard deviation; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
