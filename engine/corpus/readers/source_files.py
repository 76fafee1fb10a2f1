"""Find the files of a source, and see to it that none is passed over without a word.

Hidden files and folders (a dot before the name) are no part of a source. Names with an underscore in front
are what Spark and others write beside their tables; they are not read either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import unquote

from engine.corpus.readers.compression import ENDINGS, without_ending
from engine.errors import FormatError, StorageError
from engine.storage.store import Store

DATA_ENDINGS = (
    *(".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".orc", ".avro"),
    *(".xls", ".xlsx", ".zip", ".tar", ".tgz", ".7z", ".rar", ".br", ".snappy", ".lzo", ".z", *ENDINGS),
)
"""Endings of files that are likely to hold records."""

_COMPANIONS = ("readme", "license", "notice", "checksum", "sha256", "md5")
"""Beginnings of names, in lower case, of files that go with data and hold none."""

_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.(parquet|arrow)")
"""Names of the files of rows of a Hugging Face data set."""

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_HUB_INFO = "dataset_infos.json"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CACHED = re.compile(r"cache-.*\.arrow")

_PARTITION_NULL = "__HIVE_DEFAULT_PARTITION__"
_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The files below a folder, by their path from the folder on, sorted; and those that cannot be opened."""

    folder: Store
    files: Mapping[str, Store]
    broken: Mapping[str, str] = field(default_factory=dict)
    """Reasons by path: a link to nothing, a name that is not UTF-8."""

    def shown(self) -> str:
        """Return the first names, for a message."""
        return shown([*self.files, *self.broken]) or "nothing"

    def matching(self, wanted: Callable[[str], bool]) -> dict[str, Store]:
        """Return the files whose path is wanted; never those with an underscore before a part of the path."""
        return {n: f for n, f in self.files.items() if not self.sets_aside(n) and wanted(n)}

    def sets_aside(self, name: str) -> bool:
        """Return whether a file is no part of a source, by its path."""
        return _is_set_aside(name) or name in self.about or self._is_cached(name)

    @property
    def is_dataset(self) -> bool:
        """Whether the folder is a Hugging Face data set: a copy of one on the hub, or one that was saved."""
        return bool(self._saved) or any(_SHARD.fullmatch(PurePosixPath(name).name) for name in self.files)

    @cached_property
    def _saved(self) -> set[PurePosixPath]:
        """Folders that ``Dataset.save_to_disk`` wrote: two files in them say so."""
        folders = (PurePosixPath(name).parent for name in self.files if name.endswith(_STATE))
        return {f for f in folders if {str(f / _STATE), str(f / _INFO)} <= self.files.keys()}

    @cached_property
    def about(self) -> frozenset[str]:
        """Files that say what a Hugging Face data set is, and hold none of its rows."""
        saved = {str(folder / name) for folder in self._saved for name in (_STATE, _INFO)}
        above = {str(folder.parent / _SPLITS) for folder in self._saved}
        return frozenset(saved | above | ({_HUB_INFO} if self.is_dataset else set()))

    def _is_cached(self, name: str) -> bool:
        """Return whether a file holds what a function made of a saved data set (``Dataset.map``)."""
        path = PurePosixPath(name)
        return path.parent in self._saved and _CACHED.fullmatch(path.name) is not None


