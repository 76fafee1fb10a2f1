"""Choose what of a ranking is shown: few of a group, and entities unlike those already chosen (MMR)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from engine.catalogue.opening import open_catalogue
from engine.query import MAX_DIVERSE, Expansion, Ranking, Scores, Selection
from engine.retrieval.index import Vectors, index_file
from engine.retrieval.opening import open_index
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker, above_least
from engine.stages.membership import PROPOSED
from engine.storage.bundle import Bundle

Groups = Sequence[Sequence[str]]


class Select(Stage):
    """Choose entities one by one: the best that is left, by what a query asks of the list as a whole.

    ``group_by`` lets at most ``per_group`` entities of each value of an attribute through; one with several
    values counts for each, and those without any are a group of their own. ``diversity`` d chooses by maximal
    marginal relevance (Carbonell and Goldstein, 1998) among the 1,000 best:

        (1 - d) * relevance - d * max over the chosen of the cosine to them in ``view``

    where relevance is the score, scaled to 0 … 1 from the least to the largest of those. Ties go to the
    better place. An entity keeps its score, so that the list is not sorted by it any more; the evidence
    ``marginal`` is what it was chosen by. What was proposed as the set is left out: it was of another order.
    """

    view: str | None = "joint"

    selects: ClassVar[bool] = True
    num_cpus: ClassVar[float] = 0.1  # products of some hundred vectors
    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES

    @property
    def seed_views(self) -> tuple[str, ...]:
        """None that must be given."""
        return ()

    def needs(self) -> tuple[str, ...]:
        """Name the view's index, if there is a view."""
        return (index_file(self.view),) if self.view else ()

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index = open_index(bundle, self.view) if self.view else None

        def run(expansions: list[Expansion]) -> list[Expansion]:
            done = []
            for e in expansions:
                asked, listed = e.query.selection, above_least(e)
                groups: Groups | None = None
                vectors: Vectors | None = None
                if asked.group_by:
                    groups = open_catalogue(bundle).values_of(listed.ranking.ids, asked.group_by)
                if asked.diversity and index is not None:
                    listed = replace(listed, ranking=listed.ranking.head(MAX_DIVERSE))
                    vectors = index.vectors_of(listed.ranking.ids.tolist())
                counts = {name: n for name, n in e.counts.items() if name != PROPOSED}
                ranking = chosen(listed.ranking, asked, groups, vectors, e.query.wanted)
                done.append(replace(listed, ranking=ranking, counts=counts))
            return done

        return run


def chosen(
    ranking: Ranking, asked: Selection, groups: Groups | None, vectors_ND: Vectors | None, wanted: int
) -> Ranking:
    """Return the entities that are chosen of a ranking, in the order in which they are.

    Args:
        ranking: best first.
        asked: the least places of a group, and the diversity.
        groups: the values of each entity, () for none; None: they have no groups.
        vectors_ND: unit vectors, or rows of zeros, which are like nothing; None: no diversity is asked for.
        wanted: entities to choose at most.
    """
    full: Counter[str] = Counter()
    places, marginals = list[int](), list[float]()
    order = (
        _in_order(len(ranking))
        if vectors_ND is None
        else _diverse(ranking, vectors_ND, asked.diversity, places)
    )
    for place, marginal in order:
        if len(places) == wanted:
            break
        own = groups[place] or ("",) if groups is not None else ()
        if any(full[value] >= asked.per_group for value in own):
            continue
        full.update(own)
        places.append(place)
        marginals.append(marginal)
    taken = ranking.take(np.array(places, np.int64))
    return taken if vectors_ND is None else taken.with_evidence(marginal=np.array(marginals, np.float32))


def _in_order(n: int) -> Iterator[tuple[int, float]]:
    yield from ((place, 0.0) for place in range(n))


def _diverse(
    ranking: Ranking, vectors_ND: Vectors, share: float, chosen: Sequence[int]
) -> Iterator[tuple[int, float]]:
    """Yield each place when it is the best that is left, and by what; ``chosen`` grows meanwhile."""
    relevance_N, known = scaled(ranking.scores), 0
    nearest_N, free_N = np.full(len(ranking), -np.inf), np.ones(len(ranking), bool)
    while free_N.any():
        for place in chosen[known:]:
            nearest_N = np.maximum(nearest_N, vectors_ND.astype(np.float64) @ vectors_ND[place])
        known = len(chosen)
        marginal_N = (1 - share) * relevance_N - (share * nearest_N if known else 0)
        best = int(np.argmax(np.where(free_N, marginal_N, -np.inf)))
        free_N[best] = False
        yield best, float(marginal_N[best])


def scaled(scores: Scores) -> npt.NDArray[np.float64]:
    """Return scores from 0 for the least to 1 for the largest; 0 where all are equal."""
    values = scores.astype(np.float64)
    spread = float(np.ptp(values)) if len(values) else 0.0
    return (values - values.min()) / spread if spread > 0 else np.zeros(len(values))
