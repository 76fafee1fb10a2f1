"""The joint view made plainly: all views in memory, changed as wholes."""

from collections.abc import Sequence

import numpy as np

from engine.retrieval.index import Vectors, unit


def plain_centred(vectors_ND: Vectors) -> Vectors:
    """Return unit vectors after the mean over all entities that have one is taken off."""
    present = np.asarray(vectors_ND.any(axis=1))
    if not present.any():
        return vectors_ND
    # In float64: of vectors that are all alike nothing is left but the rounding of their mean.
    mean_D = vectors_ND[present].mean(axis=0, dtype=np.float64).astype(np.float32)
    return unit(np.where(present[:, None], vectors_ND - mean_D, 0))


def plain_joint(views: Sequence[Vectors]) -> Vectors:
    """Return unit vectors, the views side by side."""
    return unit(np.concatenate(views, axis=1))
