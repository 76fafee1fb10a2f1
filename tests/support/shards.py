"""Parts of an index in this process."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from engine.retrieval.index import index_file
from engine.retrieval.shards import IndexShard, ShardedIndex
from engine.storage.bundle import Bundle


class Here:
    """The way to parts in this process. What passes is pickled, as between processes; calls are counted."""

    def __init__(self, parts: Sequence[IndexShard]) -> None:
        self.parts, self.calls = parts, 0

    def call(self, requests: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        """See :class:`engine.retrieval.shards.Shards`."""
        self.calls += 1
        sent = pickle.loads(pickle.dumps(list(requests)))
        answers = [getattr(self.parts[part], method)(*arguments) for part, method, arguments in sent]
        found: list[Any] = pickle.loads(pickle.dumps(answers))
        return found


def provide_shards(bundle: Bundle, view: str, parts: int) -> Here:
    """Put a view in parts in the place of the bundle's file, and return the way to them."""
    path = bundle.path(index_file(view))
    here = Here([IndexShard.read(path, part, parts) for part in range(parts)])
    bundle.provide(index_file(view), ShardedIndex.connect(here, parts))
    here.calls = 0
    return here
