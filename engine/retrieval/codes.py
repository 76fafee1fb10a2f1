"""Find candidates among the codes of a large view; its vectors, mapped into memory, then score them exactly.

An inverted file: k-means cuts the vectors into lists. A query reads the codes of the lists whose centroids
it has the largest products with, and keeps more candidates than are wanted. Codes are of FAISS:

======= =============================================================================================
ivf-sq8 one byte a dimension: what the vector adds to its centroid, between each dimension's limits
ivf-pq  two bits a dimension: the nearest of 256 for every four dimensions together (Jégou and others, 2011)
======= =============================================================================================

An entity's hubness is one more dimension of its vector, which a query meets with minus its weight: so
candidates of every weight come from the same codes. There is no graph (HNSW) to choose: it cannot be cut by
ranges of entities, which is how a view is spread over nodes.

Shape letters: N entities, D dimensions, P dimensions of a code (with hubness, filled up with zeros).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids, Scores
from engine.retrieval.index import FEW, Means, Vectors

EXACT = "exact"
SQ8 = "ivf-sq8"
PQ = "ivf-pq"

K = 200
"""Entities wanted where recall is measured, and the number of lists that are read is chosen."""

RATIO = {SQ8: 2, PQ: 10}
"""Candidates for each entity wanted, by the kind of code. Each costs a row of vectors from memory or disk."""

WIDE = 8
"""One in so many entities: if more are candidates, reading all vectors in their order is no slower."""


def faiss_library() -> Any:
    """Return FAISS, loaded with the first index: its type hints lack what inverted files need."""
    import faiss

    return faiss


class SearchEffort(NamedTuple):
    """The number of lists that a search reads, and of candidates that it keeps."""

    lists: int
    candidates: int


class CodeSettings(NamedTuple):
    """A view's codes: the number of lists, how many are read for :data:`K` entities, candidates for each."""

    lists: int
    probes: int
    ratio: int

    def effort(self, entities: int, k: int, among: int | None) -> SearchEffort | None:
        """Return what a search takes; None: it had better be exact.

        Args:
            entities: of the view.
            k: wanted.
            among: entities that may be found; None: all. The fewer they are, the further out lie the k best.
        """
        if (among is not None and among * FEW <= entities) or k * self.ratio * WIDE > entities:
            return None
        reach = max(1.0, k / K * (1 if among is None else entities / among))
        return SearchEffort(min(self.lists, int(np.ceil(self.probes * reach))), k * self.ratio)

    def wider(self, effort: SearchEffort) -> SearchEffort | None:
        """Return what to try where an effort found too few; None: it read all lists."""
        if effort.lists >= self.lists:
            return None
        return effort._replace(lists=min(self.lists, 4 * effort.lists))


def codes_file(view: str) -> str:
    """Return the name of the bundle's file that holds the codes of a view, if it has any."""
    return f"index/{view}.codes"


def find_codes(path: Path) -> Path | None:
    """Return the file of codes that lies beside an index; None if there is none."""
    beside = path.with_suffix(".codes")
    return beside if beside.exists() else None


