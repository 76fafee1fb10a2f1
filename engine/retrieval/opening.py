"""Open a view of a bundle: its vectors alone, which are searched exactly, or beside their codes."""

from __future__ import annotations

from pathlib import Path

from engine.overlay.state import overlay_of
from engine.retrieval.codes import find_codes
from engine.retrieval.index import Index, VectorIndex, index_file
from engine.retrieval.overlaid_index import OverlaidIndex
from engine.retrieval.shards import IndexShard, ShardedIndex
from engine.storage.bundle import Bundle


def open_index(bundle: Bundle, view: str) -> Index:
    """Return a view's index, with the entities of an overlay where the bundle has one.

    Raises:
        BundleError: the bundle lacks the view.
    """
    index, layer = bundle_index(bundle, view), overlay_of(bundle)
    return index if layer is None else OverlaidIndex(index, view, layer)


def bundle_index(bundle: Bundle, view: str) -> Index:
    """Return a view's index: the bundle's file, read once a process, or what was provided in its place.

    Raises:
        BundleError: the bundle lacks the view.
    """
    return bundle.once(index_file(view), read_index)


def read_index(path: Path) -> Index:
    """Read a view's index: its vectors, which processes share, or, where it has codes, mapped with these.

    Raises:
        BundleError: another kind of index.
    """
    if find_codes(path) is None:
        return VectorIndex.read(path)
    return ShardedIndex.of(IndexShard.read(path, 0, 1))
