"""Make the codes of a view, choose how many of their lists a query reads, and measure what that loses.

The k-means of the lists sees a sample of the vectors. Recall is the share of the :data:`K` nearest that the
search by codes returns, over queries that are means of an entity and two of its neighbours, as the seeds of
a class are. Half of the queries choose the number of lists; the figure is that of the other half.

Shape letters: N entities, S of a sample, Q queries, D dimensions, P dimensions of a code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.memory import memory_limit
from engine.query import Ids, Scores
from engine.retrieval.codes import EXACT, PQ, SQ8, Codes, K, faiss_library
from engine.retrieval.index import Means, SearchResult, VectorIndex, Vectors, have_vectors, mean_of
from engine.retrieval.shards import IndexShard, ShardedIndex
from engine.storage.reading_order import in_order, read_singly

AUTO = "auto"
KINDS = (AUTO, EXACT, SQ8, PQ)

EXACT_BYTES = 1 << 30
"""Vectors up to so many bytes are searched exactly: reading all takes a tenth of a second."""

MIN_ENTITIES = 10_000
"""Fewer entities with a vector are searched exactly, whatever was asked for: there is nothing to gain."""

BAR = 0.99
"""Recall that is wanted."""

AIM = 0.993
"""Recall that the number of lists is chosen for: the other half of the queries may lie a little lower."""

QUERIES = 200
NEAR = 50
"""Neighbours of an entity among which the other seeds of its query are drawn."""

SEEDS = 3
HUBNESS = 0.6
"""Weight of hubness that recall is measured with too, where the view has it: that of `default`."""

SAMPLE = 64
"""Vectors a list that k-means sees."""

ROUNDS = 10
BLOCK = 1 << 15
MULTIPLE = 16
"""A code's dimensions are a multiple of this: FAISS' wide instructions want it."""

BYTES_A_DIMENSION = {SQ8: 1.0, PQ: 0.25}


@dataclass(frozen=True)
class CodesReport:
    """The codes of a view as they were made and measured.

    Attributes:
        kind: of code.
        lists: of the inverted file.
        probes: lists that a query reads.
        ratio: candidates that are scored exactly, for each entity wanted.
        code_bytes: of all codes.
        recall: share of the 200 nearest that are found.
        recall_hubness: the same with hubness taken off; None: the view has none.
        queries: that the recall was measured on.
    """

    kind: str
    lists: int
    probes: int
    ratio: int
    code_bytes: int
    recall: float
    recall_hubness: float | None
    queries: int

    @property
    def least(self) -> float:
        """The lower one of the two figures."""
        return self.recall if self.recall_hubness is None else min(self.recall, self.recall_hubness)

    def record(self) -> dict[str, Any]:
        """Return it for a manifest."""
        return asdict(self)


def kind_for(asked: str, entities: int, dimensions: int, memory: int | None = None) -> str:
    """Return the kind of index that a view gets.

    Args:
        asked: one of :data:`KINDS`.
        entities: with a vector.
        dimensions: of these.
        memory: bytes of the machine, of which codes of one byte a dimension may take a quarter; default:
            :func:`engine.memory.memory_limit`.
    """
    if entities < MIN_ENTITIES or (asked == AUTO and 4 * entities * dimensions <= EXACT_BYTES):
        return EXACT
    if asked != AUTO:
        return asked
    memory = memory_limit() if memory is None else memory
    return SQ8 if entities * dimensions <= memory // 4 else PQ


def make_codes(vectors_ND: Vectors, hubness_N: Scores | None, kind: str, seed: int = 13) -> Codes:
    """Return the codes of all entities that have a vector; see :func:`train_codes` and :func:`fill_codes`."""
    codes = train_codes(vectors_ND, hubness_N, kind, seed)
    fill_codes(codes, vectors_ND, hubness_N)
    return codes


def train_codes(vectors_ND: Vectors, hubness_N: Scores | None, kind: str, seed: int = 13) -> Codes:
    """Return codes of no entity yet, whose lists are made; a query reads one list until that is changed.

    Args:
        vectors_ND: unit vectors, zeros for an entity without one; at least one is not.
        hubness_N: of the entities; None: the view has none.
        kind: of code.
        seed: of the sample and of k-means.
    """
    faiss = faiss_library()
    present = np.flatnonzero(have_vectors(vectors_ND))
    lists = max(1, min(round(2 * len(present) ** 0.5), len(present) // 39))
    random = np.random.default_rng(seed)
    sample = np.sort(random.choice(present, min(len(present), SAMPLE * lists), replace=False))
    dimensions = vectors_ND.shape[1]
    with in_order(vectors_ND):
        drawn_SD = vectors_ND[sample]
    # Lists are of directions alone: the centroids' hubness is 0, and all of an entity's is in its code.
    means = faiss.Kmeans(dimensions, lists, niter=ROUNDS, spherical=True, seed=seed)
    means.cp.max_points_per_centroid = SAMPLE
    means.train(drawn_SD)
    width = -(-(dimensions + (hubness_N is not None)) // MULTIPLE) * MULTIPLE
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(_filled(means.centroids, None, width))
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == PQ:
        index = faiss.IndexIVFPQ(quantizer, width, lists, width // 4, 8, metric)
    else:
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, width, lists, faiss.ScalarQuantizer.QT_8bit, metric, True
        )
    index.train(_filled(drawn_SD, _of(hubness_N, sample), width))
    return Codes(index)


def fill_codes(
    codes: Codes,
    vectors_ND: Vectors,
    hubness_N: Scores | None,
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Put the codes of all entities that have a vector into those that were trained.

    Args:
        codes: of no entity yet; are changed.
        vectors_ND, hubness_N: as for :func:`train_codes`.
        progress: called with numbers of entities that have got their code.
    """
    present, width = np.flatnonzero(have_vectors(vectors_ND)), codes.index.d
    with in_order(vectors_ND):
        for start in range(0, len(present), BLOCK):
            ids = present[start : start + BLOCK]
            codes.index.add_with_ids(_filled(vectors_ND[ids], _of(hubness_N, ids), width), ids)
            progress(len(ids))


