"""Decide which entity an ambiguous place is of: the one whose other texts have most words in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from engine.text.words import words_of

_FEATURES = 1 << 18


def nearest_entities(
    sentences: Sequence[str], candidates: Sequence[Sequence[int]], texts: Mapping[int, Iterable[str]]
) -> npt.NDArray[np.int32]:
    """Return the entity of each sentence, int32 [n]; -1 where the words say nothing, or no more for one.

    The cosine of TF-IDF vectors of words, an entity's being the sum over its texts: a sentence's own words
    count as often as they are rare among the texts of all candidates.

    Args:
        sentences: with an ambiguous place each.
        candidates: the entities that each place may be of.
        texts: of every candidate: its other sentences, its description.
    """
    entities = sorted({entity for some in candidates for entity in some})
    row = {entity: place for place, entity in enumerate(entities)}
    hashing = HashingVectorizer(analyzer=words_of, n_features=_FEATURES, alternate_sign=False, norm=None)
    joined = [" ".join(texts.get(entity, ())) for entity in entities]
    weights = TfidfTransformer(sublinear_tf=True).fit(hashing.transform(joined))
    own = weights.transform(hashing.transform(joined))
    found = np.full(len(sentences), -1, np.int32)
    asked = weights.transform(hashing.transform(sentences))
    for place, some in enumerate(candidates):
        cosines = (own[[row[entity] for entity in some]] @ asked[place].T).toarray().ravel()
        best = int(cosines.argmax())
        if cosines[best] > 0 and (cosines == cosines[best]).sum() == 1:
            found[place] = some[best]
    return found
