"""Expand by rounds: generate names, select by likelihood, repeat (GenExpan, section 5.2.1, appendix C).

Where the paper leaves something open, the style ``paper`` does as its authors' program: seeds among a
round's candidates count in their share and are dropped after the selection (:func:`within_p`), and of a
list that grew too long those stay that came first. In our style seeds are dropped before, the entity
that crosses the share is kept (:func:`top_p`), and of a long list the likeliest stay. The paper ends after
20 rounds without a new entity, the program after 5; ``max_rounds`` is ours. The program refuses queries of
fewer than three positive seeds; here a prompt then lists those that there are.

Rounds of one query follow each other; queries do not, so the active ones share every pass through the
model. A query has a random generator of its own, so its list depends on its seeds and the seed alone, not
on the other queries of the batch.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engine.errors import QueryError
from engine.generation.artifacts import Artifacts
from engine.generation.beam import BeamResult
from engine.generation.prompts import SEEDS_SHOWN, PromptStyle, list_prompt
from engine.generation.reasoning import Reasoning
from engine.generation.seeds import descriptions_of, targets
from engine.generation.trie import Trie
from engine.query import Ids, Query, Scores

Search = Callable[[Sequence[Sequence[int]], Sequence[Trie], Sequence[Scores | None]], list[BeamResult]]
"""Takes prompts, a trie each, and what the search is to look ahead to in each trie."""

Selection = Literal["paper", "seedset"]
"""Whose rule selects a round's entities: that of the paper's authors, or ours."""


@dataclass(frozen=True)
class Rules:
    """The rules of an expansion: what a round accepts, and when a query ends.

    Args:
        top_p: the share of a round's likelihood that is accepted.
        selection: whose rule accepts it.
        patience: rounds in a row without a new entity after which a query ends.
        max_rounds: the most rounds of a query.
        descriptions: put the descriptions of the listed entities in front (RA).
        negatives_in_prompt: name negative seeds in the prompt (appendix I).
        prompts: whose prompts.
    """

    top_p: float = 0.7
    selection: Selection = "paper"
    patience: int = 20
    max_rounds: int = 200
    descriptions: bool = False
    negatives_in_prompt: bool = False
    prompts: PromptStyle = "paper"


@dataclass
class ExpansionState:
    """The state of a query between rounds: its list so far."""

    query: Query
    trie: Trie
    reasoning: Reasoning
    wanted: int
    """Length at which the list is complete (200 in the paper)."""
    rng: np.random.Generator
    lookahead: Scores | None = None
    """Of the trie's nodes (:mod:`engine.generation.lookahead`); None to search by the model alone."""
    accepted: dict[int, float] = field(default_factory=dict)
    """Entity to its mean likelihood of the positive seeds (sco+), in the order in which they came."""
    times: Counter[int] = field(default_factory=Counter)
    """Number of times that each accepted entity was generated."""
    rounds: int = 0
    idle: int = 0
    stopped: bool = False
    """True if the deadline came before the query ended by itself."""
    refused: str = ""
    """Reason why no further round is possible, where a prompt does not fit the model."""

    def draw(self) -> list[int]:
        """Return the entities of the next prompt: seeds first, later two seeds and one of the list."""
        positive = self.query.positive
        seeds = SEEDS_SHOWN if not self.accepted else SEEDS_SHOWN - 1
        drawn = self.rng.permutation(positive)[:seeds].tolist()
        if self.accepted:
            ids = list(self.accepted)
            weights = np.array([self.times[i] for i in ids], np.float64)
            drawn.append(int(self.rng.choice(ids, p=weights / weights.sum())))
        return [int(i) for i in drawn]

    def draw_negative(self) -> list[int]:
        """Return the negative seeds of the next prompt: as many as positive ones (table 16 shows three)."""
        return [int(i) for i in self.rng.permutation(self.query.negative)[:SEEDS_SHOWN]]

    def accept(self, ids: Ids, scores: Scores) -> Ids:
        """Count the selected entities of a round and return those that are new."""
        self.rounds += 1
        new = [i for i in ids.tolist() if i not in self.accepted]
        self.idle = 0 if new else self.idle + 1
        self.accepted |= dict(zip(ids.tolist(), scores.tolist(), strict=True))
        self.times.update(ids.tolist())
        return np.array(new, np.int32)

    def ended(self, rules: Rules) -> bool:
        """Return whether the list is complete, or ran out of patience or rounds."""
        return (
            len(self.accepted) >= self.wanted
            or self.idle >= rules.patience
            or self.rounds >= rules.max_rounds
        )

    def ranked(self, at_most: int, selection: Selection = "paper") -> tuple[Ids, Scores, Scores]:
        """Return ids, likelihoods and how often each was generated, the likeliest first, ties by id.

        Args:
            at_most: entities returned.
            selection: whose rule drops the others: the last that came, or the least likely.
        """
        ids = np.fromiter(self.accepted, np.int32, len(self.accepted))
        scores = np.fromiter(self.accepted.values(), np.float32, len(ids))
        if selection == "paper":
            ids, scores = ids[:at_most], scores[:at_most]
        times = np.array([self.times[i] for i in ids.tolist()], np.float32)
        order = np.lexsort((ids, -scores))[:at_most]
        return ids[order], scores[order], times[order]


@dataclass(frozen=True)
class Round:
    """The result of one round of one query, for progress reports."""

    query_id: str
    number: int
    new: Ids
    total: int
    ended: bool


