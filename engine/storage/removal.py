"""List what lies below a workspace with sizes and times, and remove some of it so that nothing looks whole.

A removal is a list of steps: what tells readers that a thing is whole is deleted first, the rest after it. A
list of all that is under way lies in ``.removing.json`` until it is done: after a kill the next removal goes
on with things that now look unfinished.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import pyarrow.fs as pafs

from engine.external_errors import translated
from engine.storage.store import Store

JOURNAL = ".removing.json"
"""Names the steps of a removal that is under way; it lies in the root."""


class Entry(NamedTuple):
    """A file, hidden ones too: its path below the root, its bytes, and when it was changed (seconds).

    Of a local one also when it was read or changed last, as far as its disk notes that.
    """

    path: str
    size: int
    changed: float
    inode: tuple[int, int] = (0, 0)
    names: int = 1
    """Names that the same bytes have (hard links)."""
    used: float = 0.0


@dataclass(frozen=True)
class Listing:
    """The files below some folders of a root, as they were when they were listed.

    Args:
        root: of the paths.
        entries: files, sorted by their paths.
        empty: folders without a file, and when they were changed; a bucket has none.
        links: folders that are links to others; what is in those is listed once.
    """

    root: Store
    entries: list[Entry]
    empty: dict[str, float] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, root: Store, folders: Iterable[str]) -> Listing:
        """List folders below a root, or files; those that are not there are empty."""
        found = cls(root, [])
        for name in folders:
            with translated((root / name).uri):
                found.entries.extend(found._local(name) if root.is_local else found._in_bucket(name))
        found.entries.sort()
        return found

    def _local(self, name: str) -> Iterator[Entry]:
        def refused(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        start, seen = len(self.root.path) + 1, set[str]()
        top = (self.root / name).path
        if os.path.isfile(top):
            yield self._entry(top)
            return
        for parent, folders, names in os.walk(top, onerror=refused, followlinks=True):
            if parent != top and os.path.islink(parent):
                self.links.add(parent[start:])
            if (real := os.path.realpath(parent)) in seen:
                folders.clear()
                continue
            seen.add(real)
            if not folders and not names:
                self.empty[parent[start:]] = os.stat(parent).st_mtime
            for path in (os.path.join(parent, one) for one in names):
                with suppress(FileNotFoundError):  # gone meanwhile
                    yield self._entry(path)

    def _entry(self, path: str) -> Entry:
        found, name = os.lstat(path), path[len(self.root.path) + 1 :]
        inode, used = (found.st_dev, found.st_ino), max(found.st_atime, found.st_mtime)
        return Entry(name, found.st_size, found.st_mtime, inode, found.st_nlink, used)

    def _in_bucket(self, name: str) -> Iterator[Entry]:
        selector = pafs.FileSelector((self.root / name).path, recursive=True, allow_not_found=True)
        for info in self.root.ask(lambda fs: fs.get_file_info(selector)):
            if info.type == pafs.FileType.File:
                yield Entry(info.path[len(self.root.path) + 1 :], info.size, info.mtime_ns / 1e9)

    @cached_property
    def _paths(self) -> list[str]:
        return [entry.path for entry in self.entries]

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.entries}

    def below(self, path: str) -> list[Entry]:
        """Return the files below a folder, or the file itself."""
        if path in self._by_path:
            return [self._by_path[path]]
        begin = bisect_left(self._paths, f"{path}/")
        return self.entries[begin : bisect_left(self._paths, f"{path}0", begin)]  # "0" follows "/"

    def children(self, path: str) -> list[str]:
        """Return the names directly below a folder, sorted, none that are hidden."""
        start = len(path) + 1
        names = {entry.path[start:].split("/")[0] for entry in self.below(path)}
        names |= {folder[start:].split("/")[0] for folder in self.empty if folder.startswith(f"{path}/")}
        return sorted(name for name in names if name and not name.startswith("."))

    def holds(self, path: str) -> bool:
        """Return whether there is a file of this path."""
        return path in self._by_path

    def changed(self, path: str) -> float:
        """Return when a file, or anything in a folder, was changed last; 0 where nothing is."""
        times = [entry.changed for entry in self.below(path)]
        times += [time for one, time in self.empty.items() if f"{one}/".startswith(f"{path}/")]
        return max(times, default=0.0)


@dataclass(frozen=True)
class Removal:
    """A thing to be removed.

    Args:
        path: below the root, for people: of the thing, or of the folder that several are in.
        kind: such as "bundle".
        reason: why it goes.
        steps: paths below the root, files or folders, in the order in which they are deleted.
        pointer: path of the file that may come to name ``path`` as the one that is used; it then stays.
        bytes: that deleting it frees, see :func:`counted`.
    """

    path: str
    kind: str
    reason: str
    steps: tuple[str, ...]
    pointer: str | None = None
    bytes: int = 0


def counted(listing: Listing, removals: Sequence[Removal]) -> list[Removal]:
    """Return removals with the bytes that each frees when they are carried out in this order.

    Bytes with several names (a bundle shares files with the one before it) count where the last name goes;
    where a name is left, nowhere.
    """
    gone: Counter[tuple[int, int]] = Counter()
    found, seen = [], set[str]()
    for removal in removals:
        size = 0
        for entry in (entry for step in removal.steps for entry in listing.below(step)):
            if entry.path in seen:
                continue
            seen.add(entry.path)
            gone[entry.inode] += 1
            size += entry.size if entry.names == 1 or gone[entry.inode] == entry.names else 0
        found.append(replace(removal, bytes=size))
    return found


@dataclass(frozen=True)
class Journal:
    """Steps of a removal that was begun and has not ended, and when that was (seconds); none: no steps."""

    steps: frozenset[str] = frozenset()
    begun: float = 0.0

    @classmethod
    def read(cls, root: Store) -> Journal:
        """Return what the root's journal says; one that cannot be read says nothing."""
        content = (root / JOURNAL).read_if_there()
        if content is None:
            return cls()
        try:
            steps = frozenset(map(str, json.loads(content)["steps"]))
        except (ValueError, KeyError, TypeError):
            return cls()
        # By the clock of the disk or the bucket, which the files' times are of, too.
        info = root.ask(lambda fs: fs.get_file_info((root / JOURNAL).path))
        return cls(steps, info.mtime_ns / 1e9)

    def holds(self, listing: Listing, path: str) -> bool:
        """Return whether a thing was being removed, and nothing was written into it since."""
        # Of files alone: a folder changes when what is in it is removed.
        return path in self.steps and all(one.changed <= self.begun for one in listing.below(path))


def carry_out(
    root: Store, removals: Sequence[Removal], done: Callable[[Removal, bool], None] = lambda one, gone: None
) -> None:
    """Remove things, one after another.

    Args:
        root: of their paths.
        removals: in this order.
        done: called after each one; False: its pointer has come to name it meanwhile, and it was left.

    Raises:
        StorageError: something cannot be deleted; what comes after it stays, and so does the journal.
    """
    if not removals:
        (root / JOURNAL).delete()
        return
    steps = [step for removal in removals for step in removal.steps]
    (root / JOURNAL).write_bytes(json.dumps({"steps": steps}).encode())
    for removal in removals:
        named = (root / removal.pointer).read_if_there() if removal.pointer else None
        gone = named is None or named.decode(errors="replace").strip() != removal.path.rpartition("/")[2]
        for step in removal.steps if gone else ():
            (root / step).delete()
        done(removal, gone)
    (root / JOURNAL).delete()
