"""Ask a chat model for entities of the same kind: the GPT rows of the papers' tables."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import Field

from engine.catalogue.entities import Catalogue
from engine.catalogue.opening import open_catalogue
from engine.chat.messages import ChatAnswer, ChatRequest, TokensField
from engine.chat.prompts import expansion_messages
from engine.chat.settings import (
    COMPLETIONS,
    ChatRefusalError,
    ChatSettings,
    address_in_environment,
    model_in_environment,
    unavailable,
    usable_settings,
)
from engine.errors import QueryError, UserError
from engine.query import Deadline, Expansion, Ids, Query, Ranking
from engine.stages.base import Stage, Worker, without
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # what sends prompts is imported where it is used
    from engine.chat.chat import Chat
    from engine.chat.matching import Matched, NameMatcher

logger = logging.getLogger("seedset.chat")

SHOWN, SHOWN_SIGNS = 20, 80
"""Names that match nothing and are shown of an answer, and characters of each."""

TICK_S = 0.05
"""Seconds after which a worker that waits for answers lets other work through."""

PLACES = ("listed", "by_name", "by_alias", "fuzzy", "hallucinated", "seeds", "repeated", "outside", "surplus")
"""What is counted of each answer: names listed, how they were matched, and why they were dropped."""


class ChatExpand(Stage):
    """Ask a chat model once a query to list entities, and rank what it lists in its order.

    The model of UltraWiki's GPT-4 row and MESED's GPT-3.5 and GPT+Name rows, behind any OpenAI-compatible
    endpoint. The prompt is ours, as neither paper prints one (:mod:`engine.chat.prompts`); it names no
    candidates, so the model lists what it knows. Names are matched to the vocabulary; what matches nothing
    was made up, is counted and left out. The score of the entity at place i is 1 / i.

    After a stage that recalled candidates only these count. Where the endpoint is, and what may be spent, is
    said by the environment (:class:`engine.chat.settings.ChatSettings`).

    Attributes:
        k: entities that are asked for; the longest cut-off of the papers' metrics.
        class_name: ask for the name of the class first, and show it.
        model: as the endpoint names it; "": ``SEEDSET_CHAT_MODEL``.
        least_likeness: of spellings that count as the same, from 0 to 1; see
            :class:`engine.chat.matching.NameMatcher`.
        max_tokens: of an answer.
        temperature: None: not sent, for models that take none.
        top_p: likewise.
        seed: likewise.
        json_object: ask the endpoint for an answer that is JSON.
        tokens_field: how the endpoint calls ``max_tokens``.
    """

    k: int = Field(default=100, ge=1, le=1000)
    class_name: bool = False
    model: str = ""
    least_likeness: float = Field(default=0.9, ge=0.5, le=1)
    max_tokens: int = Field(default=2000, ge=1)
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=0.01, gt=0, le=1)
    seed: int | None = 42
    json_object: bool = True
    tokens_field: TokensField = "max_tokens"

    num_cpus: ClassVar[float] = 0.25  # it waits most of the time
    unit: ClassVar[str] = "prompts"
    budget: ClassVar[int] = 16

    def settled(self) -> Self:
        """Return the stage with the environment's model written out, so that a run is known by it."""
        model = self.model or model_in_environment()
        return self.model_copy(update={"model": model}) if model != self.model else self

    def unavailable(self) -> str:
        """Return which variable of the environment is missing or wrong; "" if none is."""
        return unavailable(self.model)

    def source(self) -> str:
        """Return the endpoint's address: models of one name at two endpoints need not be the same."""
        return address_in_environment(COMPLETIONS)

    def open(self, bundle: Bundle) -> Worker:
        """Read the environment, and open the cache of answers.

        Raises:
            ChatError: a variable is missing or wrong.
        """
        return ChatExpander.open(self, bundle)

    def account(self, bundle: Bundle) -> str:
        """Return how many requests, tokens and, with prices, how much money are counted beside the cache."""
        from engine.chat.chat import Chat

        return Chat.of_bundle(ChatSettings.of(), bundle).account()

    def request(self, query: Query, names: Sequence[str]) -> ChatRequest:
        """Return the prompt of a query, given the vocabulary's names by id."""
        positive, negative = query.seed_names(query.positive, names), query.seed_names(query.negative, names)
        return ChatRequest(
            model=self.model,
            messages=expansion_messages(positive, negative, self.k, self.class_name),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            json_object=self.json_object,
            tokens_field=self.tokens_field,
        )