def run_rounds(
    artifacts: Artifacts,
    search: Search,
    queries: Iterable[ExpansionState],
    rules: Rules,
    query_batch_size: int,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Round]:
    """Grow every query's list to its end, ``query_batch_size`` at a time; yield each round of each query.

    No round of a query begins that, if it took as long as the longest so far, would end after its
    deadline; one that has begun is finished.

    Args:
        artifacts: the model and what belongs to it.
        search: finds names for prompts.
        queries: are changed in place.
        rules: equal for all.
        query_batch_size: queries that share a pass; one that ends makes room for the next.
        clock: of the deadlines, in seconds.
    """
    waiting = deque(one for one in queries if not one.refused)
    active: list[ExpansionState] = []
    longest, now = 0.0, clock()
    while waiting or active:
        while waiting and len(active) < query_batch_size:
            active.append(waiting.popleft())
        for one in active:
            one.stopped = one.query.deadline is not None and one.query.deadline.at <= now + longest
        active = [one for one in active if not one.stopped]
        if active:
            yield from _round(artifacts, search, active, rules)
            before, now = now, clock()
            longest = max(longest, now - before)
        active = [one for one in active if not one.refused and not one.ended(rules)]


def _round(
    artifacts: Artifacts, search: Search, active: Sequence[ExpansionState], rules: Rules
) -> Iterator[Round]:
    prompts = [artifacts.model.encode(_prompt(artifacts, one, rules)) for one in active]
    for one, scored in zip(active, _scored(artifacts, search, active, prompts), strict=True):
        if scored is not None:
            new = one.accept(*select(*scored, one.query.kept_out, rules))
            yield Round(one.query.id, one.rounds, new, len(one.accepted), one.ended(rules))


def _scored(
    artifacts: Artifacts,
    search: Search,
    active: Sequence[ExpansionState],
    prompts: Sequence[Sequence[int]],
) -> list[tuple[Ids, Scores] | None]:
    """Return what each query's prompt brings, with likelihoods; None where it does not fit the model."""
    try:
        found = search(prompts, [one.trie for one in active], [one.lookahead for one in active])
        asked = [
            (f.ids, targets(one.query, one.query.positive)) for f, one in zip(found, active, strict=True)
        ]
        scores = artifacts.likelihood.means(asked)
        return [(f.ids, own) for f, own in zip(found, scores, strict=True)]
    except QueryError as error:
        if len(active) == 1:
            active[0].refused = str(error)
            return [None]
    half = len(active) // 2  # the others go on
    return [
        *_scored(artifacts, search, active[:half], prompts[:half]),
        *_scored(artifacts, search, active[half:], prompts[half:]),
    ]


def _prompt(artifacts: Artifacts, one: ExpansionState, rules: Rules) -> str:
    drawn, query = one.draw(), one.query
    negatives: Sequence[int] = ()
    if rules.negatives_in_prompt:
        negatives = one.draw_negative() if rules.prompts == "paper" else query.negative
    return list_prompt(
        query.seed_names(drawn, artifacts.names),
        style=rules.prompts,
        class_name=one.reasoning.text,
        descriptions=descriptions_of(drawn, artifacts.description) if rules.descriptions else (),
        negatives=query.seed_names(negatives, artifacts.names),
    )


def select(ids: Ids, scores: Scores, seeds: Sequence[int], rules: Rules) -> tuple[Ids, Scores]:
    """Return the accepted entities of a round and their likelihoods, best first, no seed among them.

    Args:
        ids: what was generated, int32 [n].
        scores: their likelihoods, float32 [n].
        seeds: of the query, of both kinds.
        rules: whose rule, and the share.
    """
    if rules.selection == "seedset":
        other = ~np.isin(ids, seeds)
        ids, scores = ids[other], scores[other]
        kept = top_p(scores, rules.top_p)
        return ids[kept], scores[kept]
    kept = within_p(scores, rules.top_p)
    kept = kept[~np.isin(ids[kept], seeds)]
    return ids[kept], scores[kept]


def within_p(scores: Scores, p: float) -> np.ndarray:
    """Return the places of the best entries, best first, while their share of the sum is at most ``p``.

    The rule of the program of the paper's authors (its text says "top 0.7", appendix C): the entry that
    crosses the share is left out; the best one is kept even so.

    Args:
        scores: likelihoods of all of a round's candidates, seeds among them, float32 [n].
        p: between 0 and 1.
    """
    order = np.argsort(-scores, kind="stable")
    mass = np.cumsum(scores[order].astype(np.float64))
    if not len(scores) or mass[-1] <= 0:
        return order
    # Rounding must not drop the entry that comes to the share exactly.
    kept = int(np.searchsorted(mass, p * mass[-1] * (1 + 1e-9), side="right"))
    return order[: max(kept, 1)]


def top_p(scores: Scores, p: float) -> np.ndarray:
    """Return the places of the best entries, best first, until their share of the sum reaches ``p``.

    Args:
        scores: likelihoods of a round's candidates, float32 [n].
        p: between 0 and 1; the entry that reaches it is kept.
    """
    order = np.argsort(-scores, kind="stable")
    mass = np.cumsum(scores[order].astype(np.float64))
    if not len(scores) or mass[-1] <= 0:
        return order
    kept = int(np.searchsorted(mass, p * mass[-1] * (1 - 1e-9))) + 1
    return order[:kept]
