"""Expand seeds by name in this process: the Python API (``docs/python-api.md``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from engine.answering.explanations import select_stage
from engine.catalogue.entities import Facet
from engine.catalogue.opening import open_catalogue
from engine.errors import QueryError
from engine.plugins import find_method
from engine.queries.fields import NewSeed, NewSeeds, NotHeld, Seed, SeedSides, ShownFields, VectorSeed
from engine.query import Expansion, Options, Query, Value
from engine.retrieval.index import check_vectors
from engine.stages.base import LocalPipeline, Pipeline, Stage, Worker, timed
from engine.stages.options import change, checked_options, offered
from engine.stages.select import Select
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary


class RankedEntity(NamedTuple):
    """An entity of an answer; ``evidence`` holds what the method's stages found out about it."""

    rank: int
    id: int
    name: str
    score: float
    evidence: dict[str, float]


class Answer(NamedTuple):
    """An answered query: entities, best first, what had to be left out, and what was reasoned.

    ``reasoning`` is what a chain of thought said of the wanted entities: a ``class_name``, what the
    ``positive`` and what the ``negative`` seeds share; empty for methods without one. ``options`` are the
    settings that the query changed, and ``counts`` is what stages counted of the answer, such as names that
    a chat model made up. ``facets`` are the counted values by attribute, where they were asked for.
    """

    results: list[RankedEntity]
    degraded: tuple[str, ...]
    reasoning: Mapping[str, str] = MappingProxyType({})
    options: Mapping[str, Value] = MappingProxyType({})
    counts: Mapping[str, int] = MappingProxyType({})
    facets: Mapping[str, list[Facet]] = MappingProxyType({})