class Codes:
    """The codes of a view, or of some of its entities.

    Args:
        index: an inverted file of inner products, whose numbers are the entities' ids.
        name: of the file, for errors.

    Raises:
        BundleError: another kind of index.
    """

    def __init__(self, index: Any, name: str = "codes") -> None:
        faiss = faiss_library()
        coded = isinstance(index, faiss.IndexIVFScalarQuantizer | faiss.IndexIVFPQ)
        if not coded or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise BundleError(f"{name}: no codes that this program reads; build the index again")
        index.parallel_mode = 1  # one query uses all cores: it is searched for alone, see `nearest`
        self.index, self._name = index, name
        self._own_lists: Any = None

    @classmethod
    def read(cls, path: Path) -> Codes:
        """Open a file of codes, mapped into memory: processes of a machine share it.

        Raises:
            BundleError: another kind of index.
        """
        faiss = faiss_library()
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        found = cls(index, path.name)
        mapped = faiss.downcast_InvertedLists(index.invlists)
        if isinstance(mapped, faiss.OnDiskInvertedLists):
            mapped.prefetch_nthread = 0  # threads that would be started anew for every query
        return found

    def part(self, first: int, end: int) -> Codes:
        """Return the codes of the entities from ``first`` up to and without ``end``, read into memory.

        They come from this object's file, which is not to be used any more.
        """
        faiss = faiss_library()
        own = faiss.ArrayInvertedLists(self.index.nlist, self.index.code_size)
        self.index.invlists.copy_subset_to(own, faiss.InvertedLists.SUBSET_TYPE_ID_RANGE, first, end)
        self.index.replace_invlists(own, False)
        self.index.ntotal = own.compute_ntotal()
        cut = Codes(self.index, self._name)
        cut._own_lists = own  # which the index points to
        return cut

    @property
    def settings(self) -> CodeSettings:
        """What a search needs to know; see :class:`CodeSettings`."""
        return CodeSettings(self.index.nlist, self.index.nprobe, RATIO[self.kind])

    def set_probes(self, probes: int) -> None:
        """Set the number of lists that are read for :data:`K` entities."""
        self.index.nprobe = probes

    @property
    def bytes(self) -> int:
        """The bytes of all codes, without ids and centroids."""
        return int(self.index.ntotal * self.index.code_size)

    @property
    def kind(self) -> str:
        """The kind of code, by its name in the table above."""
        faiss = faiss_library()
        return PQ if isinstance(self.index, faiss.IndexIVFPQ) else SQ8

    def ids(self) -> Ids:
        """Return the entities that have a code, ascending: those that have a vector."""
        faiss = faiss_library()
        lists = self.index.invlists
        own = [
            faiss.rev_swig_ptr(lists.get_ids(place), lists.list_size(place)).copy()
            for place in range(self.index.nlist)
            if lists.list_size(place)
        ]
        return np.sort(np.concatenate([np.empty(0, np.int64), *own])).astype(np.int32)

    def nearest_lists(self, vectors_nD: Means | Vectors, count: int) -> npt.NDArray[np.int64]:
        """Return the lists that lie nearest to each vector, best first, int64 [n, count]."""
        padded_nP = np.zeros((len(vectors_nD), self.index.d), np.float32)
        padded_nP[:, : vectors_nD.shape[1]] = vectors_nD
        found: npt.NDArray[np.int64] = self.index.quantizer.search(padded_nP, count)[1]
        return found

    def nearest(
        self, mean_D: Means, hubness: float, effort: SearchEffort, exclude: Ids, among: Ids | None
    ) -> tuple[Ids, Scores]:
        """Return the entities of the largest estimated scores, and these, in no certain order.

        A query is searched for alone: what it gets does not depend on what is in its batch.

        Args:
            mean_D: the query.
            hubness: weight of an entity's hubness, which is taken off.
            effort: lists to read, and how many entities to return; fewer where the lists hold fewer.
            exclude: ids that are not to be returned.
            among: the ids that may be; None: all.
        """
        faiss = faiss_library()
        query_P = np.zeros((1, self.index.d), np.float32)
        query_P[0, : len(mean_D)] = mean_D
        if self.index.d > len(mean_D):
            query_P[0, len(mean_D)] = -hubness
        given = {} if among is None else {"sel": faiss.IDSelectorBitmap(_bits(among))}
        found = self.index.search(
            query_P,
            effort.candidates + len(exclude),
            params=faiss.SearchParametersIVF(nprobe=effort.lists, **given),
        )
        estimates, ids = found[0][0], found[1][0]
        kept = (ids >= 0) & ~np.isin(ids, exclude)
        return ids[kept].astype(np.int32), estimates[kept]


def _bits(ids: Ids) -> npt.NDArray[np.uint8]:
    """Return a bit for each id up to the largest, the lowest of a byte first."""
    chosen = np.zeros(int(ids.max(initial=0)) + 1, bool)
    chosen[ids] = True
    return np.packbits(chosen, bitorder="little")
