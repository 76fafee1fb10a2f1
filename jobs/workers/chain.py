"""Lay the stages of a table's methods out one behind the other, and say which of them a row passes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.query import Expansion
from engine.refusals import Refusal
from engine.stages.base import Pipeline, Stage
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain


@dataclass(frozen=True)
class Row:
    """A query of a table under way.

    Args:
        expansion: what was found so far; its query has no deadline.
        method: the name of the method that answers it.
        explain: whether its answer is explained.
        remaining: seconds that its stages may still take; what it waits between them is not counted.
        refusal: why it has no answer; None while it may have one.
        place: its file and its position there.
    """

    expansion: Expansion
    method: str
    explain: bool = False
    remaining: float | None = None
    refusal: Refusal | None = None
    place: tuple[str, int] = ("", 0)


@dataclass(frozen=True)
class Chain:
    """The stages of some methods in one order that is that of each of them; equal stages are one.

    Args:
        stages: in order; what encodes new entities is the first one, if any, and what explains the last.
        routes: the places of a method's stages, by its name.
    """

    stages: tuple[Stage, ...]
    routes: Mapping[str, frozenset[int]]

    @classmethod
    def of(cls, methods: Mapping[str, Pipeline], new: bool = False, *last: Stage) -> Chain:
        """Return the chain of some methods.

        Args:
            methods: by name; the order of stages is the first one's, where it may be chosen.
            new: whether a row has entities that are new.
            last: the stages that choose lists and that explain answers, if a row wants that.
        """
        stages: list[Stage] = []
        for pipeline in methods.values():
            at = 0
            for stage in pipeline.stages:
                if stage in stages[at:]:
                    at = stages.index(stage, at)
                else:
                    stages.insert(at, stage)
                at += 1
        begin: list[Stage] = [EncodeNewEntities()] if new else []
        routes = {
            name: frozenset(len(begin) + place for place in _places(stages, pipeline.stages))
            for name, pipeline in methods.items()
        }
        return cls((*begin, *stages, *last), routes)

    def passes(self, row: Row, place: int) -> bool:
        """Return whether a row's query is answered by the stage at a place, too."""
        if row.refusal is not None:
            return False
        if isinstance(self.stages[place], Explain):
            return row.explain
        if self.stages[place].selects:
            return row.expansion.query.selection.chooses
        first = place == 0 and isinstance(self.stages[0], EncodeNewEntities)
        return bool(row.expansion.query.unencoded) if first else place in self.routes[row.method]

    @property
    def pools(self) -> list[tuple[int, ...]]:
        """The places of the stages that share an actor: neighbours that want the same of a node.

        Those with the language model want its memory and a GPU, those that ask an endpoint wait, all others
        compute. Apart, stages of one kind would share the cores by their number, not by their work, and each
        row would cross from process to process for nothing.
        """
        grouped = itertools.groupby(range(len(self.stages)), lambda place: _kind(self.stages[place]))
        return [tuple(group) for _, group in grouped]


def _kind(stage: Stage) -> tuple[bool, bool]:
    """Return whether a stage has the language model, and whether it waits for an endpoint's answers."""
    return stage.language_model, bool(stage.source())


def _places(chain: Sequence[Stage], stages: Sequence[Stage]) -> list[int]:
    """Return the places of stages in a chain that has them in their order."""
    found, at = [], 0
    for stage in stages:
        at = chain.index(stage, at)
        found.append(at)
        at += 1
    return found