def tune_codes(codes: Codes, index: VectorIndex, has_hubness: bool, seed: int = 13) -> CodesReport:
    """Set the number of lists that a query reads, so that recall is :data:`AIM` if need be with all of them.

    Args:
        codes: are changed.
        index: the vectors, whose exact search is the truth. Where they are mapped, they are read singly
            from now on.
        has_hubness: measure with hubness taken off, too.
        seed: of the queries.
    """
    read_singly(index.vectors_ND)
    weights = (0.0, HUBNESS) if has_hubness else (0.0,)
    queries_QD = seed_means(index, codes.ids(), QUERIES, seed)
    nothing: list[list[int]] = [[]] * len(queries_QD)
    truth = {w: index.search(queries_QD, K, nothing, hubness=w) for w in weights}

    def recall(which: slice, weight: float) -> float:
        search = ShardedIndex.of(IndexShard(0, index, codes)).search
        found = search(queries_QD[which], K, nothing[which], hubness=weight)
        pairs = zip(found, truth[weight][which], strict=True)
        return float(np.mean([len(np.intersect1d(a.ids, b.ids)) / len(b.ids) for a, b in pairs]))

    first, second = slice(0, None, 2), slice(1, None, 2)
    lists = codes.settings.lists
    probes = max(_lists_needed(codes, index, queries_QD[first], truth[weight][first]) for weight in weights)
    codes.set_probes(probes)
    while probes < lists and min(recall(first, weight) for weight in weights) < AIM:
        probes = min(lists, probes + max(1, probes // 8))  # what codes lose, more candidates make good
        codes.set_probes(probes)
    settings = codes.settings
    return CodesReport(
        kind=codes.kind,
        lists=lists,
        probes=probes,
        ratio=settings.ratio,
        code_bytes=codes.bytes,
        recall=recall(second, 0),
        recall_hubness=recall(second, HUBNESS) if has_hubness else None,
        queries=len(range(*second.indices(len(queries_QD)))),
    )


def _lists_needed(codes: Codes, index: VectorIndex, queries_QD: Means, truth: list[SearchResult]) -> int:
    """Return how many of its nearest lists a query must read to meet a share of :data:`AIM` of the truth."""
    ranks = []
    for mean_D, found in zip(queries_QD, truth, strict=True):
        order = codes.nearest_lists(mean_D[None], codes.settings.lists)[0]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        ranks.append(place[codes.nearest_lists(index.vectors_of(found.ids.tolist()), 1)[:, 0]])
    in_order = np.sort(np.concatenate(ranks))
    return int(in_order[int(np.ceil(AIM * len(in_order))) - 1]) + 1


def write_codes(codes: Codes, path: Path) -> None:
    """Write codes, with the number of lists that a query reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    faiss_library().write_index(codes.index, str(path))


def seed_means(index: VectorIndex, present: Ids, queries: int, seed: int = 13) -> Means:
    """Return queries as those of classes are, [Q, D]: means of an entity and two of its nearest, all drawn.

    Args:
        index: of the view.
        present: the entities that have a vector.
        queries: wanted.
        seed: of what is drawn.
    """
    random = np.random.default_rng(seed)
    drawn = random.choice(present, min(queries, len(present)), replace=False)
    near = index.search(index.vectors_of(drawn.tolist()).astype(np.float64), NEAR, [[i] for i in drawn])
    found = []
    for entity, neighbours in zip(drawn.tolist(), near, strict=True):
        others = random.permutation(neighbours.ids)[: SEEDS - 1].tolist()
        found.append(mean_of(index.vectors_of([entity, *others])))
    return np.stack(found)


def _of(hubness_N: Scores | None, ids: npt.NDArray[np.int64]) -> Scores | None:
    return None if hubness_N is None else hubness_N[ids]


def _filled(vectors_nD: Vectors, hubness_n: Scores | None, width: int) -> Vectors:
    """Return vectors, hubness and zeros side by side, [n, width]."""
    filled = np.zeros((len(vectors_nD), width), np.float32)
    filled[:, : vectors_nD.shape[1]] = vectors_nD
    if hubness_n is not None:
        filled[:, vectors_nD.shape[1]] = hubness_n
    return filled
