"""Define stages, and compose them into pipelines.

A stage is a frozen, printable, serialisable description; :meth:`Stage.open` loads what it needs from a
bundle and returns its worker, which takes a list of expansions and returns it, each ranking narrowed,
extended or re-ordered. ``a >> b`` is the pipeline that runs b on what a returns.

A query may change some settings for itself (:attr:`Stage.per_request`). One opened worker answers them all:
it asks :meth:`Stage.asked` what a query wants, most simply by :func:`by_settings`.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from engine.errors import BundleError, QueryError
from engine.generation.files import LM_FILES
from engine.query import Expansion, NewEntity, Query
from engine.renames import with_current_names
from engine.storage.bundle import Bundle

Worker = Callable[[list[Expansion]], list[Expansion]]
"""A worker may have a method ``counts()``: what it did since it was opened, by name (:func:`counts_of`)."""


class SettingName(NamedTuple):
    """A setting of a stage by its name, such as ``SegmentRerank[2].length``; ``number`` None: not given."""

    stage: str
    number: int | None
    setting: str

    @classmethod
    def parse(cls, text: str) -> SettingName | None:
        """Return what a name says; None if it is not of that form."""
        found = _SETTING_NAME.fullmatch(text)
        return found and cls(
            found["stage"], int(found["number"]) if found["number"] else None, found["setting"]
        )


_SETTING_NAME = re.compile(r"(?P<stage>[^\W\d]\w*)(\[(?P<number>[1-9]\d{0,2})\])?\.(?P<setting>[^\W\d]\w*)")
_parse = lru_cache(1024)(SettingName.parse)


class QueryFeature(Enum):
    """What a query may ask that not every stage can obey."""

    WEIGHTS = "weights of seeds"
    NEGATIVE_ALONE = "negative seeds without a positive one"
    CONTEXT = "context pairs"
    OVERLAY = "entities that an overlay has added"


ALL_FEATURES = frozenset(QueryFeature)


class Stage(BaseModel, ABC):
    """A description of one step: settings and the resources that its worker wants."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_cpus: ClassVar[float] = 1
    num_gpus: ClassVar[float] = 0

    unit: ClassVar[str] = "queries"
    """The unit of :meth:`cost`."""
    budget: ClassVar[int] = 64
    """Cost of a batch that a worker is best given; served, a batch is filled up to it."""

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Settings that a query may change for itself, over HTTP too: the least and the largest number."""

    supports: ClassVar[frozenset[QueryFeature]] = frozenset()
    """What the worker obeys, or passes on where it does; other queries are refused, see :func:`unsuited`."""

    selects: ClassVar[bool] = False
    """Whether the worker chooses what of a list is shown (:attr:`engine.query.Selection.chooses`)."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of settings and their names now; the former still work, with a warning."""

    _number: int = PrivateAttr(default=1)

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, given: Any) -> Any:
        return with_current_names(cls.__name__, given, cls.renamed)

    def cost(self, expansion: Expansion) -> int:
        """Return how much work an expansion is, in ``unit``: at least 1."""
        return 1

    @property
    def name(self) -> str:
        """The stage's name in timings, deployments and logs."""
        return type(self).__name__

    @property
    def number(self) -> int:
        """The stage's place among those of its name in its pipeline, from 1."""
        return self._number

    def numbered(self, number: int) -> Self:
        """Return the same stage as the one of that number among those of its name."""
        if number == self._number:
            return self
        copy = self.model_copy()
        copy._number = number
        return copy

    def asked(self, query: Query) -> Self:
        """Return the stage with the settings that a query changes; itself if it changes none of its own.

        What a query may change was checked when it came (:func:`engine.stages.options.checked_options`).
        """
        own = {}
        for key, value in query.options:
            name = _parse(key)
            if name and name.stage == self.name and (name.number or 1) == self._number:
                own[name.setting] = value
        return self.model_copy(update=own) if own else self

    @property
    def batch_dependent(self) -> bool:
        """True if an answer depends on the other queries of the call."""
        return False

    def needs(self) -> tuple[str, ...]:
        """Name the files and folders of a bundle without which the stage cannot open."""
        return ()

    @property
    def supported(self) -> frozenset[QueryFeature]:
        """What of :attr:`supports` holds with the stage's settings."""
        return self.supports

    @property
    def seed_views(self) -> tuple[str, ...] | None:
        """The views in which the worker reads vectors of seeds, () for none; None: it needs more of seeds."""
        return None

    @property
    def language_model(self) -> bool:
        """True if the worker holds the bundle's language model, which is best on a GPU."""
        return not set(LM_FILES).isdisjoint(self.needs())

    def settled(self) -> Self:
        """Return the stage with what its answers take from the environment written out, if they do."""
        return self

    def unavailable(self) -> str:
        """Return why the stage cannot open in this environment, whatever the bundle; "" where it can."""
        return ""

    def source(self) -> str:
        """Return where outside of the bundle the answers come from, such as an address; "" for nowhere."""
        return ""

    def account(self, bundle: Bundle) -> str:
        """Return a line on what was spent outside so far, over all workers; "" where nothing is counted."""
        return ""

    @abstractmethod
    def open(self, bundle: Bundle) -> Worker:
        """Load what the stage needs and return its worker.

        Raises:
            BundleError: the bundle lacks it.
        """

    def __rshift__(self, other: Stage | Pipeline) -> Pipeline:
        return Pipeline((self,)) >> other

    def __str__(self) -> str:
        changed = self.model_dump(exclude_defaults=True)
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of stages. The same description runs in a process, on Ray Data and on Ray Serve."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        counts: Counter[str] = Counter()
        numbered = []
        for stage in self.stages:
            counts[stage.name] += 1
            numbered.append(stage.numbered(counts[stage.name]))
        object.__setattr__(self, "stages", tuple(numbered))

    def __rshift__(self, other: Stage | Pipeline) -> Pipeline:
        return Pipeline(self.stages + (other.stages if isinstance(other, Pipeline) else (other,)))

    def __str__(self) -> str:
        return " >> ".join(map(str, self.stages))

    @property
    def batch_dependent(self) -> bool:
        """True if an answer depends on the other queries of the call."""
        return any(stage.batch_dependent for stage in self.stages)

    def settled(self) -> Pipeline:
        """Return the pipeline with what its answers take from the environment written out."""
        return Pipeline(tuple(stage.settled() for stage in self.stages))

    def open(self, bundle: Bundle) -> LocalPipeline:
        """Open every stage in this process: the local runtime."""
        return LocalPipeline([(stage, timed(stage, stage.open(bundle))) for stage in self.stages])


