"""Score which of several candidate images goes with a sentence and its entity (MESED, equation 1).

    score(v, t, e) = alpha * cos(CLIP(v), CLIP(t)) + (1 - alpha) * max over o in Obj(v) of cos(o, Img(e))

The first term asks whether the image fits the sentence, the second whether the entity is in it. Knows vectors
only: where they come from is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.images.selection.settings import ALPHA

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """The scores of n candidates; ``similarity`` is None where there is no typical image."""

    agreement: Floats
    """Cosine of image and sentence, [n]."""
    similarity: Floats | None
    """Cosine of the most similar object to the typical image, [n]."""
    score: Floats
    """Weighted sum, [n]."""

    def best_first(self) -> npt.NDArray[np.int64]:
        """Return the candidates by falling score, int64 [n]; at a tie the earlier one comes first."""
        return np.argsort(-self.score, kind="stable").astype(np.int64)


def score_candidates(
    text: Floats,
    images: Floats,
    objects: Sequence[Floats] | None,
    typical: Floats | None,
    alpha: float = ALPHA,
) -> Scores:
    """Return the scores of a sentence's candidates (equation 1).

    Without a typical image there is no second term, and the score is the agreement alone.

    Args:
        text: vector of the sentence, [d].
        images: vectors of the candidates, in the space of the sentence, [n, d].
        objects: for each candidate the vectors of its objects, [k, c] with k >= 1; None: as without a typical
            image.
        typical: vector of a typical image of the entity, in the space of the objects, [c].
        alpha: weight of the agreement, 0 to 1.

    Raises:
        ValueError: alpha is not within 0 and 1, or a candidate has no object.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be within 0 and 1")
    agreement = _cosines(images, text)
    if typical is None or objects is None:
        return Scores(agreement, None, agreement)
    similarity = np.array([_cosines(some, typical).max() for some in objects], np.float32)
    score = np.float32(alpha) * agreement + np.float32(1 - alpha) * similarity
    return Scores(agreement, similarity, score)


def _cosines(rows: Floats, vector: Floats) -> Floats:
    """Return the cosine of each row, [n, d], to a vector, [d]; 0 where one of them has no length."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
    # A row at a time, so that a candidate's score does not depend on the others.
    products = np.array([row @ vector for row in rows], np.float32)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return cosines.clip(-1, 1)  # rounding may leave a little more
