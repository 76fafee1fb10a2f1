"""Draw the batches of ultra-fine contrastive learning: sentences of some queries' lists, and of others.

A sample is a sentence under a list. As one number, so that batches are rows as in any training: those below
the number of sentences are plain sentences, those above a sentence under a list and a side (:class:`Codes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.errors import UserError
from engine.losses.settings import UltraFineSettings
from engine.losses.ultra_fine import NEGATIVE, OUTSIDE, POSITIVE, Samples
from engine.training.contrast_lists import ContrastLists
from engine.training.order import Rows, rows_by_entity

SIDES = 3


class Drawn(NamedTuple):
    """Samples taken apart: sentence, number of the list, side, each int64 [S]."""

    rows: Rows
    lists: Rows
    sides: Rows


@dataclass(frozen=True)
class Codes:
    """Numbers of samples, behind those of ``n`` sentences."""

    n: int

    def of(self, rows: Rows, which: int | Rows, side: int) -> Rows:
        """Return the numbers of sentences drawn for a side of a list, one for all or one each."""
        return rows.astype(np.int64) + self.n * (1 + which * SIDES + side)

    def apart(self, codes: Rows) -> Drawn:
        """Return what some numbers stand for."""
        place, rows = np.divmod(codes, self.n)
        lists, sides = np.divmod(place - 1, SIDES)
        return Drawn(rows, lists, sides)


class ListBatches:
    """Batches of the contrast: each pass of an epoch draws from each query's lists once, in random order.

    From a query: ``list_entities`` entities of L_pos and as many of L_neg, ``entity_sentences`` of each, and
    with normal negatives one sentence of each of twice as many entities that it did not recall.

    Args:
        entity_id: the entity of each sentence, [n].
        usable: the sentences that may be drawn.
        lists: of all queries; those without a sentence in L_pos or L_neg are left out.
        settings: sizes.
        seed: of the draws.
        beside: steps of entity prediction in an epoch, which the passes are to match where the settings give
            no number of them.

    Raises:
        UserError: no list is left.
    """

    def __init__(
        self,
        entity_id: Rows,
        usable: Rows,
        lists: Sequence[ContrastLists],
        settings: UltraFineSettings,
        seed: int,
        beside: int = 0,
    ) -> None:
        self.codes = Codes(len(entity_id))
        self._entity, self._settings, self._seed = entity_id, settings, seed
        self._sorted = rows_by_entity(entity_id, usable)
        n = 1 + max(int(entity_id.max(initial=0)), *(int(_all(one).max(initial=0)) for one in lists), 0)
        self._count = np.bincount(entity_id[usable], minlength=n)
        self._first = np.cumsum([0, *self._count])[:-1]
        self.lists = list(lists)
        self._sides = [(self._with_text(one.pos_list), self._with_text(one.neg_list)) for one in lists]
        self._kept = np.flatnonzero([all(map(len, sides)) for sides in self._sides])
        if not len(self._kept):
            raise UserError(
                f"none of the {len(lists)} queries' lists has sentences of both sides to contrast; mine "
                "lists of queries with negative seeds (`seedset mine-contrast --queries QUERIES`)"
            )
        self._passes = settings.contrast_passes or max(1, round(beside / self._per_pass))
        self._recalled = np.zeros((len(lists), n), bool)
        for place, one in enumerate(lists):
            self._recalled[place, _all(one)] = True

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._passes * self._per_pass

    @property
    def _per_pass(self) -> int:
        return math.ceil(len(self._kept) / self._settings.lists_per_batch)

    def epoch(self, epoch: int) -> list[Rows]:
        """Return the numbers of the samples of each batch, a function of seed and epoch alone."""
        rng = np.random.default_rng([self._seed, epoch, 17])
        passes = [np.array_split(rng.permutation(self._kept), self._per_pass) for _ in range(self._passes)]
        return [
            np.concatenate([self._of_list(which, rng) for which in group])
            for groups in passes
            for group in groups
        ]

    def under_lists(self, batches: Sequence[Rows], share: float, epoch: int) -> list[Rows]:
        """Return batches of sentences in which a random share stands under a random list, outside of it.

        Args:
            batches: of plain sentences.
            share: of the sentences, each drawn for itself.
            epoch: with the seed, what the draw is a function of.
        """
        rng = np.random.default_rng([self._seed, epoch, 19])
        under = []
        for batch in batches:
            drawn = rng.choice(self._kept, len(batch))
            under.append(
                np.where(rng.random(len(batch)) < share, self.codes.of(batch, drawn, OUTSIDE), batch)
            )
        return under

    def samples(self, codes: Rows) -> Samples:
        """Return the labels of a batch."""
        drawn = self.codes.apart(codes)
        found, place = np.unique(drawn.lists, return_inverse=True)
        entity = self._entity[drawn.rows]
        recalled = self._recalled[found][:, entity]
        return Samples(*(torch.from_numpy(a) for a in (place, drawn.sides, entity, recalled)))

    def _of_list(self, which: int, rng: np.random.Generator) -> Rows:
        sizes, parts = self._settings, []
        for side, members in zip((POSITIVE, NEGATIVE), self._sides[which], strict=True):
            entities = rng.permutation(members)[: sizes.list_entities]
            rows = np.concatenate([self._some(entity, sizes.entity_sentences, rng) for entity in entities])
            parts.append(self.codes.of(rows, which, side))
        if not sizes.normal_negatives:
            return np.concatenate(parts)
        others = np.flatnonzero(~self._recalled[which] & (self._count > 0))
        outside = rng.choice(others, min(2 * sizes.list_entities, len(others)), replace=False)
        rows = np.array([self._some(entity, 1, rng)[0] for entity in outside], np.int64)
        return np.concatenate([*parts, self.codes.of(rows, which, OUTSIDE)])

    def _some(self, entity: int, at_most: int, rng: np.random.Generator) -> Rows:
        """Return different sentences of an entity."""
        count = int(self._count[entity])
        return self._sorted[self._first[entity] + rng.permutation(count)[:at_most]]

    def _with_text(self, entities: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return np.unique(entities[self._count[entities] > 0])


def _all(one: ContrastLists) -> npt.NDArray[np.int32]:
    """Return all entities that a query knows as near: what it recalled, its seeds, and its lists."""
    return np.concatenate([one.recalled, one.positive, one.negative, one.pos_list, one.neg_list])
