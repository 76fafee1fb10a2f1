"""Describe the rows of expansions as an Arrow table holds them."""

from __future__ import annotations

import pyarrow as pa

_FLOATS = pa.list_(pa.float32())
_ATTRIBUTES = pa.map_(pa.string(), pa.list_(pa.string()))
_NEW_ENTITY = pa.struct(
    [
        ("name", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("views", pa.list_(pa.string())),
        ("vectors", pa.list_(_FLOATS)),
    ]
)
EXPANSION_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("positive", pa.list_(pa.int32())),
        ("negative", pa.list_(pa.int32())),
        ("top_k", pa.int32()),
        ("filters", pa.string()),  # JSON
        ("new", pa.list_(_NEW_ENTITY)),
        ("options", pa.string()),  # JSON
        ("exclude", pa.list_(pa.int32())),
        ("selection", pa.string()),  # JSON
        ("weights", pa.string()),  # JSON
        ("context", pa.string()),  # JSON
        ("entity_ids", pa.list_(pa.int32())),
        ("scores", _FLOATS),
        ("evidence_names", pa.list_(pa.string())),
        ("evidence", pa.list_(_FLOATS)),
        ("seconds_names", pa.list_(pa.string())),
        ("seconds", pa.list_(pa.float64())),
        ("degraded", pa.list_(pa.string())),
        ("reasoning", pa.map_(pa.string(), pa.string())),
        ("class_name", pa.string()),
        ("positive_attributes", _ATTRIBUTES),
        ("negative_attributes", _ATTRIBUTES),
        ("counts", pa.map_(pa.string(), pa.int64())),
    ]
)
"""Schema of the rows of :func:`engine.query_rows.to_rows`."""
