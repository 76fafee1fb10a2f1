"""Search exactly by mean cosine over one view of all entities, stored as a flat FAISS index.

Mean cosine to m seeds is one product with the mean of their unit vectors (RetExpan, equation 5), so a
query costs one pass over the matrix and a batch of queries costs one matrix product.

Stages see an :class:`Index`: the whole matrix (:class:`VectorIndex`), or parts of it that lie elsewhere or
have codes (:class:`engine.retrieval.shards.ShardedIndex`). Its methods take a batch, so that a batch of
queries costs no more calls than one query. :func:`engine.retrieval.opening.open_index` opens a bundle's.

Shape letters: N entities, Q queries, M vectors, D dimensions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError, QueryError
from engine.query import Ids, Query, Scores, Weights
from engine.retrieval.fast_products import Asked, nearest_candidates
from engine.retrieval.shared_vectors import shared_vectors
from engine.storage.bundle import Bundle, Manifest
from engine.storage.reading_order import in_order, map_array

if TYPE_CHECKING:  # loaded with the first index: what only describes a pipeline does without
    import faiss

Vectors = npt.NDArray[np.float32]
Means = npt.NDArray[np.float64]

FEW = 32
"""One in so many entities: up to this share they are scored one by one; for more the product with all is
quicker, as a batch of queries shares it."""


_NUMBER_AT = 8
"""Where the number of vectors stands in a flat FAISS index: behind the kind, and the dimensions."""

UNIT_ROWS = 1 << 14
"""Rows that are scaled at a time."""


class SearchResult(NamedTuple):
    """The result of a search: ids, scores, and the products before the hubness penalty, [n] each."""

    ids: Ids
    scores: Scores
    products: Scores

    def best(self, k: int) -> SearchResult:
        """Return the k with the largest scores, best first, ties by id."""
        order = np.lexsort((self.ids, -self.scores))[:k]
        return SearchResult(self.ids[order], self.scores[order], self.products[order])


class Index(Protocol):
    """One view of all entities. New entities (negative ids) are not in it."""

    def vectors_of(self, entity_ids: Sequence[int]) -> Vectors:
        """Return the unit vectors of some entities, [n, D]; zeros for one without a vector."""

    def similarities(self, asked: Sequence[tuple[Ids, Means]]) -> list[Scores]:
        """Return for each (entities [n], vectors [M, D]) their products, float32 [n, M].

        Summed in float64 entity by entity, so that a query's scores depend neither on what else is
        in its batch nor on where the entity lies: the three runtimes give identical rankings.
        """

    def search(
        self,
        means_QD: Means,
        k: int,
        exclude: Sequence[Sequence[int]],
        among: Sequence[Ids | None] | None = None,
        hubness: float = 0,
        exact: bool = False,
    ) -> list[SearchResult]:
        """Return for each query the k entities with the largest score, best first, ties by id.

        Args:
            means_QD: one vector a query.
            k: entities wanted; fewer are returned where fewer have a vector.
            exclude: for each query the ids that must not be returned.
            among: for each query the ids, each once, that are searched; None: all.
            hubness: share of an entity's hubness that is taken off its product.
            exact: score every entity also where the view has codes; without them that is done anyway.
        """


def index_file(view: str) -> str:
    """Return the name of the bundle's file that holds a view."""
    return f"index/{view}.faiss"


def views_of(manifest: Manifest) -> list[str]:
    """Return the views that a bundle holds, by name."""
    return sorted(view for name in manifest.files if name == index_file(view := Path(name).stem))


def dimension_of(path: Path) -> int:
    """Return the dimension of the vectors of a flat index, of which nothing else is read."""
    with path.open("rb") as file:
        return int(struct.unpack_from("<i", file.read(_NUMBER_AT), _NUMBER_AT - 4)[0])


def check_vectors(bundle: Bundle, query: Query) -> None:
    """Refuse vectors given as seeds that a bundle's views do not have.

    Raises:
        QueryError: no such view, or another number of dimensions; begins with the seed's name.
    """
    for one in query.new:
        for view, vector in one.vectors.items() if one.is_given else ():
            if view not in (views := views_of(bundle.manifest)):
                raise QueryError(f"{one.name}: the bundle has no view {view!r}; it has {', '.join(views)}")
            if len(vector) != (d := dimension_of(bundle.path(index_file(view)))):
                raise QueryError(
                    f"{one.name}: a vector of the view {view!r} has {d} numbers, not {len(vector)}"
                )


