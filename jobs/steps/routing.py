"""Decide how each query of a table is answered: by its own method and settings, or the command's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from engine.answering.explanations import explain_stage, select_stage
from engine.errors import QueryError, did_you_mean
from engine.methods import METHODS
from engine.queries.formats import LabelledQuery, RefusedQuery
from engine.query import Expansion, Value
from engine.refusals import Code, Refusal
from engine.retrieval.index import check_vectors
from engine.stages.base import Pipeline, missing_requirements, unsuited
from engine.stages.explain import Explain
from engine.stages.options import change_methods, checked_options
from engine.stages.select import Select
from engine.storage.bundle import Bundle
from jobs.workers.chain import Chain, Row


@dataclass
class Router:
    """A router of the queries of a table.

    Args:
        bundle: answers.
        method: the name of the command's method.
        pipeline: of it, with the command's changes.
        changes: settings of stages that the command changes, in the methods that rows name, too.
    """

    bundle: Bundle
    method: str
    pipeline: Pipeline
    changes: Mapping[str, Value] = field(default_factory=dict)
    used: dict[str, Pipeline] = field(default_factory=dict)
    """Methods that rows are answered by, in the order in which they came."""
    _explain: bool = False
    _new: bool = False
    _selects: bool = False

    def take(self, labelled: LabelledQuery) -> LabelledQuery | RefusedQuery:
        """Return a query as the stages read it, or why it cannot be asked; see :meth:`row`."""
        try:
            return self._checked(labelled)
        except QueryError as error:
            return labelled.refused(Refusal(Code.QUERY_INVALID, f"query {labelled.query.id!r}: {error}"))

    def row(self, labelled: LabelledQuery) -> Row:
        """Return a query that was taken as the row that stages answer."""
        remaining = None if labelled.deadline_ms is None else labelled.deadline_ms / 1000
        method = labelled.method or self.method
        return Row(Expansion(labelled.query), method, labelled.explain, remaining, place=labelled.place)

    @property
    def chain(self) -> Chain:
        """The stages that answer the queries that were taken, the command's method first."""
        first = {self.method: self.used[self.method]} if self.method in self.used else {}
        explain = [self._explain_stage] if self._explain and self._explain_stage else []
        select = [self._select_stage] if self._selects else []
        return Chain.of({**first, **self.used}, self._new, *select, *explain)

    @property
    def others(self) -> dict[str, str]:
        """The pipelines of methods that rows name, in words, by name, sorted."""
        return {name: str(p) for name, p in sorted(self.used.items()) if name != self.method}

    def _checked(self, labelled: LabelledQuery) -> LabelledQuery:
        if labelled.bundle not in (None, self.bundle.id):
            raise QueryError(
                f"bundle: {labelled.bundle!r} is not the one that answers, {self.bundle.id!r}, in which ids "
                "mean other entities; give --bundle, or leave it out and ask by name"
            )
        name = labelled.method or self.method
        pipeline = self.pipeline if name == self.method else self._method(name)
        query = labelled.query
        try:
            options = checked_options(pipeline.stages, dict(query.options)) if query.options else ()
        except QueryError as error:
            raise QueryError(f"options: {error}") from None
        if why := unsuited(pipeline.stages, query):
            raise QueryError(f"method {name!r}: {why}")
        check_vectors(self.bundle, query)
        if query.selection.diversity and self._select_stage.view is None:
            raise QueryError("diversity: the bundle has no vectors by which entities are alike")
        if labelled.explain and self._explain_stage is None:
            raise QueryError("explain: the bundle has no vectors to explain answers by")
        self.used.setdefault(name, pipeline)
        self._explain |= labelled.explain
        self._new |= bool(query.unencoded)
        self._selects |= query.selection.chooses
        own = None if name == self.method else name
        asked = query if options == query.options else replace(query, options=options)
        return replace(labelled, method=own, query=asked)

    @cached_property
    def _explain_stage(self) -> Explain | None:
        return explain_stage(self.bundle)

    @cached_property
    def _select_stage(self) -> Select:
        return select_stage(self.bundle)

    @cached_property
    def _served(self) -> dict[str, Pipeline]:
        return change_methods({**METHODS, self.method: self.pipeline}, self.changes)

    def _method(self, name: str) -> Pipeline:
        """Return a method that a row names, as it may over HTTP.

        No module is imported for a name in a file.

        Raises:
            QueryError: there is none, or the bundle lacks what it needs.
        """
        if name in self.used:
            return self.used[name]
        if name not in self._served:
            hint = did_you_mean(name, difflib.get_close_matches(name[:80], self._served))
            known = f"{', '.join(METHODS)}; or any method by --method"
            raise QueryError(f"method: unknown method {name[:80]!r}{hint or f'; known: {known}'}")
        pipeline = self._served[name].settled()
        if lack := missing_requirements(self.bundle, pipeline.stages):
            raise QueryError(f"method: {name!r} is not available here ({lack})")
        return pipeline
