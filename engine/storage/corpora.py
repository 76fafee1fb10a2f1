"""Keep the corpora of a bucket: each in a folder of its own, but for files that it shares with former ones.

::

    corpora/<id>/...        what was written for this corpus: of one that grew, what is new
    corpora/<id>/kept.json  {"<former id>": ["mentions/part-00000.parquet", ...]}: where its other files lie
    corpora/CURRENT         the id that is used

No file of a corpus changes, so that one that grows writes what differs alone. Files that neither the current
corpus nor the one before it has are removed.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from engine.errors import StorageError
from engine.storage import s3
from engine.storage.parts import CURRENT, MANIFEST
from engine.storage.store import Store

KEPT = "kept.json"
_LISTS = TypeAdapter(dict[str, list[str]])


def name_in(pointer: bytes) -> str | None:
    """Return the name of a folder that a pointer's content is, or None if it is none."""
    name = pointer.decode(errors="replace").strip()
    return None if not name or "/" in name or name.startswith(".") or "\ufffd" in name else name


def owners(corpus: Store) -> dict[str, str]:
    """Return in which folders beside a corpus' own some of its files lie, by their paths below it.

    Args:
        corpus: its folder.

    Raises:
        StorageError: the list of them cannot be read.
    """
    return {} if corpus.is_local else _owners(corpus.uri)


@lru_cache(maxsize=4)
def _owners(uri: str) -> dict[str, str]:
    file = Store.open(uri) / KEPT
    content = file.read_if_there()
    try:
        lists = {} if content is None else _LISTS.validate_json(content)
    except ValidationError:
        raise StorageError(f"{file.uri}: cannot be read; import the corpus again with --overwrite") from None
    return {name: owner for owner, names in lists.items() for name in names}


def file_of(corpus: Store, name: str) -> Store:
    """Return a file of a corpus by its path below it, wherever it lies."""
    owner = owners(corpus).get(name)
    return (corpus if owner is None else corpus.parent / owner) / name


def files_of(corpus: Store, folder: str, suffix: str = "") -> dict[str, Store]:
    """Return the files of a corpus below one of its folders, by their paths below the corpus, sorted.

    Args:
        corpus: its folder.
        folder: a name, such as "mentions".
        suffix: files of other names are left out.
    """
    found = {
        name: corpus.parent / owner / name
        for name, owner in owners(corpus).items()
        if name.startswith(f"{folder}/") and name.endswith(suffix)
    }
    start = len(corpus.path) + 1
    found |= {file.path[start:]: file for file in (corpus / folder).files(suffix)}
    return dict(sorted(found.items()))


def publish(
    corpora: Store, staged: Path, former: Store, kept: Iterable[str], check: Callable[[], None]
) -> bool:
    """Write a corpus into a new folder, and point to it if nobody has moved the pointer meanwhile.

    What neither it nor the corpus before it has is removed.

    Args:
        corpora: the folder of all.
        staged: a local folder with what is new, and the manifest; is consumed.
        former: the corpus that the rest is of.
        kept: its files that belong to the new one, too, by their paths below it.
        check: raises if the new one must not be published; called just before.

    Returns:
        Whether it is the current one now; if not, nothing of it stays.
    """
    # To the microsecond: names are in the order of publishing, also of two within a second.
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    new = corpora / f"{now}-{uuid.uuid4().hex[:8]}"
    # What there is before this one is current was begun before it, and so can no longer become current.
    old = corpora.files()
    pointer = corpora / CURRENT
    before = pointer.read_if_there()
    if lists := _lists(former, kept):
        (staged / KEPT).write_text(json.dumps(lists, indent=1), encoding="utf-8")
    new.publish_folder(staged, last=MANIFEST)
    try:
        check()
    except BaseException:
        new.delete()
        raise
    # If this raises, the pointer may have been written: the folder stays; `clean` removes it if it was not.
    if not pointer.replace_bytes(new.name.encode(), before):
        new.delete()
        return False
    names = {new.name, name_in(before or b"")}
    needed = {pointer.path, *_needed(corpora, names)}
    unneeded = [one.path for one in old if one.path not in needed and _folder(corpora, one) not in names]
    for last in (False, True):  # first what says that a corpus is whole
        s3.delete_all(path for path in unneeded if path.endswith(f"/{MANIFEST}") is not last)
    return True


def _lists(former: Store, kept: Iterable[str]) -> dict[str, list[str]]:
    """Return files of a former corpus by the folder in which they lie."""
    lists, owned = defaultdict[str, list[str]](list), owners(former)
    for name in sorted(kept):
        lists[owned.get(name, former.name)].append(name)
    return lists


def _needed(corpora: Store, names: Iterable[str | None]) -> set[str]:
    """Return the paths of what some corpora have that lies in others' folders."""
    folders = [corpora / name for name in names if name]
    return {file_of(folder, name).path for folder in folders for name in owners(folder)}


def _folder(corpora: Store, file: Store) -> str:
    return file.path[len(corpora.path) + 1 :].split("/")[0]
