"""Count the skip-grams of a part of a corpus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.query import Ids
from engine.retrieval.skipgrams import skipgrams_of
from engine.text.hashes import Hashes, hashes_of


class PartCounts(NamedTuple):
    """Pairs of a part: entities int32 [n], hashes of skip-grams uint64 [n], and their counts int32 [n]."""

    entities: Ids
    hashes: Hashes
    counts: Ids


def count_skipgrams(mentions: pa.Table) -> PartCounts:
    """Return how often each entity of some mentions was met with each skip-gram.

    A sentence with several images is one sentence; contexts that are an image alone have none.
    """
    texts: list[str] = []
    entities: list[int] = []
    seen: set[tuple[int, str, int]] = set()
    columns = (mentions[name].to_pylist() for name in ("entity_id", "sentence", "start", "end"))
    for entity, sentence, start, end in zip(*columns, strict=True):
        if end == 0 or (entity, sentence, start) in seen:
            continue
        seen.add((entity, sentence, start))
        found = skipgrams_of(sentence, start, end)
        texts += found
        entities += [entity] * len(found)
    owners, hashes = np.array(entities, np.int32), hashes_of(texts)
    order = np.lexsort((hashes, owners))
    owners, hashes = owners[order], hashes[order]
    new = np.ones(len(owners), bool)
    new[1:] = (owners[1:] != owners[:-1]) | (hashes[1:] != hashes[:-1])
    first = np.flatnonzero(new)
    counts = np.diff(np.append(first, len(owners)))
    return PartCounts(owners[first], hashes[first], counts.astype(np.int32))
