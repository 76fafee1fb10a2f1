"""Resolve a request into a query: names become ids, and errors name the field."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from engine.errors import QueryError, UnknownEntityError, UserError
from engine.queries.fields import NewSeedError, NewSeeds, NotHeld, Pair, Seed, SeedSides, weighed
from engine.query import Deadline, NewEntity, Pairs, Query
from engine.retrieval.index import check_vectors
from engine.stages.base import unsuited
from engine.stages.options import OptionError, checked_options
from engine.text.spelling import clean_name
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import DEFAULT, EXPLAINED, SELECTED
from serve.http.errors import Problem, ProblemError, UnknownMethodError, check_bundle, invalid, problem_of
from serve.http.requests import ExpandRequest
from serve.settings import ServeSettings


@dataclass(frozen=True)
class ResolvedQuery:
    """A query with its route, its method, and its deadline."""

    route: str
    method: str
    query: Query
    deadline: Deadline
    explain: bool


FEW_EXCLUDED = 100
"""Excluded entities that are looked up at once; more of them take milliseconds."""

SUGGESTIONS = 16
"""Unknown names of a query request for which similar ones are looked up: each takes milliseconds."""

LOOKUP_SUGGESTIONS = 100
"""The same of a request that looks names up: of a pasted list a few are misspelt, and all of another list."""


@dataclass
class Arrival:
    """What the queries of one HTTP request share: when it came, and the look-ups left for suggestions."""

    at: float = field(default_factory=time.monotonic)
    suggestions: int = SUGGESTIONS

    def deadline(self, seconds: float) -> Deadline:
        """Return the deadline of a query that is given so many seconds."""
        return Deadline(self.at + seconds)

    def may_suggest(self, deadline: Deadline) -> bool:
        """Return whether what is similar may still be looked up, and count that."""
        self.suggestions -= 1
        return self.suggestions >= 0 and deadline.remaining() > 0


def resolve_query(
    request: ExpandRequest, snapshot: BundleSnapshot, settings: ServeSettings, arrival: Arrival
) -> ResolvedQuery | Problem:
    """Return the query for the stages, or what is wrong with the request.

    Milliseconds where a name is unknown (its closest are sought) or a filter is given, else microseconds.
    """
    try:
        return _resolved(request, snapshot, settings, arrival)
    except UserError as error:
        return problem_of(error)


def is_quick(request: ExpandRequest, snapshot: BundleSnapshot) -> bool:
    """Return whether :func:`resolve_query` takes microseconds: nothing to filter by, and no unknown name."""
    find = snapshot.vocabulary.find
    seeds = [weighed(one)[0] for one in (*request.positive, *request.negative)]
    seeds += request.exclude[:FEW_EXCLUDED]
    seeds += [one for pair in request.context for one in (pair.positive, pair.negative)]
    few = not request.filter and len(request.exclude) <= FEW_EXCLUDED
    return few and all(isinstance(s, NotHeld) or find(s) is not None for s in seeds)


def _resolved(
    request: ExpandRequest, snapshot: BundleSnapshot, settings: ServeSettings, arrival: Arrival
) -> ResolvedQuery:
    check_bundle(request.bundle, snapshot.id)
    method = snapshot.default if request.method == DEFAULT else request.method
    if method not in snapshot.methods:
        why = snapshot.unavailable.get(request.method, "")
        raise UnknownMethodError(request.method, list(snapshot.methods), why)
    selected = f"{method}{SELECTED}" if request.selection.chooses else method
    route = f"{selected}{EXPLAINED}" if request.explain else selected
    if request.diversity and f"{method}{EXPLAINED}" not in snapshot.routes:
        raise invalid("the bundle has no vectors by which entities are alike", "diversity")
    if route not in snapshot.routes:
        raise invalid("the bundle has no vectors to explain answers by", "explain")
    _check_size(request, settings.max_top_k)
    try:
        options = checked_options(snapshot.methods[method].stages, request.options)
    except OptionError as error:
        raise invalid(f"options.{error}", f"options.{error.key}", error.suggestions) from None
    deadline = arrival.deadline(min((request.deadline_ms or float("inf")) / 1000, settings.timeout_s))
    may_suggest = partial(arrival.may_suggest, deadline)
    given = GivenEntities(snapshot, may_suggest)
    positive, negative, new = given.seeds(request, required=not request.context)
    shared, unlike = (
        tuple((name, tuple(dict.fromkeys(values))) for name, values in attributes.items())
        for attributes in (request.positive_attributes, request.negative_attributes)
    )
    if request.filter:
        # An unknown attribute or value is refused before any stage runs.
        snapshot.catalogue.matching(request.filter, may_suggest)
    snapshot.catalogue.check_shown(request.selection, may_suggest)
    query = Query(
        id=request.id,
        positive=positive,
        negative=negative,
        top_k=request.top_k,
        filters=request.filter,
        new=new,
        deadline=deadline,
        class_name=clean_name(request.class_name),
        positive_attributes=shared,
        negative_attributes=unlike,
        options=options,
        exclude=given.ids(request.exclude, "exclude"),
        selection=request.selection,
        weights=given.weights,
        deleted=(*snapshot.overlay.deleted, *given.added),
        context=given.pairs(request.context),
    )
    if why := unsuited(snapshot.methods[method].stages, query):
        raise ProblemError(Problem("query", f"method {method!r}: {why}", QueryError.status, "method"))
    check_vectors(snapshot.bundle, query)
    return ResolvedQuery(route, method, query, deadline, request.explain)


def _check_size(request: ExpandRequest, most: int) -> None:
    """Refuse a request for more entities than are answered, those passed over among them (ProblemError)."""
    if request.top_k > most:
        raise invalid(f"top_k: {request.top_k} is more than {most}", "top_k")
    if request.offset + request.top_k > most:
        raise invalid(
            f"offset: {request.offset} and a top_k of {request.top_k} are together more than {most}", "offset"
        )


class Sides(Protocol):
    """A request with seeds of both kinds."""

    positive: list[Seed]
    negative: list[Seed]


class GivenEntities:
    """The entities that a request names: ids, negative for those that the vocabulary does not hold.

    Args:
        snapshot: that knows them.
        may_suggest: says whether what is like an unknown name may still be looked for.
    """

    def __init__(self, snapshot: BundleSnapshot, may_suggest: Callable[[], bool]) -> None:
        self._vocabulary, self._overlay, self._may_suggest = (
            snapshot.vocabulary,
            snapshot.overlay,
            may_suggest,
        )
        self._new = NewSeeds(snapshot.vocabulary)
        self._sides = SeedSides(self._seed)
        self.added: list[int] = []
        """Ids of seeds that an overlay has added: stages take them as new entities, with their vectors."""

    @property
    def weights(self) -> tuple[tuple[int, float], ...]:
        """The weights of seeds that were resolved, where they are not 1."""
        return self._sides.unlike_one

    def pairs(self, given: Sequence[Pair]) -> Pairs:
        """Return the context pairs (UserError: one of them cannot be)."""
        return self._sides.pairs(given)

    def ids(self, given: Sequence[str | int], field: str) -> tuple[int, ...]:
        """Return the ids of entities of the vocabulary, each once (ProblemError: one is unknown)."""
        return tuple(dict.fromkeys(self._id(one, f"{field}.{place}") for place, one in enumerate(given)))

    def seeds(
        self, request: Sides, required: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[NewEntity, ...]]:
        """Return positive and negative ids, and the new entities.

        Raises:
            UserError: an unknown or doubled seed; says which. Or there is none, if one is required.
        """
        given = {"positive": request.positive, "negative": request.negative}
        positive, negative = (self._sides.take(side, seeds) for side, seeds in given.items())
        if required and not positive and not negative:
            raise invalid("positive: give at least one positive seed, or a negative one", "positive")
        for place, entity in enumerate(negative):
            if entity in positive:
                names = self._vocabulary.names
                name = names[entity] if entity >= 0 else self._new.entities[-1 - entity].name
                message = f"{name!r} is a positive and a negative seed at once"
                raise ProblemError(Problem("query", message, QueryError.status, f"negative.{place}"))
        return positive, negative, self._new.entities

    def _seed(self, seed: str | int | NotHeld, field: str) -> int:
        """Return the id of a seed; of one that an overlay has added, that of a new entity."""
        known = self._id(seed, field)
        added = self._overlay.added.get(known)
        if added is None:
            return known
        self.added.append(known)
        return self._new.take_encoded(added.encoded)

    def _id(self, seed: str | int | NotHeld, field: str) -> int:
        if isinstance(seed, NotHeld):
            try:
                return self._new.take(seed, field)
            except NewSeedError as error:
                raise invalid(str(error), field, error.suggestions) from None
        known = self._vocabulary.find(seed)
        if known is None:
            closest = self._vocabulary.closest(str(seed)) if self._may_suggest() else []
            raise ProblemError(problem_of(UnknownEntityError(seed, closest, field), field))
        return known