@dataclass(frozen=True)
class Expander:
    """Expand queries over one bundle by one method, in this process.

    Not safe for several threads at once: a method's workers may share a model.
    """

    bundle: Bundle
    pipeline: LocalPipeline

    @classmethod
    def open(
        cls,
        workspace: str | os.PathLike[str],
        method: str | Stage | Pipeline = "default",
        bundle: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Expander:
        """Open a bundle and load what a method needs of it.

        Args:
            workspace: a folder or an ``s3://`` prefix with published bundles.
            method: the name of a method, of one that a package installed, or ``module:NAME`` of a pipeline;
                or a pipeline itself.
            bundle: its id; None: the current one.
            settings: of the method's stages, other than it has them: ``{"SegmentRerank.length": 8}``.

        Raises:
            BundleError: nothing was published, a file is damaged, or the bundle lacks what the method needs.
            UserError: no method of that name, or no such setting.
        """
        opened = Bundle.open(Workspace.open(workspace), bundle)
        pipeline = find_method(method) if isinstance(method, str) else method
        whole = pipeline if isinstance(pipeline, Pipeline) else Pipeline((pipeline,))
        return cls(opened, change(whole, settings or {}).open(opened))

    @cached_property
    def _select(self) -> tuple[Select, Worker]:
        """What chooses lists as a whole, opened when it is first asked for."""
        stage = select_stage(self.bundle)
        return stage, timed(stage, stage.open(self.bundle))

    @property
    def vocabulary(self) -> Vocabulary:
        """The entities that can be ranked."""
        return self.bundle.vocabulary

    @property
    def stages(self) -> list[Stage]:
        """The stages of the method, in order."""
        return [stage for stage, _ in self.pipeline.opened]

    @property
    def changeable(self) -> dict[str, dict[str, Value]]:
        """What a query's ``options`` may change: of each its value, and the bounds of its numbers."""
        return offered(self.stages)

    def expand(
        self,
        positive: Sequence[str | int | Mapping[str, Any]] = (),
        negative: Sequence[str | int | Mapping[str, Any]] = (),
        top_k: int = 50,
        filters: Mapping[str, Any] | None = None,
        class_name: str = "",
        positive_attributes: Mapping[str, Sequence[str]] | None = None,
        negative_attributes: Mapping[str, Sequence[str]] | None = None,
        options: Mapping[str, Value] | None = None,
        **shown: Any,
    ) -> Answer:
        """Return entities like the positive seeds and unlike the negative ones, best first.

        Args:
            positive: names, aliases or ids, ``{"name": "Japan", "weight": 2}`` (or ``id``), or
                ``{"vector": {"joint": [0.1, …]}}``. Without any, some methods rank by the negative seeds
                alone.
            negative: likewise.
            top_k: entities wanted.
            filters: only entities that fulfil them, as in a request (:mod:`engine.queries.filters`):
                ``{"continent": ["Asia"], "founded": {"lt": "1900"}}``.
            class_name: what the wanted entities are, for methods that are given it.
            positive_attributes: what the positive seeds share, likewise.
            negative_attributes: what the negative seeds share, likewise.
            options: settings of stages that differ for this query, such as ``{"SegmentRerank.length": 8}``;
                :attr:`changeable` names them.
            shown: what is ranked and shown, as in a request: ``context`` (pairs, for methods that take them),
                ``exclude`` (names or ids that are never in the answer), ``min_score``, ``offset``,
                ``group_by``, ``per_group``, ``diversity``, ``facets``
                (:class:`engine.queries.fields.ShownFields`).

        Raises:
            UnknownEntityError: a seed that the vocabulary does not hold; names the closest.
            UnknownAttributeError: an attribute or a value that no entity has.
            QueryError: no positive seed, a seed on both sides, too many, ``top_k`` out of bounds, a text
                where a list belongs, an option that no query may change or one out of its bounds, or a
                query that a stage cannot answer.
        """
        seeds = self.vocabulary.resolve_all
        by_attribute = {
            "positive_attributes": positive_attributes or {},
            "negative_attributes": negative_attributes or {},
        }
        given = {
            "positive": positive,
            "negative": negative,
            **{f"{f}.{n}": v for f, values in by_attribute.items() for n, v in values.items()},
        }
        if alone := next((name for name, value in given.items() if isinstance(value, str)), None):
            raise QueryError(f"{alone}: {given[alone]!r} is one text; give a list of them")
        shared, unlike = (tuple((n, tuple(v)) for n, v in values.items()) for values in by_attribute.values())
        fields = _fields({**shown, "filter": filters or {}, "positive": positive, "negative": negative})
        new = NewSeeds(self.vocabulary)
        sides = SeedSides(partial(self._seed, new))
        changed: Options = checked_options(self.stages, options or {})
        positives, negatives = (
            sides.take("positive", fields.positive),
            sides.take("negative", fields.negative),
        )
        query = Query(
            "query",
            positives,
            negatives,
            top_k,
            fields.filter,
            new.entities,
            class_name=class_name,
            positive_attributes=shared,
            negative_attributes=unlike,
            options=changed,
            exclude=seeds(fields.exclude, "exclude"),
            selection=fields.selection,
            weights=sides.unlike_one,
            context=sides.pairs(fields.context),
        )
        check_vectors(self.bundle, query)
        if query.selection.group_by or query.selection.facets:
            open_catalogue(self.bundle).check_shown(query.selection)
        if query.selection.diversity and self._select[0].view is None:
            raise QueryError("diversity: the bundle has no vectors by which entities are alike")
        chosen = [self._select] if query.selection.chooses else []
        (expansion,) = LocalPipeline([*self.pipeline.opened, *chosen])([query], strict=True)
        found, e = self._named(expansion), expansion
        facets = open_catalogue(self.bundle).facets(e) or {} if query.selection.facets else {}
        return Answer(found, e.degraded, e.reasoning, dict(changed), e.counts, facets)

    def __call__(self, queries: Sequence[Query]) -> list[Expansion]:
        """Return one expansion a query, in order: the form that evaluation takes, without names."""
        return self.pipeline(queries)

    def _seed(self, new: NewSeeds, given: str | int | NotHeld, field: str) -> int:
        if isinstance(given, VectorSeed):
            return new.take(given, field)
        if isinstance(given, NewSeed):
            raise QueryError(
                f"{field}: {given.name!r} is not of the vocabulary; new entities are taken "
                "by the service and in tables (seedset serve, seedset expand)"
            )
        return self.vocabulary.resolve(given, field)

    def _named(self, expansion: Expansion) -> list[RankedEntity]:
        ranking, names = expansion.ranking, self.vocabulary.names
        evidence = {name: column.tolist() for name, column in ranking.evidence.items()}
        first = expansion.query.selection.offset + 1
        pairs = zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True)
        return [
            RankedEntity(
                first + i, entity, names[entity], score, {n: column[i] for n, column in evidence.items()}
            )
            for i, (entity, score) in enumerate(pairs)
        ]


class _Asked(ShownFields, BaseModel):
    """The fields of a call that a request has, too."""

    positive: list[Seed] = []
    negative: list[Seed] = []


def _fields(given: Mapping[str, Any]) -> _Asked:
    """Return what is asked, checked as a request's fields are (QueryError)."""
    try:
        return _Asked.model_validate(
            {**given, **{side: list(given[side]) for side in ("positive", "negative")}}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))
        known = (
            f"; there are {', '.join(ShownFields.model_fields)}" if first["type"] == "extra_forbidden" else ""
        )
        raise QueryError(f"{place}: {first['msg']}{known}") from None