def shown(names: Iterable[str]) -> str:
    """Return the first names of many, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def set_aside_together(names: Iterable[str]) -> list[str]:
    """Return paths with one entry for all below a folder that is set aside, which says how many they are."""
    found: dict[str, int] = {}
    for name in names:
        parts = name.split("/")
        at = next((place for place, part in enumerate(parts[:-1]) if part.startswith("_")), None)
        shorter = name if at is None else "/".join([*parts[: at + 1], ""])
        found[shorter] = found.get(shorter, 0) + 1
    number = {name: "1 file" if count == 1 else f"{count} files" for name, count in found.items()}
    return [f"{name} ({number[name]})" if name.endswith("/") else name for name in found]


def list_source(folder: Store) -> Listing:
    """Return the files below a folder; links are followed, a link to a folder that it lies in is not.

    Raises:
        StorageError: a folder may not be read.
    """
    if not folder.is_local:
        start = len(folder.path) + 1
        return Listing(folder, {f.path[start:]: f for f in folder.files()})
    found: dict[str, Store] = {}
    broken: dict[str, str] = {}
    for top, folders, names in os.walk(folder.path, onerror=_refuse, followlinks=True):
        folders[:] = [n for n in sorted(folders) if not n.startswith(".") and not _is_loop(top, n)]
        for name in names:
            path = os.path.join(top, name)
            inside = path[len(folder.path) + 1 :]
            if name.startswith("."):
                continue
            if not _is_utf8(inside):
                broken[ascii(inside)[1:-1]] = "its name is not UTF-8; rename it"
            elif reason := dangling(folder / inside):
                broken[inside] = reason
            elif os.path.isfile(path):
                found[inside] = folder / inside
            else:
                broken[inside] = "not a regular file; remove it"
    return Listing(folder, dict(sorted(found.items())), broken)


def way_to_hub(address: str) -> str:
    """Return what is said of an address where nothing is, if it may be a name on the Hugging Face hub."""
    if not _HUB_NAME.fullmatch(address):
        return ""
    fetch = f"hf download {address} --repo-type dataset --local-dir FOLDER"
    return f" (a data set of the hub is hf://{address}, or fetched first: {fetch})"


def dangling(file: Store) -> str | None:
    """Return what is said of a link to nothing; None where the file is no such link."""
    if not file.is_local or os.path.exists(file.path) or not os.path.islink(file.path):
        return None
    return f"a link to {os.readlink(file.path)}, where nothing is; mend or remove it"


def _refuse(error: OSError) -> None:
    raise StorageError(f"{error.filename}: the folder cannot be read ({error.strerror}); allow it or move it")


def _is_loop(top: str, name: str) -> bool:
    path = os.path.join(top, name)
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return f"{os.path.realpath(top)}/".startswith(f"{target}/")


def _is_utf8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def _is_set_aside(name: str) -> bool:
    return name.startswith("_") or "/_" in name


def refuse_left_out(
    listing: Listing, read: Collection[str], stems: Collection[str], expected: str, texts: bool = True
) -> list[str]:
    """Stop where a file that belongs to what is read would be passed over; return the names of others.

    A file belongs to it if its name, or that of its outermost folder, begins with one of the stems; so does
    every file, if there is the stem "". It is let pass where the same name with another ending is read, and
    where its own ending (a copy's, such as .bak) is not one of records.

    Args:
        listing: of the source.
        read: the paths that are read.
        stems: beginnings of names.
        expected: says what is read, for the message.
        texts: whether files that end in .txt, or in nothing, may hold records.

    Raises:
        FormatError: names what would be left out, and why.
    """
    stems = tuple(stems)
    twins = {_stem(name) for name in read}
    belonging = {name: why for name, why in listing.broken.items() if name.lower().startswith(stems)}
    unread = [name for name in listing.broken if name not in belonging]
    for name in listing.files:
        if name in read or name in listing.about:
            continue
        belongs = name.lower().startswith(stems) and not listing.sets_aside(name) and _stem(name) not in twins
        if belongs and _may_hold_records(name, texts):
            belonging[name] = ""
        elif (belongs and "" not in stems) or name.lower().endswith(DATA_ENDINGS):
            unread.append(name)
    if belonging:
        named = shown(f"{name} ({reason})" if reason else name for name, reason in belonging.items())
        raise FormatError(
            f"{listing.folder.uri}: not all of it would be read: {named}. {expected}; bring these files into "
            "that form, or move them out of the source"
        )
    return unread


def _may_hold_records(name: str, texts: bool) -> bool:
    path = PurePosixPath(name.lower())
    if path.suffix in ("", ".txt"):
        return texts and not path.name.startswith(_COMPANIONS)
    return name.lower().endswith(DATA_ENDINGS)


def layout_files(
    folder: Store, layout: str, required: Sequence[str], optional: Sequence[str]
) -> tuple[dict[str, Store], list[str]]:
    """Return the files of a layout by name, compressed or not, and other files of records in the folder.

    Raises:
        FormatError: a required one is missing; a file that belongs to the layout would not be read.
    """
    listing = list_source(folder)
    # Reversed: of a file and its compressed copy the plain one is read.
    files_here = [(path, file) for path, file in listing.files.items() if "/" not in path]
    found = {without_ending(path): file for path, file in reversed(files_here)}
    files = {name: found[name] for name in (*required, *optional) if name in found}
    expected = f"--format {layout} reads {', '.join((*required, *optional))}, also compressed"
    read = {file.path[len(folder.path) + 1 :] for file in files.values()}
    unread = refuse_left_out(listing, read, [_stem(name) for name in (*required, *optional)], expected)
    if missing := [name for name in required if name not in files]:
        raise FormatError(
            f"{folder.uri}: no {' and no '.join(missing)} here (found: {listing.shown()}); --format {layout} "
            f"needs a folder with {' and '.join(required)}; see --help for the other formats"
        )
    return files, unread


def _stem(name: str) -> str:
    """Return a path without its endings (``a/b.jsonl.gz``: ``a/b``), in lower case."""
    path = PurePosixPath(without_ending(name))
    return str(path.with_suffix("")) if path.suffix in (*DATA_ENDINGS, ".txt") else str(path)


def partition_of(name: str) -> dict[str, str | None]:
    """Return the values that the folders of a path stand for: ``lang=en/part-0.parquet`` is {lang: en}."""
    pairs = (folder.partition("=") for folder in name.split("/")[:-1])
    return {key: None if value == _PARTITION_NULL else unquote(value) for key, sep, value in pairs if sep}
