"""Publish bundles: as new ones, or as descendants of the current one; and choose which is used."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from engine.errors import BundleError, UserError
from engine.storage.bundle import (
    MANIFEST,
    FileEntry,
    Manifest,
    check_files,
    choosing,
    current_id,
    manifest_of,
    pointer,
)
from engine.storage.lock import check_held
from engine.storage.manifests import made_by_after
from engine.storage.store import Store, sha256_of
from engine.storage.workspace import Workspace
from engine.versions import OF_BUNDLES, Versions, versions_of

_ENTITIES = "entities.parquet"

_TRIES = 5
"""Times that a bundle is made anew because another was published meanwhile."""


def check_current(workspace: Workspace) -> Manifest | None:
    """Check that what the next bundle carries over is there; to be called before the work for it begins.

    Returns:
        The current bundle's manifest; None if none was published yet.

    Raises:
        BundleError: the bundle that ``CURRENT`` names is gone, or lacks a file; says the way out.
    """
    return _parent(workspace)[1]


def _parent(workspace: Workspace) -> tuple[bytes | None, Manifest | None]:
    """Return what the pointer holds, and the manifest of the bundle that it names, whose files are there."""
    pointed = pointer(workspace).read_if_there()
    if pointed is None:
        return None, None
    try:
        manifest = manifest_of(workspace, current_id(workspace))
        check_files(workspace.bundles / manifest.id, manifest, contents=False)
    except BundleError as error:
        raise BundleError(
            f"the current bundle cannot be built upon: {error}; {choosing(workspace)}"
        ) from None
    return pointed, manifest


def point_to(workspace: Workspace, bundle_id: str) -> Manifest:
    """Make a bundle the current one, after every byte of it is checked in place.

    Raises:
        BundleError: there is no such bundle, or it is not whole; the current one stays.
    """
    manifest = manifest_of(workspace, bundle_id)
    check_files(workspace.bundles / bundle_id, manifest)
    _point(workspace, bundle_id)
    return manifest


def _point(workspace: Workspace, bundle_id: str) -> None:
    check_held(workspace.root)
    pointer(workspace).write_bytes(f"{bundle_id}\n".encode())


def publish(
    workspace: Workspace, staged: Path, settings: dict[str, Any], parent: str | None = None
) -> Manifest:
    """Publish a staged local folder as a new bundle and make it the current one.

    The bundle's id is a digest of its files, so publishing the same content twice gives the same id.
    The folder ``staged`` is consumed.
    """
    manifest = _write(workspace, staged, settings, parent)
    _point(workspace, manifest.id)
    return manifest


def _write(
    workspace: Workspace,
    staged: Path,
    settings: dict[str, Any],
    parent: str | None,
    carried_by: Sequence[Versions] = (),
) -> Manifest:
    """Put a staged folder among the bundles, unless it is there whole, and return its manifest.

    Args:
        workspace, staged, settings, parent: see :func:`derive`.
        carried_by: what made the files that were carried over.
    """
    check_held(workspace.root)
    files = {
        path.relative_to(staged).as_posix(): FileEntry(size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(staged.rglob("*"))
        if path.is_file()
    }
    bundle_id = _digest(files, settings)
    with suppress(UserError):  # none of this name, or one that is not whole
        there = manifest_of(workspace, bundle_id)
        check_files(workspace.bundles / bundle_id, there)
        shutil.rmtree(staged)
        return there
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = Manifest(
        id=bundle_id,
        created=created,
        parent=parent,
        settings=settings,
        files=files,
        made_by=made_by_after(carried_by, versions_of(OF_BUNDLES)),
    )
    (staged / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (workspace.bundles / bundle_id).publish_folder(staged, last=MANIFEST)
    return manifest


def derive(
    workspace: Workspace,
    staged: Path,
    settings: dict[str, Any],
    replaces: Sequence[str],
    owns: Sequence[str] = (),
) -> tuple[Manifest, str]:
    """Publish a staged folder together with what the current bundle holds besides, as its descendant.

    Carried over is what lies under none of ``replaces`` and is not staged, and the parent's settings
    where ``settings`` has none. A parent of entities with other names has nothing that fits: its ids mean
    others.
    A bundle that another job publishes meanwhile becomes the parent: nothing of either is lost.

    Args:
        workspace: whose current bundle, if there is one, is the parent.
        staged: with ``entities.parquet``; is consumed.
        settings: of what is staged.
        replaces: beginnings of file names that the parent's files are not taken of, such as "index/".
        owns: settings that are not taken from the parent: where ``settings`` has none, there is none.

    Returns:
        The new bundle's manifest, and a sentence that says what was left out and why, or "".

    Raises:
        BundleError: the current bundle is not whole, or others publish all the time.
        StorageError: the lock of this command was taken over; the current bundle stays.
    """
    own = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    for _ in range(_TRIES):
        pointed, parent = _parent(workspace)
        kept, left_out = _carried(workspace, parent, staged, own, replaces)
        kept_settings = {} if left_out or parent is None else parent.settings
        together = {name: kept_settings[name] for name in kept_settings if name not in owns} | settings
        if parent is not None:
            _copy_from(workspace.bundles / parent.id, kept, staged)
        carried_by = parent.made_by if parent and kept else ()
        manifest = _write(workspace, staged, together, parent.id if parent else None, carried_by)
        check_held(workspace.root)
        if pointer(workspace).replace_bytes(f"{manifest.id}\n".encode(), pointed):
            return manifest, left_out
        staged = workspace.bundles.staging()
        _copy_from(workspace.bundles / manifest.id, own, staged)
    raise BundleError(
        f"{pointer(workspace).uri}: other jobs publish all the time; what this one made is the bundle "
        f"{manifest.id}; run the command again when they have ended"
    )


def _carried(
    workspace: Workspace, parent: Manifest | None, staged: Path, own: Sequence[str], replaces: Sequence[str]
) -> tuple[list[str], str]:
    """Return the parent's files that go into its descendant, and what is to be said of those that do not."""
    if parent is None:
        return [], ""
    kept = [name for name in parent.files if not name.startswith(tuple(replaces)) and name not in own]
    if _ENTITIES in parent.files and _names(workspace.bundles / parent.id / _ENTITIES) == _names(
        Store.open(staged / _ENTITIES)
    ):
        return kept, ""
    left_out = ", ".join(sorted({name.split("/")[0] for name in kept}))
    about = f"left out of the new bundle: {left_out} of {parent.id}, which has other entities"
    return [], about if kept else ""


def _names(entities: Store) -> list[str]:
    """Return the names, whose places are the ids; the other columns change without other ids."""
    with entities.open_input() as stream:
        names: list[str] = pq.read_table(stream, columns=["name"])["name"].to_pylist()
    return names


def _copy_from(bundle: Store, names: Sequence[str], staged: Path) -> None:
    """Bring files of a published bundle, which is never changed, into a staged folder."""
    for name in names:
        (bundle / name).link_or_fetch(staged / name)


def _digest(files: dict[str, FileEntry], settings: dict[str, Any]) -> str:
    content = {"files": {n: f.sha256 for n, f in files.items()}, "settings": settings}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
