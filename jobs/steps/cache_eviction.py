"""Remove copies of objects and bundles out of buckets that a machine's cache can do without, on every node.

A copy that is gone is fetched again by who needs it.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.each_node import on_nodes, other_nodes
from engine.retrieval.shared_vectors import FOLDER as VECTORS
from engine.storage.local_files import is_left_behind
from engine.storage.object_copies import NOTES
from engine.storage.removal import Listing, Removal, carry_out, counted
from engine.storage.store import Store, machine_cache
from jobs.steps.survey import DAY

_BUNDLES = "bundles"
_ID = re.compile(r"[0-9a-f]{16}")

HERE = "this machine"
EVICTION_SECONDS = 1800.0
"""Time that a node has to list and remove."""

CacheIdentity = tuple[int, int]


@dataclass(frozen=True)
class NodeEviction:
    """The eviction of one machine's cache.

    Args:
        node: address, or :data:`HERE`.
        cache: the folder there.
        removals: what goes.
        removed: how many of these are gone; 0 where nothing was to be removed.
        fault: why there is nothing to be told of this node, in one line; else empty.
    """

    node: str
    cache: str = ""
    removals: tuple[Removal, ...] = ()
    removed: int = 0
    fault: str = ""


def evict_everywhere(
    unused_s: float, keep: Iterable[str], dry_run: bool, cluster: bool
) -> list[NodeEviction]:
    """Remove from the caches of this machine and of all nodes what they can do without.

    Each node goes by its own settings (``SEEDSET_CACHE``) and its own clock. A folder that several nodes
    share is seen to once.

    Args:
        unused_s, keep: see :func:`plan_eviction`.
        dry_run: remove nothing.
        cluster: whether there are other nodes: this process is connected to Ray.

    Returns:
        One for each cache, this machine's first; and one for each node that gave no answer.
    """
    keep = sorted(keep)
    found = [evict_here(unused_s, keep, dry_run)]
    if not cluster:
        return found
    nodes = other_nodes()
    seen, apart = {cache_identity()}, []
    identities = on_nodes(cache_identity, nodes)
    for node, identity in identities.given.items():
        if identity is None or identity not in seen:
            apart.append(node)
            seen.add(identity)
    answers = on_nodes(evict_here, apart, unused_s, keep, dry_run, timeout_s=EVICTION_SECONDS)
    found += [replace(one, node=nodes[node]) for node, one in answers.given.items()]
    faults = identities.failed | answers.failed
    faults |= dict.fromkeys([*identities.silent, *answers.silent], "did not answer in time")
    return found + [NodeEviction(nodes[node], fault=fault) for node, fault in faults.items()]


def cache_identity() -> CacheIdentity | None:
    """Return what tells this machine's cache from others', also where nodes share it; None: there is none."""
    try:
        found = os.stat(machine_cache())
    except OSError:
        return None
    # The number of a device differs from node to node.
    return found.st_ino, found.st_mtime_ns


def evict_here(unused_s: float, keep: Iterable[str], dry_run: bool) -> NodeEviction:
    """Remove from this machine's cache what it can do without; see :func:`plan_eviction`."""
    cache, removed = machine_cache(), 0
    removals = plan_eviction(cache, unused_s, keep, time.time())

    def count(removal: Removal, gone: bool) -> None:
        nonlocal removed
        removed += gone

    if not dry_run:
        carry_out(Store.open(cache), removals, count)
    return NodeEviction(HERE, str(cache), tuple(removals), removed)


def plan_eviction(cache: Path, unused_s: float, keep: Iterable[str], now: float) -> list[Removal]:
    """Return what a cache can do without; what is in it that no copy was made of, nobody here knows.

    A bundle goes as a whole, other copies one by one, with the notes of what they were made of.

    Args:
        cache: the folder; it need not exist.
        unused_s: seconds without being read or written. A file that was mapped into memory by a process that
            has run for longer counts as unused; the process keeps what it has mapped.
        keep: ids of bundles that stay.
        now: seconds since the epoch.
    """
    root = Store.open(cache)
    top = [path.name for path in cache.iterdir()] if cache.is_dir() else []
    listing = Listing.of(root, top)
    old = {entry.path for entry in listing.entries if now - entry.used >= unused_s}
    removals = []
    for name in listing.children(_BUNDLES):
        files = [entry.path for entry in listing.below(f"{_BUNDLES}/{name}")]
        if _ID.fullmatch(name) and name not in set(keep) and old.issuperset(files):
            removals.append(_removal(f"{_BUNDLES}/{name}", len(files), len(files), (f"{_BUNDLES}/{name}",)))
    copies: dict[str, list[str]] = defaultdict(list)
    for entry in listing.below(NOTES):
        copy = entry.path.removeprefix(f"{NOTES}/").removesuffix(".json")
        if entry.path.endswith(".json"):
            copies[copy.split("/")[0]].append(copy)
    for bucket, own in copies.items():
        gone = [copy for copy in own if copy in old or not listing.holds(copy)]
        if gone:
            steps = tuple(path for copy in gone for path in (f"{NOTES}/{copy}.json", copy))
            removals.append(_removal(bucket, len(gone), len(own), steps))
    shared = [entry.path for entry in listing.below(VECTORS)]
    if gone := [path for path in shared if path in old]:
        removals.append(_removal(VECTORS, len(gone), len(shared), tuple(gone)))
    for entry in listing.entries:
        if now - entry.used >= DAY and is_left_behind(cache / entry.path):
            removals.append(Removal(entry.path, "leftover", "of a program that was killed", (entry.path,)))
    return counted(listing, removals)


def _removal(path: str, gone: int, there: int, steps: tuple[str, ...]) -> Removal:
    return Removal(path, "cached copies", f"{gone} of {there} files, not used for so long", steps)
