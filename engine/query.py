"""Define what stages pass on: :class:`Query`, :class:`Ranking`, :class:`Expansion`.

Ids inside, names only at the edges. Knows nothing of models, files or clusters. As rows of tables:
:mod:`engine.query_rows`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from engine.errors import QueryError
from engine.filters import Filters, Having

MAX_SEEDS = 100
"""Seeds of one kind that a query may hold: an input from outside has a limit."""

DEFAULT_TOP_K, MAX_TOP_K = 200, 10_000

MAX_EXCLUDED = 10_000
"""Entities that a query may keep out of its answer: a curator's accepted and rejected ones, say."""

MAX_WEIGHT = 1000.0

MAX_DIVERSE = 1000
"""Entities that can be chosen to be diverse, and from which they are."""

MAX_PAIRS = 100
"""Context pairs that a query may hold."""

MAX_FACETS = 32
"""Attributes whose values an answer counts."""

MAX_SENTENCES = 16
"""Sentences of a seed that the vocabulary does not hold."""

Ids = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NewEntity:
    """A seed that the vocabulary does not hold: its name, and sentences that mention it, or vectors.

    ``vectors`` are its unit vectors by view, float32 [D] each: given, or made of the sentences.
    ``hubness`` is its hubness by view; None: it is not asked for.
    """

    name: str
    sentences: tuple[str, ...]
    vectors: Mapping[str, Scores] = field(default_factory=dict)
    hubness: Mapping[str, float] | None = None

    @property
    def is_given(self) -> bool:
        """Whether its vectors were given: it has no sentences of which they could be made."""
        return not self.sentences


Attributes = tuple[Having, ...]
"""Attributes with their values: (("continent", ("Asia", "Africa")), …)."""


Pairs = tuple[tuple[int, int], ...]
"""Context pairs: what is wanted is rather like the first of each than like the second."""

Value = bool | int | float | str | None
Options = tuple[tuple[str, Value], ...]
"""Settings of stages that a query changes for itself: (("SegmentRerank.length", 8), …). What they may be is
checked where a query meets its pipeline (:mod:`engine.stages.options`)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a ranking is shown: from its best entity on, unless a query says otherwise.

    Args:
        offset: best entities that are passed over.
        min_score: the least score that is shown, compared as float32, which scores are; None: any.
        group_by: an attribute; "": none.
        per_group: entities of each of its values that are shown at most.
        diversity: how much it counts that an entity is unlike those before it, 0 (not at all) to 1.
        facets: attributes whose values among the entities shown are counted; True: of all attributes.
    """

    offset: int = 0
    min_score: float | None = None
    group_by: str = ""
    per_group: int = 1
    diversity: float = 0
    facets: tuple[str, ...] | bool = ()

    @property
    def chooses(self) -> bool:
        """Whether the list is chosen as a whole (:class:`engine.stages.select.Select`), not cut alone."""
        return bool(self.group_by or self.diversity)


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A point in time at which the caller wants what there is, on the monotonic clock of this process.

    Clocks of machines differ, and a wall clock may be set: what crosses a process border is the time that
    remains, and the receiver counts it down by its own clock. The way itself is not counted.

    Args:
        at: seconds, by :func:`time.monotonic`.
    """

    at: float

    @classmethod
    def within(cls, seconds: float) -> Self:
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds from now; negative once it has come."""
        return self.at - time.monotonic()

    def __reduce__(self) -> tuple[Any, tuple[float]]:
        return type(self).within, (self.remaining(),)


