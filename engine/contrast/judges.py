"""Judge which recalled entities agree with a query's seeds (RetExpan, section 5.1.2).

The paper leaves that to a chat model (:mod:`engine.contrast.chat_judge`). The two judges here ask nobody:
they compare what speaks for the seeds of an entity's side with what speaks for those of the other side.

Shape letters: n entities, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids
from engine.retrieval.index import Index, mean_of, views_of
from engine.retrieval.opening import open_index
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # it brings a model library along
    from engine.generation.likelihood import Likelihood

JudgeName = Literal["agreement", "language-model", "chat"]
JUDGES: tuple[JudgeName, ...] = get_args(JudgeName)

VIEWS = ("mask", "lexical", "description")
"""Views that vote, as far as a bundle has them: what the default method reads side by side."""

Kept = npt.NDArray[np.bool_]


class Side(NamedTuple):
    """One side of a query: its seeds, the other side's seeds, and the entities to be judged, best first."""

    seeds: tuple[int, ...]
    others: tuple[int, ...]
    candidates: Ids


class Judge(Protocol):
    """What says which candidates agree with the seeds of their side."""

    @property
    def threads(self) -> int:
        """Queries that are best judged at once: more than one where the judge waits for others."""

    def keep(self, side: Side) -> Kept:
        """Return for each candidate whether it agrees with the seeds of its side, bool [n].

        Raises:
            QueryError: this side cannot be judged; others may be.
        """

    def account(self) -> str:
        """Return a line on what was spent outside so far; "" where nothing is."""


@dataclass(frozen=True)
class AgreementJudge:
    """Keep an entity that is nearer to its side's seeds than to the other side's, in most views.

    With S the seeds of the entity's side and O those of the other, and x_v the unit vector of x in view v,
    view v is for the entity e if

        mean over s in S of x_v(e) * x_v(s)  >  mean over o in O of x_v(e) * x_v(o)

    and e is kept if more than half of the views that can tell are for it. A view tells nothing of an entity
    without a vector, or where no seed of S or none of O has one; seeds without a vector are left out of the
    means. An entity of which no view tells is not kept. Where O is empty nothing speaks against an entity,
    and all are kept. Not of the paper: it needs no language model.

    Args:
        indexes: of the views that vote.
    """

    indexes: Sequence[Index]
    threads: int = 1

    @classmethod
    def open(cls, bundle: Bundle) -> AgreementJudge:
        """Return the judge by the views that a bundle has of :data:`VIEWS`.

        Raises:
            BundleError: it has none of them.
        """
        there = views_of(bundle.manifest)
        views = [view for view in VIEWS if view in there]
        if not views:
            raise BundleError(
                f"bundle {bundle.id}: has none of the views {', '.join(VIEWS)}, by which entities agree; "
                "run `seedset build-index` first, or choose another --judge"
            )
        return cls([open_index(bundle, view) for view in views])

    def keep(self, side: Side) -> Kept:
        """See :class:`Judge`."""
        ids = side.candidates
        if not side.others:
            return np.ones(len(ids), bool)
        nearer, telling = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
        for index in self.indexes:
            means_2D = np.stack([mean_of(index.vectors_of(seeds)) for seeds in (side.seeds, side.others)])
            if not means_2D.any(axis=1).all():
                continue
            tells = index.vectors_of(ids.tolist()).any(axis=1)
            (products_n2,) = index.similarities([(ids, means_2D)])
            nearer += tells & (products_n2[:, 0] > products_n2[:, 1])
            telling += tells
        return np.asarray(2 * nearer > telling)

    def account(self) -> str:
        """See :class:`Judge`."""
        return ""


@dataclass(frozen=True)
class LikelihoodJudge:
    """Keep an entity after which its side's seeds are likelier than the other side's, for a language model.

    An entity e is kept if sco(e, S) > sco(e, O) with sco(e, S) the mean over s in S of
    P(s | "{e} is similar to") ** (1 / |s|) (GenExpan, equation 8), S the seeds of its side and O those of the
    other. Where O is empty all are kept. Not of the paper, whose judge is a chat model.

    Args:
        likelihood: of the bundle's language model.
    """

    likelihood: Likelihood
    threads: int = 1

    @classmethod
    def open(cls, bundle: Bundle) -> LikelihoodJudge:
        """Return the judge by a bundle's language model.

        Raises:
            BundleError: it has none.
        """
        from engine.generation.artifacts import open_artifacts

        return cls(open_artifacts(bundle).likelihood)

    def keep(self, side: Side) -> Kept:
        """See :class:`Judge`.

        Raises:
            QueryError: a seed's name is too long for the model.
        """
        if not side.others or not len(side.candidates):
            return np.ones(len(side.candidates), bool)
        own, other = self.likelihood.means([(side.candidates, side.seeds), (side.candidates, side.others)])
        return np.asarray(own > other)

    def account(self) -> str:
        """See :class:`Judge`."""
        return ""