@dataclass
class Asked:
    """A query that is being answered: its prompt, then the model's answer or why there is none."""

    expansion: Expansion
    request: ChatRequest
    answer: ChatAnswer | None = None
    error: UserError | None = None
    matched: Sequence[Matched] = ()
    class_name: str = ""


@dataclass(frozen=True)
class ChatRound:
    """The answer to a query came: see :class:`engine.generation.expansion.Round`."""

    query_id: str
    number: int
    new: Ids
    total: int


@dataclass
class ChatExpander:
    """The worker of :class:`ChatExpand`.

    Served it is an iterative worker (:meth:`start`, :meth:`rounds`, :meth:`answer`): while it waits for the
    endpoint, other stages of the same process go on.
    """

    stage: ChatExpand
    chat: Chat
    matcher: NameMatcher
    catalogue: Catalogue
    counted: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(cls, stage: ChatExpand, bundle: Bundle) -> Self:
        """Read the environment, and open the cache of answers.

        Raises:
            ChatError: a variable is missing or wrong.
        """
        from engine.chat.matching import NameMatcher

        stage = stage.settled()
        settings = usable_settings(stage.model, stage.name)
        from engine.chat.chat import Chat

        chat = Chat.of_bundle(settings, bundle)
        chat.connect()
        matcher = NameMatcher(bundle.vocabulary, stage.least_likeness)
        return cls(stage, chat, matcher, open_catalogue(bundle))

    def __post_init__(self) -> None:
        self._fulfilling = lru_cache(8)(self.catalogue.matching)

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        """Return each expansion with what the model listed.

        Raises:
            ChatError: the endpoint cannot be asked. What it has answered is kept; a rerun goes on.
            QueryError: of a single query: the model does not answer it.
        """
        asked = self.start(expansions)
        for _ in self.rounds(asked):
            pass
        done = []
        for expansion, one in zip(expansions, asked, strict=True):
            if isinstance(one.error, QueryError) and len(expansions) > 1:
                done.append(without(expansion, self.stage.name, str(one.error)))
            else:
                done.append(self._answered(expansion, one))
        return done

    def counts(self) -> Mapping[str, int]:
        """Return prompts sent, answers from the cache, tokens, and what became of the names listed."""
        return {**self.chat.counts(), **{name: self.counted[name] for name in PLACES}}

    def start(self, expansions: Sequence[Expansion]) -> list[Asked]:
        """Return each query with its prompt."""
        names = self.matcher.vocabulary.names
        return [Asked(e, self.stage.request(e.query, names)) for e in expansions]

    def rounds(self, growing: Sequence[Asked]) -> Iterator[ChatRound | None]:
        """Yield each query as its answer comes, and None now and then while none does.

        Queries with the same prompt are asked together. An error stays with its query.
        """
        same: dict[str, list[Asked]] = {}
        for one in growing:
            same.setdefault(one.request.key, []).append(one)
        pool = ThreadPoolExecutor(self.chat.settings.concurrency, thread_name_prefix="chat")
        try:
            waiting = {pool.submit(self._ask, group): group for group in same.values()}
            while waiting:
                try:
                    for done in as_completed(list(waiting), timeout=TICK_S):
                        group = waiting.pop(done)
                        done.result()
                        yield from filter(None, map(self._round, group))
                except TimeoutError:
                    yield None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def answer(self, expansion: Expansion, grown: Asked) -> Expansion:
        """Return the expansion with what the model listed; what was recalled before stays if it failed.

        Raises:
            UserError: the model gave no answer, and nothing was recalled before.
        """
        if grown.error is not None and len(expansion.ranking):
            logger.warning("%s: %s", self.stage.name, grown.error)
            return without(expansion, self.stage.name, grown.error.public_message)
        return self._answered(expansion, grown)

    def _ask(self, group: Sequence[Asked]) -> None:
        """Ask for the answer of queries with the same prompt; run in a thread."""
        from engine.chat.listing import read_listing

        deadlines = [one.expansion.query.deadline for one in group]
        deadline: Deadline | None = None
        if not any(d is None for d in deadlines):
            deadline = max(d for d in deadlines if d is not None)
        try:
            answer = self.chat.ask(group[0].request, deadline)
            listing = read_listing(answer.content, cut=answer.finish == "length")
            if not listing.names:
                why = _nothing_listed(answer)
                raise ChatRefusalError(why, public=why)
            matched = self.matcher.match(listing)
        except UserError as error:
            for one in group:
                one.error = error
            return
        for one in group:
            one.answer, one.matched, one.class_name = answer, matched, listing.class_name

    def _round(self, one: Asked) -> ChatRound | None:
        if one.answer is None:
            return None
        new = np.array([m.entity for m in one.matched if m.entity is not None], np.int32)
        return ChatRound(one.expansion.query.id, 1, new, len(new))

    def _answered(self, expansion: Expansion, one: Asked) -> Expansion:
        if one.error is not None:
            raise one.error
        assert one.answer is not None
        kept, counts = self._kept(expansion, one.matched)
        self.counted.update(counts)
        n = len(kept)
        ids = np.array([m.entity for m in kept], np.int32)
        scores = (1 / np.arange(1, n + 1)).astype(np.float32)
        evidence = {"likeness": np.array([m.likeness for m in kept], np.float32)}
        tokens = {"prompt_tokens": one.answer.prompt_tokens, "answer_tokens": one.answer.answer_tokens}
        found = replace(
            expansion,
            ranking=Ranking(ids, scores, evidence),
            reasoning={**expansion.reasoning, **self._told(one)},
            counts={**expansion.counts, **counts, **{name: n for name, n in tokens.items() if n is not None}},
        )
        if one.answer.finish == "length":
            found = without(
                found, self.stage.name, f"the answer was cut off at {self.stage.max_tokens} tokens"
            )
        return found

    def _told(self, one: Asked) -> dict[str, str]:
        """Return what the model said besides entities: the class's name, and names that match nothing."""
        unknown = list(dict.fromkeys(m.name[:SHOWN_SIGNS] for m in one.matched if m.entity is None))
        shown = "; ".join(unknown[:SHOWN]) + (" …" if len(unknown) > SHOWN else "")
        told = {"class_name": one.class_name, "hallucinated": shown}
        return {part: text for part, text in told.items() if text}

    def _kept(self, expansion: Expansion, matched: Sequence[Matched]) -> tuple[list[Matched], Counter[str]]:
        """Return what is ranked of the names listed, and what became of each of them."""
        counts: Counter[str] = Counter(dict.fromkeys(PLACES, 0))
        how = {"name": "by_name", "alias": "by_alias", "fuzzy": "fuzzy", "unknown": "hallucinated"}
        query, allowed = expansion.query, self._allowed(expansion)
        excluded = frozenset((*query.exclude, *query.deleted))
        seen: set[int] = set()
        kept: list[Matched] = []
        for one in matched:
            counts["listed"] += 1
            counts[how[one.how]] += 1
            if one.entity is None:
                continue
            if one.entity in query.seeds:
                counts["seeds"] += 1
            elif one.entity in excluded:
                counts["outside"] += 1
            elif one.entity in seen:
                counts["repeated"] += 1
            elif allowed is not None and one.entity not in allowed:
                counts["outside"] += 1
            elif len(kept) == self.stage.k:
                counts["surplus"] += 1
            else:
                seen.add(one.entity)
                kept.append(one)
        return kept, counts

    def _allowed(self, expansion: Expansion) -> frozenset[int] | None:
        """Return the entities that count: those recalled before, or that fulfil the filters; None: all."""
        if len(expansion.ranking):
            return frozenset(expansion.ranking.ids.tolist())
        filters = expansion.query.filters
        return frozenset(self._fulfilling(filters).tolist()) if filters else None


def _nothing_listed(answer: ChatAnswer) -> str:
    """Return why an answer lists nothing."""
    if answer.finish == "content_filter":
        return "the endpoint's content filter withheld the answer"
    said = " ".join((answer.refusal or answer.content).split())
    if not said:
        return f"the model answered nothing (it ended with {answer.finish or 'no reason'!r})"
    return f"the model lists no entities: {said[:120]!r}"
