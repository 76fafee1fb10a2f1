"""Lay the answers to queries out as a table: one row an answer, with its names, evidence and explanation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.catalogue.entities import Catalogue, Facet, Facets
from engine.queries.formats import RefusedQuery
from engine.query import Expansion, Ranking
from engine.vocabulary import Vocabulary

Places = npt.NDArray[np.int64]

_NEAREST = pa.struct([("id", pa.int32()), ("name", pa.string()), ("similarity", pa.float32())])
_TEXTS = pa.list_(pa.string())
EXPLANATION = pa.struct(
    [
        ("nearest_positive", _NEAREST),
        ("nearest_negative", _NEAREST),
        (
            "sentences",
            pa.list_(pa.struct([("text", pa.string()), ("start", pa.int32()), ("end", pa.int32())])),
        ),
        ("types", pa.struct([("shared", _TEXTS), ("positive", _TEXTS), ("negative", _TEXTS)])),
    ]
)
"""An explanation as over HTTP; the images of the entity are a column of their own."""

FACETS = pa.map_(
    pa.string(),
    pa.list_(pa.struct([("value", pa.string()), ("count", pa.int64()), ("entities", pa.int64())])),
)
"""Facets as over HTTP."""

SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("entity_id", pa.int32()),
        pa.field("name", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("evidence", pa.map_(pa.string(), pa.float32())),
        pa.field("degraded", pa.list_(pa.string())),
        pa.field("images", pa.list_(pa.string())),
        pa.field("reasoning", pa.map_(pa.string(), pa.string())),
        pa.field("counts", pa.map_(pa.string(), pa.int64())),
        pa.field("explanation", EXPLANATION),
        pa.field("facets", FACETS),
    ]
)
"""One row an answer, best first, ranks from 1. A query without any answer has one row of rank 0
whose entity is null: no query is missing. ``degraded`` says what was skipped for the query; ``images``
are addresses of images of the entity, empty in a bundle without images; ``reasoning`` is what a chain of
thought said of the wanted entities (``class_name``, ``positive``, ``negative``), empty without one;
``counts`` is what the stages counted of the answer, the same in each of its rows, empty but for methods that
count; ``explanation`` is null where the query did not ask for one; ``facets`` are in the first row of a
query that asked for them, and null elsewhere."""

IMAGES = 2
"""Images named of an entity, as in an explanation over HTTP."""

PIECE_ROWS = 1 << 17
"""Rows of a piece, about: Arrow addresses 2 GiB of text in one, and each row has what its query says."""


class Labels(NamedTuple):
    """The labels of entities: names, string [N], and addresses of images, list<string> [N]."""

    names: pa.Array
    images: pa.ListArray


class Result(NamedTuple):
    """What came of a query: an answer, or why there is none.

    ``explained`` is in the order of its entities; ``facets`` None: not asked for.
    """

    expansion: Expansion
    refusal: RefusedQuery | None = None
    explained: Sequence[dict[str, Any] | None] | None = None
    facets: Facets | None = None


def labels_of(vocabulary: Vocabulary, catalogue: Catalogue) -> Labels:
    """Return the names and the images by id. Reads from the disk."""
    return Labels(pa.array(vocabulary.names, pa.string()), catalogue.images(IMAGES))


def to_table(results: Sequence[Result], labels: Labels) -> pa.Table:
    """Return the answers of some queries as a table, see :data:`SCHEMA`.

    Each column is made at once for many of them: a table a query, and these put together, takes ten times as
    long, and is written in as many pieces.
    """
    pieces = [_piece(some, labels) for some in _pieces(results)]
    return pa.concat_tables(pieces or [SCHEMA.empty_table()])


def _pieces(results: Sequence[Result]) -> Iterator[Sequence[Result]]:
    """Yield neighbours that have :data:`PIECE_ROWS` together, or one and more."""
    some: list[Result] = []
    rows = 0
    for one in results:
        some.append(one)
        rows += len(one.expansion.ranking)
        if rows >= PIECE_ROWS:
            yield some
            some, rows = [], 0
    if some:
        yield some


def _piece(results: Sequence[Result], labels: Labels) -> pa.Table:
    """Return the answers of some queries in one piece."""
    # What was found before a query was refused is no answer.
    rankings = [one.expansion.ranking if one.refusal is None else Ranking.empty() for one in results]
    found_Q = np.array([len(ranking) for ranking in rankings], np.int64)
    rows_Q = np.maximum(found_Q, 1)
    query_R = np.repeat(np.arange(len(results)), rows_Q)
    first_Q = np.cumsum(rows_Q) - rows_Q
    empty_R = found_Q[query_R] == 0
    ids = pa.array(_filled([ranking.ids for ranking in rankings], np.int32), mask=empty_R)
    columns = [
        _of_queries([one.expansion.query.id for one in results], "query_id", query_R),
        pa.array(np.where(empty_R, 0, _ranks(results, query_R, first_Q))),
        ids,
        labels.names.take(ids),
        pa.array(_filled([ranking.scores for ranking in rankings], np.float32), mask=empty_R),
        _evidence(rankings, empty_R),
        _of_queries([_degraded(one) for one in results], "degraded", query_R),
        _images(labels.images, ids),
        _of_queries([[*one.expansion.reasoning.items()] for one in results], "reasoning", query_R),
        _of_queries([[*one.expansion.counts.items()] for one in results], "counts", query_R),
        _explanations(results, rows_Q),
        _facets(results, first_Q, len(query_R)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _ranks(results: Sequence[Result], query_R: Places, first_Q: Places) -> npt.NDArray[np.int32]:
    """Return the rank of each row, were all of them answers."""
    offset_Q = np.array([one.expansion.query.selection.offset for one in results], np.int64)
    return (np.arange(len(query_R)) - (first_Q - offset_Q - 1)[query_R]).astype(np.int32)


def _filled(values: Sequence[npt.NDArray[Any]], kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return the values of rankings one after the other, with one of no meaning where there are none."""
    return np.concatenate([one if len(one) else np.zeros(1, kind) for one in values])


