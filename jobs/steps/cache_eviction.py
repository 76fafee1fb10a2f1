"""Plan which copies of objects and bundles out of buckets this machine's cache can do without.

A copy that is gone is fetched again by who needs it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from engine.storage.local_files import is_left_behind
from engine.storage.removal import Listing, Removal, counted
from engine.storage.store import NOTES, Store
from jobs.steps.survey import DAY

_BUNDLES = "bundles"
_ID = re.compile(r"[0-9a-f]{16}")


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
    for entry in listing.entries:
        if now - entry.used >= DAY and is_left_behind(cache / entry.path):
            removals.append(Removal(entry.path, "leftover", "of a program that was killed", (entry.path,)))
    return counted(listing, removals)


def _removal(path: str, gone: int, there: int, steps: tuple[str, ...]) -> Removal:
    return Removal(path, "cached copies", f"{gone} of {there} files, not used for so long", steps)