@dataclass
class LocalPipeline:
    """Opened stages in one process."""

    opened: Sequence[tuple[Stage, Worker]]

    def __call__(self, queries: Sequence[Query], strict: bool = False) -> list[Expansion]:
        """Return one expansion a query, in order.

        Args:
            queries: to be answered.
            strict: raise what a stage has against a query, in place of answering the others.
        """
        stages = [stage for stage, _ in self.opened]
        selects = any(stage.selects for stage in stages)
        refused = {
            place: why
            for place, query in enumerate(queries)
            if (why := unsuited(stages, query) or unselected(selects, query))
        }
        if strict and refused:
            raise QueryError(next(iter(refused.values())))
        expansions = [Expansion(query) for place, query in enumerate(queries) if place not in refused]
        for stage, worker in self.opened:
            expansions = (worker if strict else isolated(stage, worker))(expansions)
        answered = iter(map(finish, expansions))
        return [
            Expansion(query, degraded=(refused[place],)) if place in refused else next(answered)
            for place, query in enumerate(queries)
        ]


S = TypeVar("S", bound=Stage)


def by_settings(
    stage: S, expansions: list[Expansion], run: Callable[[S, list[Expansion]], list[Expansion]]
) -> list[Expansion]:
    """Return what ``run`` makes of expansions, in order: those that want the same settings go together.

    ``run`` gets the stage as they want it, so that their answers are those of a pipeline with these settings.
    """
    places: dict[S, list[int]] = {}
    for place, e in enumerate(expansions):
        places.setdefault(stage.asked(e.query), []).append(place)
    if len(places) <= 1:
        return run(next(iter(places), stage), expansions)
    done: dict[int, Expansion] = {}
    for own, some in places.items():
        done |= zip(some, run(own, [expansions[place] for place in some]), strict=True)
    return [done[place] for place in range(len(expansions))]


def timed(stage: Stage, worker: Worker) -> Worker:
    """Wrap a worker so that each expansion notes the seconds that its batch took, shared evenly."""

    def run(expansions: list[Expansion]) -> list[Expansion]:
        started = time.perf_counter()
        done = worker(expansions)
        share = (time.perf_counter() - started) / max(len(expansions), 1)
        return [replace(e, seconds={**e.seconds, stage.name: share}) for e in done]

    return run