def _degraded(result: Result) -> list[str]:
    return list(result.expansion.degraded) if result.refusal is None else [result.refusal.reason]


def _of_queries(values: list[Any], column: str, query_R: Places) -> pa.Array:
    """Return a column that has the same value in each row of a query."""
    return pa.array(values, SCHEMA.field(column).type).take(pa.array(query_R))


def _evidence(rankings: Sequence[Ranking], empty_R: npt.NDArray[np.bool_]) -> pa.MapArray:
    """Return the evidence of each row, null where there is no answer."""
    names = list(dict.fromkeys(name for ranking in rankings for name in ranking.evidence))
    place = {name: number for number, name in enumerate(names)}
    keys, values, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], []
    for ranking in rankings:
        n, own = len(ranking), list(ranking.evidence)
        sizes.append(np.full(max(n, 1), len(own) if n else 0))
        keys.append(np.tile([place[name] for name in own], n).astype(np.int64))
        values.append(np.array([ranking.evidence[name] for name in own], np.float32).T.ravel())
    ends_R = np.cumsum(np.concatenate(sizes))
    offsets = pa.array(np.append(0, ends_R).astype(np.int32), mask=np.append(empty_R, False))
    taken = pa.array(names, pa.string()).take(pa.array(np.concatenate(keys)))
    return pa.MapArray.from_arrays(offsets, taken, pa.array(np.concatenate(values)))


def _images(images: pa.ListArray, ids: pa.Array) -> pa.ListArray:
    """Return the images of each row's entity, none where there is no entity."""
    taken = images.take(ids)
    lengths = taken.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, taken.flatten())


def _explanations(results: Sequence[Result], rows_Q: Places) -> pa.Array:
    """Return the explanation of each row, null where none was asked for, or there is no answer."""
    if not any(one.explained and one.refusal is None for one in results):
        return pa.nulls(int(rows_Q.sum()), EXPLANATION)
    each = (
        one.explained if one.explained and one.refusal is None else [None] * rows
        for one, rows in zip(results, rows_Q.tolist(), strict=True)
    )
    return pa.array(list(chain.from_iterable(each)), EXPLANATION)


def _facets(results: Sequence[Result], first_Q: Places, rows: int) -> pa.Array:
    """Return the facets of each query in its first row, null elsewhere."""
    values: list[list[tuple[str, list[Facet]]] | None] = [None] * rows
    for one, first in zip(results, first_Q.tolist(), strict=True):
        if one.facets is not None and one.refusal is None:
            values[first] = list(one.facets.items())
    return pa.array(values, FACETS)
