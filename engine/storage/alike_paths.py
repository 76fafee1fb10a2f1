"""Find a file whose path is spelt in another way than the one that is asked for.

Tables of images name files as another machine did: with ``%20`` for a space, a backslash for a slash, letters
in another case or another normal form. Only folders on the way are listed, and only where nothing has the
exact path.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow.fs as pafs

from engine.errors import UserError
from engine.storage.store import Store
from engine.text.spelling import look_key

KEPT_S = 60.0
"""Seconds for which a folder's listing is used again."""
KEPT_FOLDERS = 64
MOST = 8
"""Files that are told apart at most."""


def existing(file: Store) -> Store:
    """Return the file, or, where it is not there, the only one whose path is spelt alike."""
    try:
        if file.exists():
            return file
    except (UserError, OSError, ValueError):  # a path that no file system takes
        return file
    found = alike(file)
    return found[0] if len(found) == 1 else file


def alike(file: Store) -> list[Store]:
    """Return the files whose paths differ from one that is not there in their spelling alone."""
    parts = file.path.split("/")
    try:
        depth = next(i for i in range(len(parts) - 1, 0, -1) if _is_folder(file, "/".join(parts[:i]) or "/"))
        rest = unquote("/".join(parts[depth:])).replace("\\", "/").split("/")
        wanted = [part for part in rest if part not in ("", ".")]
        if ".." in wanted:
            return []
        found = ["/".join(parts[:depth])]
        for part in wanted:
            found = [f"{folder}/{name}" for folder in found for name in _names(file, folder, part)][:MOST]
    except (UserError, OSError, ValueError, StopIteration):
        return []
    stores = [Store(file.fs, path, file.is_local) for path in found]
    return [store for store in stores if store.size() >= 0]


class _Listing(NamedTuple):
    """The names in a folder by their keys, and when they were read."""

    names: dict[str, list[str]]
    at: float


_listings: OrderedDict[tuple[str, str], _Listing] = OrderedDict()


def _key(name: str) -> str:
    return look_key(unquote(name))


def _is_folder(file: Store, path: str) -> bool:
    if file.is_local:
        return os.path.isdir(path)
    return bool(file.ask(lambda fs: fs.get_file_info(path)).type == pafs.FileType.Directory)


def _names(file: Store, folder: str, wanted: str) -> list[str]:
    """Return the names in a folder that are spelt like one: that one alone, if it is there."""
    place = (file.fs.type_name, folder)
    listing = _listings.get(place)
    if listing is None or time.monotonic() - listing.at > KEPT_S:
        listing = _Listing({}, time.monotonic())
        for name in _listed(file, folder or "/"):
            listing.names.setdefault(_key(name), []).append(name)
        _listings[place] = listing
        while len(_listings) > KEPT_FOLDERS:
            _listings.popitem(last=False)
    found = listing.names.get(_key(wanted), [])
    return [wanted] if wanted in found else found


def _listed(file: Store, folder: str) -> list[str]:
    if file.is_local:
        return os.listdir(folder) if os.path.isdir(folder) else []
    selector = pafs.FileSelector(folder, allow_not_found=True)
    return [info.base_name for info in file.ask(lambda fs: fs.get_file_info(selector))]