def hubness_file(view: str) -> str:
    """Return the name of the bundle's file that holds a view's hubness, float32 [N]."""
    return f"index/{view}.hubness.npy"


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return rows scaled to length 1; a row of zeros (an entity without a sentence) stays zero.

    Beside the result, memory is that of some rows.
    """
    found = np.empty(vectors.shape, np.float32)
    dim = vectors.shape[-1]
    rows, own = found.reshape(-1, dim), vectors.reshape(-1, dim)
    for start in range(0, len(rows), UNIT_ROWS):
        some = own[start : start + UNIT_ROWS]
        norms = np.linalg.norm(some, axis=-1, keepdims=True)
        rows[start : start + UNIT_ROWS] = some / np.where(norms > 0, norms, 1)
    return found


def mean_of(vectors_MD: Vectors, weights_M: Weights | None = None) -> Means:
    """Return the mean of some unit vectors, [D] float64; zeros for none.

    Rows of zeros are left out, so that they do not draw the mean towards zero.

    Args:
        vectors_MD: the vectors.
        weights_M: how much each counts, above 0; None: all alike.
    """
    present_M = vectors_MD.any(axis=1)
    used = vectors_MD[present_M]
    if not len(used):
        return np.zeros(vectors_MD.shape[1])
    if weights_M is None:
        return used.astype(np.float64).mean(axis=0)
    return np.average(used.astype(np.float64), axis=0, weights=weights_M[present_M])


def seed_vectors(index: Index, view: str, asked: Sequence[tuple[Query, Sequence[int]]]) -> list[Vectors]:
    """Return the vectors of some seeds of each query, [M, D] each: one call for all of them.

    A new entity's are its own. Rows of zeros are seeds without a vector in the view.
    """
    known_MD = index.vectors_of([i for _, seeds in asked for i in seeds if i >= 0])
    found, start = [], 0
    for query, seeds in asked:
        is_known = np.asarray(seeds, np.int64) >= 0
        end = start + int(is_known.sum())
        vectors_MD = np.zeros((len(seeds), known_MD.shape[1]), np.float32)
        vectors_MD[is_known] = known_MD[start:end]
        for place in np.flatnonzero(~is_known).tolist():
            vectors_MD[place] = query.new[-1 - seeds[place]].vectors.get(view, 0)
        found.append(vectors_MD)
        start = end
    return found


class _Borrowed:
    """The vectors of a FAISS index; every array made from this keeps the index alive."""

    def __init__(self, index: faiss.IndexFlat) -> None:
        import faiss

        self.index = index
        vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        shaped = vectors.reshape(index.ntotal, index.d)
        self.__array_interface__ = shaped.__array_interface__


def read_vectors(path: Path, mapped: bool = False) -> Vectors:
    """Return the vectors of a flat inner-product index, [N, D], in place.

    Args:
        path: the index.
        mapped: of the file only what is looked at is read. (Not by FAISS, whose own map never reads ahead:
            on a disk of 1.4 GB/s it gives 0.06.)

    Raises:
        BundleError: another kind of index.
    """
    import faiss

    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleError(f"{path.name}: not a flat inner-product index; build it again")
    if mapped:
        return map_array(path, np.float32, (index.ntotal, index.d))
    return np.asarray(_Borrowed(index))


def have_vectors(vectors_ND: Vectors) -> npt.NDArray[np.bool_]:
    """Return which entities have a vector, [N]: the rows that are not all zeros."""
    with in_order(vectors_ND):
        return np.asarray(vectors_ND.any(axis=1))


def write_vectors(path: Path, blocks: Iterable[Vectors], shape: tuple[int, ...]) -> None:
    """Write a flat inner-product index as FAISS does, which would hold all vectors a second time.

    Args:
        path: of the index.
        blocks: rows after one another.
        shape: of all together, [N, D].
    """
    import faiss

    n, d = shape
    # What FAISS writes of an index without a vector ends in how many numbers follow; both are set here.
    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(d)).tobytes())
    struct.pack_into("<q", header, _NUMBER_AT, n)
    struct.pack_into("<q", header, len(header) - 8, n * d)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        written = sum(file.write(np.ascontiguousarray(one, "<f4").data) for one in blocks)
    if written != n * d * 4:
        raise ValueError(f"{path.name}: {written} bytes of vectors, and {n} x {d} are {n * d * 4}")


def map_hubness(path: Path) -> Scores | None:
    """Return the hubness that lies beside an index, float32 [N], mapped; None if there is none."""
    beside = path.with_suffix(".hubness.npy")
    return np.load(beside, mmap_mode="r", allow_pickle=False) if beside.exists() else None


class VectorIndex:
    """Unit vectors of all entities, [N, D] float32. Rows of zeros are entities that cannot be found.

    Args:
        vectors_ND: the vectors.
        hubness_N: each entity's hubness; None: no entity is a hub.
        absent: the rows of zeros, where they are known; None: all vectors are looked through.
    """

    def __init__(
        self, vectors_ND: Vectors, hubness_N: Scores | None = None, absent: Ids | None = None
    ) -> None:
        self.vectors_ND = vectors_ND
        self._hubness_N = np.zeros(len(vectors_ND), np.float32) if hubness_N is None else hubness_N
        self._absent = np.flatnonzero(~have_vectors(vectors_ND)) if absent is None else absent

    @classmethod
    def read(cls, path: Path) -> VectorIndex:
        """Read a flat inner-product index, whose vectors the processes of a machine share, and its hubness.

        Raises:
            BundleError: another kind of index.
        """
        return cls(shared_vectors(path, read_vectors), map_hubness(path))

    def write(self, path: Path) -> None:
        """Write the vectors as a flat FAISS index."""
        write_vectors(path, [self.vectors_ND], self.vectors_ND.shape)

    def __len__(self) -> int:
        return len(self.vectors_ND)

    def vectors_of(self, entity_ids: Sequence[int]) -> Vectors:
        """See :class:`Index`."""
        return self.vectors_ND[np.asarray(entity_ids, np.int64)]

    def similarities(self, asked: Sequence[tuple[Ids, Means]]) -> list[Scores]:
        """See :class:`Index`."""
        return [self._products(ids, vectors_MD) for ids, vectors_MD in asked]

    def search(
        self,
        means_QD: Means,
        k: int,
        exclude: Sequence[Sequence[int]],
        among: Sequence[Ids | None] | None = None,
        hubness: float = 0,
        exact: bool = False,
    ) -> list[SearchResult]:
        """See :class:`Index`."""
        among = among or [None] * len(means_QD)
        penalty_N = np.asarray(hubness * self._hubness_N, np.float32) if hubness else None
        found: dict[int, SearchResult] = {}
        broad: list[int] = []
        for place, chosen in enumerate(among):
            if chosen is None or len(chosen) * FEW > len(self):
                broad.append(place)
                continue
            left_out = np.concatenate([self._absent, np.asarray(exclude[place], np.int64)])
            candidates = chosen[~np.isin(chosen, left_out)]
            found[place] = self.scored(candidates, means_QD[place], hubness).best(k)
        asked = [Asked(means_QD[p], np.asarray(exclude[p], np.int64), among[p]) for p in broad]
        near = nearest_candidates(self.vectors_ND, asked, k, self._absent, penalty_N)
        for place, candidates in zip(broad, near, strict=True):
            found[place] = self.scored(candidates, means_QD[place], hubness).best(k)
        return [found[place] for place in range(len(means_QD))]

    def scored(self, candidates: Ids, mean_D: Means, hubness: float) -> SearchResult:
        """Return candidates with their exact scores, in their order; see :meth:`search`."""
        products = self._products(candidates, mean_D[None])[:, 0]
        if not hubness:
            return SearchResult(candidates, products, products)
        penalty = np.asarray(hubness * self._hubness_N[candidates], np.float32)
        return SearchResult(candidates, products - penalty, products)

    def _products(self, entity_ids: Ids, vectors_MD: Means) -> Scores:
        chosen_ND = self.vectors_ND[entity_ids]
        products_NM = np.empty((len(entity_ids), len(vectors_MD)), np.float32)
        for place, vector_D in enumerate(vectors_MD):
            products_NM[:, place] = np.einsum("nd,d->n", chosen_ND, vector_D)
        return products_NM
