"""Run stages of a chain on the rows of a part, and write what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.answering.explanations import Explainer, Explanation
from engine.answering.outcomes import answered
from engine.models import device
from engine.queries.answer_table import Result, labels_of
from engine.queries.formats import RefusedQuery
from engine.queries.results import ExpansionFolder, PartCounts
from engine.query import Deadline, Expansion
from engine.refusals import Code, Refusal
from engine.stages.base import finish
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.workers.attempts import MAX_DEATHS, Attempt, attempt
from jobs.workers.chain import Chain, Row


@dataclass(frozen=True)
class BundleRef:
    """A reference to a bundle: it crosses processes, the opened bundle does not."""

    workspace: str
    bundle: str

    def open(self) -> Bundle:
        """Open the bundle on this machine; its files are checked."""
        return Bundle.open(Workspace.open(self.workspace), self.bundle)


@dataclass(frozen=True)
class BatchExpansion:
    """The description of a batch expansion.

    Args:
        chain: the stages of all methods that rows ask for.
        source: the bundle.
        output: address of an :class:`engine.queries.results.ExpansionFolder`.
        batch_size: queries that a stage takes at once.
        tensor_parallel: processes over which a language model is split.
    """

    chain: Chain
    source: BundleRef
    output: str
    batch_size: int
    tensor_parallel: int = 1


class StageRun:
    """Some stages of a chain, opened in this process.

    Args:
        job: what is expanded, and how.
        places: of the stages, in order.
        bundle: opened.

    Raises:
        UserError: the bundle lacks what a stage needs.
    """

    def __init__(self, job: BatchExpansion, places: Sequence[int], bundle: Bundle) -> None:
        self._chain, self._batch_size = job.chain, job.batch_size
        self._output = Store.open(job.output)
        device.split_models(job.tensor_parallel)
        self._opened = {place: job.chain.stages[place].open(bundle) for place in places}

    def __call__(self, part: str, rows: list[Row]) -> list[Row]:
        """Return a part's rows after the stages, in order."""
        for place in self._opened:
            own = [i for i, row in enumerate(rows) if self._chain.passes(row, place)]
            if own:
                self._run(f"{part}-{place}", place, rows, own)
        return rows

    def _run(self, name: str, place: int, rows: list[Row], own: Sequence[int]) -> None:
        """Put some rows through a stage; a query that kills this process is left out at last."""
        with attempt(self._output, name) as current:
            for batch in _batches(rows, own, 1 if current.careful else self._batch_size):
                if current.careful and (killer := self._killer(current, place, rows[batch[0]])):
                    rows[batch[0]] = replace(rows[batch[0]], refusal=killer)
                    continue
                current.take([rows[i].expansion.query.id for i in batch])
                for i, row in zip(batch, self._answered(place, [rows[i] for i in batch]), strict=True):
                    rows[i] = row

    def _killer(self, current: Attempt, place: int, row: Row) -> Refusal | None:
        """Return why a query is not tried again, if it is not."""
        if (deaths := current.deaths_of(row.expansion.query.id)) < MAX_DEATHS:
            return None
        stage = self._chain.stages[place].name
        reason = f"{stage}: its worker died {deaths} times with this query alone in hand; it was left out"
        return Refusal(Code.WORKER_DIED, reason)

    def _answered(self, place: int, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield rows after a stage; the clocks of those with a deadline run meanwhile."""
        begun = [_with_clock(row) for row in rows]
        outcomes = answered(self._chain.stages[place], self._opened[place], [r.expansion for r in begun])
        for row, before, outcome in zip(rows, begun, outcomes, strict=True):
            deadline = before.expansion.query.deadline
            after = replace(row, remaining=None if deadline is None else deadline.remaining())
            if isinstance(outcome, Refusal):
                yield replace(after, refusal=outcome)
            else:
                yield replace(after, expansion=_without_clock(outcome))


def _batches(rows: Sequence[Row], own: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield the places of rows that go together; one with a deadline goes alone, as its clock runs."""
    together = [i for i in own if rows[i].remaining is None]
    for start in range(0, len(together), size):
        yield together[start : start + size]
    yield from ([i] for i in own if rows[i].remaining is not None)


def _with_clock(row: Row) -> Row:
    if row.remaining is None:
        return row
    query = replace(row.expansion.query, deadline=Deadline.within(row.remaining))
    return replace(row, expansion=replace(row.expansion, query=query))


def _without_clock(expansion: Expansion) -> Expansion:
    if expansion.query.deadline is None:  # a copy of a query is checked anew
        return expansion
    return replace(expansion, query=replace(expansion.query, deadline=None))


class PartRowWriter:
    """A writer of parts: cuts each ranking to what was asked for, and explains it where that was asked.

    Args:
        bundle: opened.
        output: see :class:`BatchExpansion`.
    """

    def __init__(self, bundle: Bundle, output: str) -> None:
        self._explainer = Explainer.open(bundle)
        self._labels = labels_of(bundle.vocabulary, self._explainer.catalogue)
        self._folder = ExpansionFolder(Store.open(output))

    def made(self, part: str) -> PartCounts | None:
        """Return the counts of a part that is there.

        Where a node is lost, Ray makes anew what it knew of the parts that were written there.
        """
        parts = self._folder.parts
        return parts.finished([part]).get(part) if parts.file(part).exists() else None

    def __call__(self, part: str, rows: Sequence[Row]) -> PartCounts:
        """Write a part and return its counts."""
        return self._folder.write_part(part, [self._result(row) for row in rows], self._labels)

    def _result(self, row: Row) -> Result:
        expansion = finish(row.expansion)
        if row.refusal is not None:
            return Result(expansion, RefusedQuery(*row.place, expansion.query.id, row.refusal))
        facets = self._explainer.catalogue.facets(expansion)
        if not row.explain:
            return Result(expansion, facets=facets)
        expansion, explained = self._explainer.take(expansion)
        return Result(expansion, None, [_of_table(one) for one in explained.values()], facets)


def _of_table(one: Explanation) -> dict[str, Any]:
    """Return an explanation as :data:`engine.queries.answer_table.EXPLANATION` has it."""
    return {
        "nearest_positive": one.nearest_positive and one.nearest_positive._asdict(),
        "nearest_negative": one.nearest_negative and one.nearest_negative._asdict(),
        "sentences": [{"text": s.text, "start": s.start, "end": s.end} for s in one.sentences if s.text],
        "types": one.types,
    }
