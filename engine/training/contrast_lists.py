"""Keep mined lists of ultra-fine contrastive learning: for each query L_pos, L_neg and what was recalled.

::

    contrast/<key>/lists.parquet   a row for each query
    contrast/<key>/manifest.json   what they were mined from and how; written last
    contrast/CURRENT               the key of what was mined last

The key is a digest of the lists' settings and of the corpus: the same mining again has the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from engine.corpus.schema import read_manifest
from engine.errors import FormatError, StorageError
from engine.query import Ids
from engine.storage.parts import MANIFEST, content_key, read_model, read_pointer, write_model, write_pointer
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace

LISTS = "lists.parquet"
NEWEST = "newest"
"""In place of a key: what was mined last."""

_WAY_OUT = "run `seedset mine-contrast --workspace WORKSPACE --queries QUERIES` again"
_IDS = ("positive", "negative", "pos_list", "neg_list", "recalled")
SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        *(pa.field(name, pa.list_(pa.int32()), nullable=False) for name in _IDS),
    ]
)


@dataclass(frozen=True)
class ContrastLists:
    """The lists of one query, entity ids, int32 (RetExpan, section 5.1.2).

    Args:
        query_id: of the query.
        positive: its positive seeds.
        negative: its negative seeds.
        pos_list: L_pos, the positive seeds and what agrees with them.
        neg_list: L_neg, the negative seeds and what agrees with these.
        recalled: L_0, what an expansion recalled; all others are of other fine-grained classes.
    """

    query_id: str
    positive: Ids
    negative: Ids
    pos_list: Ids
    neg_list: Ids
    recalled: Ids


class ContrastManifest(BaseModel):
    """The manifest of some lists."""

    model_config = ConfigDict(frozen=True)

    corpus_digest: str
    lineage: str = ""
    """What the corpus has in common with those that grow from it, in which the ids mean the same."""
    settings: dict[str, Any]
    """Of the mining, whatever says how the lists were made."""
    queries: int


def write_lists(path: Path, lists: Sequence[ContrastLists]) -> None:
    """Write lists into one Parquet file, a row for each query.

    Raises:
        FormatError: two have the same query id.
    """
    _check_distinct(path, [one.query_id for one in lists])
    columns: dict[str, list[Any]] = {
        field.name: [getattr(one, field.name) for one in lists] for field in fields(ContrastLists)
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path)


def read_lists(path: Path, n_entities: int | None = None) -> list[ContrastLists]:
    """Read the lists of a Parquet file.

    Args:
        path: as :func:`write_lists` writes it.
        n_entities: size of the vocabulary, which ids are checked against; None: they are not.

    Raises:
        FormatError: it is no such file, or names entities that there are not; says which query.
    """
    try:
        table = pq.read_table(path, columns=SCHEMA.names).cast(SCHEMA)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise FormatError(f"{path}: no file of contrast lists ({error}); {_WAY_OUT}") from None
    found = []
    for row in table.to_pylist():
        if any(row[name] is None or None in row[name] for name in _IDS) or row["query_id"] is None:
            raise FormatError(f"{path}, query {row['query_id']!r}: a list is missing; {_WAY_OUT}")
        ids = {name: np.array(row[name], np.int32) for name in _IDS}
        for name, own in ids.items():
            outside = own[(own < 0) | (own >= (n_entities if n_entities is not None else own + 1))]
            if len(outside):
                raise FormatError(
                    f"{path}, query {row['query_id']!r}: {name} names entity {outside[0]}, and there are "
                    f"{n_entities if n_entities is not None else 'none below 0'}; {_WAY_OUT}"
                )
        found.append(ContrastLists(row["query_id"], **ids))
    _check_distinct(path, [one.query_id for one in found])
    return found


def _check_distinct(path: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise FormatError(f"{path}: two rows are of query {name!r}")
        seen.add(name)


def lists_key(corpus_digest: str, settings: Mapping[str, Any]) -> str:
    """Return the folder name of lists that are mined from a corpus by some settings."""
    return content_key(corpus_digest, to_json(dict(sorted(settings.items()))))


def publish_lists(workspace: Workspace, lists: Sequence[ContrastLists], settings: Mapping[str, Any]) -> str:
    """Write lists into the workspace, make them the newest, and return their key.

    Args:
        workspace: receives ``contrast/<key>``.
        lists: of all queries.
        settings: of the mining, its queries among them: what tells these lists from others.
    """
    corpus = read_manifest(workspace)
    key = lists_key(corpus.digest, settings)
    folder = workspace.contrast(key)
    with (folder / LISTS).writing() as path:
        write_lists(path, lists)
    manifest = ContrastManifest(
        corpus_digest=corpus.digest, lineage=corpus.line, settings=dict(settings), queries=len(lists)
    )
    write_model(folder / MANIFEST, manifest)
    write_pointer(workspace.contrast(), key)
    return key


@dataclass(frozen=True)
class MinedLists:
    """Lists of a workspace: their key, their manifest, and the file."""

    key: str
    manifest: ContrastManifest
    file: Store

    def read(self, n_entities: int | None = None) -> list[ContrastLists]:
        """Return the lists, their ids checked against the size of the vocabulary if that is given."""
        return read_lists(Path(self.file.local_copy(machine_cache())), n_entities)


def open_lists(workspace: Workspace, key: str = NEWEST) -> MinedLists:
    """Return lists of a workspace.

    Args:
        workspace: where they were mined.
        key: of the lists, a folder below ``contrast``; "newest": what was mined last.

    Raises:
        StorageError: there are none, or they are of a corpus that the workspace's did not grow from.
    """
    way_out = f"run `seedset mine-contrast --workspace {workspace.root.uri} --queries QUERIES` first"
    named = read_pointer(workspace.contrast()) if key == NEWEST else key
    if named is None:
        raise StorageError(f"{workspace.root.uri}: no contrast lists here yet; {way_out}")
    folder = workspace.contrast(named)
    if not (folder / MANIFEST).exists():
        raise StorageError(f"{folder.uri}: no contrast lists of this key, or not whole; {way_out}")
    manifest = read_model(folder / MANIFEST, ContrastManifest, way_out)
    corpus = read_manifest(workspace)
    if corpus.digest != manifest.corpus_digest and corpus.line != manifest.lineage:
        raise StorageError(
            f"{folder.uri}: mined from another corpus than the one that is there now; {way_out}"
        )
    return MinedLists(named, manifest, folder / LISTS)