def isolated(stage: Stage, worker: Worker) -> Worker:
    """Wrap a worker so that a query that it refuses costs no other query its answer.

    The refused one passes as it was before the stage, and ``degraded`` says why. A stage whose answers
    depend on the other queries of a call refuses the call as before.
    """

    def run(expansions: list[Expansion]) -> list[Expansion]:
        try:
            return worker(expansions)
        except QueryError as error:
            if stage.batch_dependent:
                raise
            if len(expansions) == 1:
                return [without(expansions[0], stage.name, str(error))]
        half = len(expansions) // 2
        return [*run(expansions[:half]), *run(expansions[half:])]

    return run


def without(expansion: Expansion, stage: str, why: str) -> Expansion:
    """Return an expansion as it is, with a note that a stage of that name could not do its part."""
    return replace(expansion, degraded=(*expansion.degraded, f"{stage}: {why}"))


def unsuited(stages: Sequence[Stage], query: Query) -> str:
    """Return why a method cannot answer a query as it is asked, or nothing, by what its stages declare."""
    if query.weights and (unable := _unable(stages, QueryFeature.WEIGHTS)):
        return (
            f"{unable[0]} cannot weigh seeds; give each the weight 1, or 0 to leave it out, or ask a method "
            "whose stages can, such as default"
        )
    if query.context and (unable := _unable(stages, QueryFeature.CONTEXT)):
        return (
            f"{unable[0]} cannot obey context pairs; leave context out, or ask a method that can: mean, best "
            "or sum"
        )
    if not query.positive and (unable := _unable(stages, QueryFeature.NEGATIVE_ALONE)):
        return f"{unable[0]} needs a positive seed; give one, or ask a method that does not, such as default"
    return next((why for one in query.new if one.is_given and (why := _unfit(stages, one))), "")


def _unable(stages: Sequence[Stage], feature: QueryFeature) -> list[str]:
    return [stage.name for stage in stages if feature not in stage.supported]


def _unfit(stages: Sequence[Stage], seed: NewEntity) -> str:
    """Return why stages cannot answer for a seed that is given as vectors, or nothing."""
    for stage in stages:
        if (views := stage.seed_views) is None:
            return f"{stage.name} needs more of a seed than vectors; ask a method of vectors, such as default"
        if lacking := [view for view in views if view not in seed.vectors]:
            given = ", ".join(seed.vectors)
            return f"{stage.name} reads seeds in the view {lacking[0]!r}; {seed.name} has vectors of {given}"
    return ""


def unselected(selects: bool, query: Query) -> str:
    """Return why a pipeline cannot choose its list as a query asks, or nothing."""
    if query.selection.chooses and not selects:
        return "group_by and diversity are the stage Select's; add it to the end of the pipeline"
    return ""


def missing_requirements(bundle: Bundle, stages: Iterable[Stage]) -> str:
    """Return why the bundle cannot serve some stages here, or nothing: the files of each must be there."""
    for stage in stages:
        if why := stage.unavailable():
            return f"{stage.name}: {why}"
        for name in stage.needs():
            try:
                bundle.path(name)
            except BundleError as error:
                return str(error)
    return ""


def counts_of(worker: Worker) -> Mapping[str, int]:
    """Return what a worker counted since it was opened (decode steps, cache hits …), if it counts."""
    counts: Callable[[], Mapping[str, int]] = getattr(worker, "counts", dict)
    return counts()


def above_least(expansion: Expansion) -> Expansion:
    """Cut the ranking to scores of at least the least one that is shown."""
    ranking, least = expansion.ranking, expansion.query.selection.min_score
    if least is None:
        return expansion
    return replace(expansion, ranking=ranking.take(np.flatnonzero(ranking.scores >= np.float32(least))))


def cut(expansion: Expansion) -> Expansion:
    """Cut the ranking to what may be shown: scores of at least the least one, and no more than are wanted."""
    reached = above_least(expansion)
    return replace(reached, ranking=reached.ranking.head(expansion.query.wanted))


def finish(expansion: Expansion) -> Expansion:
    """Cut the ranking to what the query asked for: the last step of every runtime, taken once."""
    shown = cut(expansion)
    if not (offset := expansion.query.selection.offset):
        return shown
    return replace(shown, ranking=shown.ranking.take(np.arange(offset, max(offset, len(shown.ranking)))))
