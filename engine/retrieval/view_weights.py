"""Weigh the views within the joint one for a query, by how well each tells the query's seeds apart. Ours.

In view v let a_v be the mean cosine of two positive seeds, b_v that of a positive and a negative one, and d_v
the standard deviation of the cosines of any two entities. Of V views, with a strength c::

    z_v = (a_v - b_v) / d_v        w_v = V * exp(c * z_v) / sum_u exp(c * z_u)

The part v of the seeds' joint vectors is multiplied by w_v. A product with an entity's joint vector, which
stays as it is, is then the weighted mean of the views' cosines: a search costs what it did, also where the
index lies in parts or has codes. The weights have the mean 1, and are all 1 for queries without two positive
seeds or without a negative one.

Shape letters: D dimensions of the joint view, V views in it, P and M seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.retrieval.discriminant import DISCRIMINANT
from engine.retrieval.index import Index, Means, Vectors, unit
from engine.storage.bundle import Bundle, Manifest

JOINT = "joint"
"""The view that is made of others."""
SAMPLE = 512
"""Entities whose cosines' deviation is measured."""
MAPPED = "the joint view was made with the seeds of mined lists, so that its views cannot be weighed"
OTHERS = "the joint view is not of views of text alone, so that its views cannot be weighed"


@dataclass(frozen=True)
class ViewWeights:
    """The weights of a bundle's views for any query.

    Args:
        sizes: dimensions of each view, in their order in the joint one.
        deviations_V: of the cosines of two entities in each; 0: no entity has the view.
        strength: c.
    """

    sizes: tuple[int, ...]
    deviations_V: npt.NDArray[np.float64]
    strength: float

    @classmethod
    def measured(cls, index: Index, sizes: tuple[int, ...], n_entities: int, strength: float) -> ViewWeights:
        """Return the weights of an index, with deviations over a sample of its entities."""
        random = np.random.default_rng(13)
        sample = np.sort(random.choice(n_entities, min(SAMPLE, n_entities), replace=False))
        deviations = []
        for part in split(index.vectors_of(sample.tolist()), sizes):
            there = part[part.any(axis=1)]
            cosines = (there @ there.T)[~np.eye(len(there), dtype=bool)]
            deviations.append(float(cosines.std()) if len(cosines) else 0.0)
        return cls(sizes, np.array(deviations), strength)

    def of(self, positive_PD: Vectors, negative_MD: Vectors) -> npt.NDArray[np.float64]:
        """Return the weight of each view, [V]; the mean over views that entities have is 1.

        Args:
            positive_PD: joint vectors of the positive seeds; rows of zeros are left out.
            negative_MD: of the negative ones.
        """
        weights = np.ones(len(self.sizes))
        plus, minus = (own[own.any(axis=1)] for own in (positive_PD, negative_MD))
        told = self.deviations_V > 0
        if len(plus) < 2 or not len(minus) or not told.any():
            return weights
        apart = [
            _mean_of_pairs(p) - float((p @ m.T).mean())
            for p, m in zip(split(plus, self.sizes), split(minus, self.sizes), strict=True)
        ]
        scaled = self.strength * np.array(apart)[told] / self.deviations_V[told]
        raised = np.exp(scaled - scaled.max())
        weights[told] = told.sum() * raised / raised.sum()
        return weights

    def factors(self, positive_PD: Vectors, negative_MD: Vectors) -> Means:
        """Return what each dimension of the seeds' joint vectors is multiplied by, [D]."""
        return np.repeat(self.of(positive_PD, negative_MD), self.sizes)


def open_view_weights(
    bundle: Bundle, index: Index, view: str, strength: float
) -> tuple[ViewWeights | None, str]:
    """Return the weights of a bundle's views, and why there are none; None and "" where none are asked for.

    Args:
        bundle: whose manifest says what the joint view is made of.
        index: of that view.
        view: that a stage reads.
        strength: c; 0: none are asked for.

    Raises:
        BundleError: of another view than the joint one.
    """
    if not strength:
        return None, ""
    if view != JOINT:
        raise BundleError(f"view_weights: only the view {JOINT!r} is made of others, not {view!r}")
    sizes, why = parts_of_joint(bundle.manifest)
    if sizes is None:
        return None, why
    return ViewWeights.measured(index, sizes, len(bundle.vocabulary), strength), ""


def parts_of_joint(manifest: Manifest) -> tuple[tuple[int, ...] | None, str]:
    """Return the dimensions of the views within the joint one, in order; or None, and why not.

    The order is that of ``jobs.steps.views``.
    """
    if DISCRIMINANT in manifest.settings:
        return None, MAPPED
    sizes = manifest.settings.get("views")
    if not isinstance(sizes, Mapping):
        return None, OTHERS
    read = "contrast" if "contrast" in sizes else "mask"
    own = tuple(sizes[view] for view in (read, "adapted", "description", "lexical", "types") if view in sizes)
    return (own, "") if sum(own) == sizes.get(JOINT) and "multimodal" not in sizes else (None, OTHERS)


def split(vectors_nD: Vectors, sizes: tuple[int, ...]) -> list[Vectors]:
    """Return the unit vectors of each view out of joint vectors; zeros where one lacks the view."""
    edges = np.cumsum([0, *sizes])
    return [unit(vectors_nD[:, begin:end]) for begin, end in pairwise(edges.tolist())]


def _mean_of_pairs(vectors_nD: Vectors) -> float:
    """Return the mean product of two different rows."""
    products = vectors_nD @ vectors_nD.T
    return float(products[~np.eye(len(products), dtype=bool)].mean())