@dataclass(frozen=True, slots=True)
class Query:
    """A query: positive and negative seeds, how many entities are wanted, and filters.

    Args:
        id: the caller's name for it.
        positive: entity ids; -1 stands for the first of ``new``, -2 for the second, and so on.
        negative: likewise.
        top_k: entities wanted.
        filters: only entities that fulfil them are ranked; empty: all.
        new: seeds that the vocabulary does not hold.
        deadline: when the caller wants what there is, ready or not.
        class_name: what the caller calls the fine-grained class, for methods that are given it.
        positive_attributes: what the positive seeds share, likewise.
        negative_attributes: what the negative seeds share, likewise.
        options: settings of stages that differ for this query; a stage reads them by
            :meth:`engine.stages.base.Stage.asked`.
        exclude: entity ids that are never in the answer; they are no seeds.
        deleted: entity ids that an overlay has deleted (:mod:`engine.overlay`), likewise.
        selection: what of the ranking is shown.
        weights: of seeds, beside others of their kind, where they are not 1 each; a seed of the weight 0 is
            none. Where all of a kind weigh the same, they are as if none was given.
        context: pairs of entities, (this, rather than that); they are no seeds.

    Raises:
        QueryError: neither a seed nor a pair, a pair of one entity, a seed on both sides, a weight out of
            bounds or of no seed, too many seeds, pairs or excluded entities, ``top_k`` and what is passed
            over out of bounds.
    """

    id: str
    positive: tuple[int, ...]
    negative: tuple[int, ...] = ()
    top_k: int = DEFAULT_TOP_K
    filters: Filters = ()
    new: tuple[NewEntity, ...] = ()
    deadline: Deadline | None = None
    class_name: str = ""
    positive_attributes: Attributes = ()
    negative_attributes: Attributes = ()
    options: Options = ()
    exclude: tuple[int, ...] = ()
    selection: Selection = Selection()
    weights: tuple[tuple[int, float], ...] = ()
    deleted: tuple[int, ...] = ()
    context: Pairs = ()

    def __post_init__(self) -> None:
        where = f"query {self.id!r}"
        if not self.seeds and not self.context:
            raise QueryError(f"{where}: give at least one positive seed, or a negative one, or context")
        if len(self.context) > MAX_PAIRS:
            raise QueryError(f"{where}: context: at most {MAX_PAIRS} pairs are taken")
        if same := next((this for this, that in self.context if this == that), None):
            raise QueryError(f"{where}: context: a pair has the entity {same} on both sides")
        if max(len(self.positive), len(self.negative)) > MAX_SEEDS:
            raise QueryError(f"{where}: at most {MAX_SEEDS} seeds of a kind are taken")
        if both := set(self.positive) & set(self.negative):
            raise QueryError(f"{where}: entities {sorted(both)} are positive and negative seeds at once")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise QueryError(f"{where}: top_k is {self.top_k}, must lie in 1..{MAX_TOP_K}")
        if not 0 <= self.selection.offset <= MAX_TOP_K - self.top_k:
            raise QueryError(
                f"{where}: offset is {self.selection.offset}, must lie in 0..{MAX_TOP_K - self.top_k} with a "
                f"top_k of {self.top_k}"
            )
        if self.selection.diversity and self.wanted > MAX_DIVERSE:
            raise QueryError(
                f"{where}: diversity: offset and top_k may be {MAX_DIVERSE} together, not {self.wanted}"
            )
        if len(self.exclude) > MAX_EXCLUDED:
            raise QueryError(f"{where}: exclude: at most {MAX_EXCLUDED} entities are taken")
        if (least := min(self.seeds, default=0)) < -len(self.new):
            raise QueryError(f"{where}: seed {least} stands for none of {len(self.new)} new entities")
        object.__setattr__(self, "positive", tuple(dict.fromkeys(self.positive)))
        object.__setattr__(self, "negative", tuple(dict.fromkeys(self.negative)))
        for seed, weight in self.weights:
            if seed not in self.seeds or not 0 < weight <= MAX_WEIGHT:
                raise QueryError(
                    f"{where}: the weight {weight} of {seed} is of no seed, or not in 0..{MAX_WEIGHT:g}"
                )
        object.__setattr__(self, "weights", self._unequal())

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of both kinds: none of them may be in the answer."""
        return self.positive + self.negative

    @property
    def kept_out(self) -> tuple[int, ...]:
        """What may not be in the answer: seeds (new ones too, by ids below 0), pairs, excluded, deleted."""
        in_pairs = tuple(entity for pair in self.context for entity in pair)
        return self.positive + self.negative + in_pairs + self.exclude + self.deleted

    @property
    def unencoded(self) -> tuple[NewEntity, ...]:
        """New entities of which no vector was made yet."""
        return tuple(entity for entity in self.new if not entity.vectors)

    @property
    def wanted(self) -> int:
        """Entities that must be ranked: those shown, and those passed over before them."""
        return self.selection.offset + self.top_k

    def weights_of(self, seeds: Sequence[int]) -> Weights | None:
        """Return the weights of some seeds, float64 [M]; None where all of them weigh the same."""
        if not self.weights:
            return None
        known = dict(self.weights)
        found = [known.get(seed, 1.0) for seed in seeds]
        return np.array(found) if len(set(found)) > 1 else None

    def _unequal(self) -> tuple[tuple[int, float], ...]:
        """Return the weights of the kinds of seeds that do not all weigh the same."""
        if not self.weights:
            return ()
        unequal = [kind for kind in (self.positive, self.negative) if self.weights_of(kind) is not None]
        kept = {seed for kind in unequal for seed in kind}
        return tuple((seed, weight) for seed, weight in self.weights if seed in kept and weight != 1)

    def seed_names(self, seeds: Sequence[int], names: Sequence[str]) -> list[str]:
        """Return the names of some of the query's seeds, given those of the vocabulary by id."""
        return [self.new[-1 - i].name if i < 0 else names[i] for i in seeds]


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking: entity ids int32 [n] and scores float32 [n], best first, and evidence float32 [n]."""

    ids: Ids
    scores: Scores
    evidence: Mapping[str, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in [("scores", self.scores), *self.evidence.items()]:
            if column.shape != self.ids.shape:
                raise ValueError(f"column {name!r} has {column.shape} values for {self.ids.shape} ids")

    @classmethod
    def empty(cls) -> Ranking:
        """Return the empty ranking that a query starts with."""
        return cls(np.empty(0, np.int32), np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, order: npt.NDArray[np.int64]) -> Ranking:
        """Return the entries at ``order``, in that order, every column alike."""
        columns = {name: column[order] for name, column in self.evidence.items()}
        return Ranking(self.ids[order], self.scores[order], columns)

    def with_evidence(self, **columns: Scores) -> Ranking:
        """Return the same ranking with more evidence columns."""
        return replace(self, evidence={**self.evidence, **columns})

    def head(self, n: int) -> Ranking:
        """Return the best ``n`` entries."""
        return self.take(np.arange(min(n, len(self))))


@dataclass(frozen=True, slots=True)
class Expansion:
    """A query with its ranking so far, seconds spent by stage, and what was left out (``degraded``).

    ``reasoning`` is what a language model's prompts said of the wanted entities: a ``class_name``, what the
    ``positive`` and what the ``negative`` seeds share, as far as the method names them. ``counts``
    is what stages counted of the answer, such as names that a model made up.
    """

    query: Query
    ranking: Ranking = field(default_factory=Ranking.empty)
    seconds: Mapping[str, float] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    reasoning: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def summed(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of counts by name, in the order in which the names come."""
    found: dict[str, int] = {}
    for one in counted:
        for name, n in one.items():
            found[name] = found.get(name, 0) + n
    return found


def no_answer(queries: int, why: str) -> str:
    """Return what is said of a method that has no answer to any query.

    Args:
        queries: how many there are.
        why: what was left out of the first answer; nothing if no stage said.
    """
    return f"none of the {queries} queries has an answer" + (f"; the first: {why}" if why else "")
