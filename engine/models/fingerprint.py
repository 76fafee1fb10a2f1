"""Tell models apart by their content: what is kept under a model's name alone goes stale with its files.

A run, a cache or a choice of images that was made with a model carries the model's fingerprint. Other weights
under the same path have another one, so nothing that was made with the former ones is taken for theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.models.hub import NamedModel
from engine.storage.store import sha256_of

READ = (".json", ".safetensors", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".bpe")
"""Endings of the files that make a model: weights, configuration, tokenizer."""

TOLD = re.compile(r"readme|licen[cs]e|notice|requirements", re.IGNORECASE)
"""Begin of the names of files that are read by people."""

PRESENTATION = ("architectures", "dtype", "id2label", "label2id", "transformers_version", "_name_or_path")
"""Entries of a configuration that do not affect a model's output."""

MODULES = "modules.json"
"""The file of a sentence-transformers folder that names its sub-folders."""

COMMIT = re.compile(r"[0-9a-f]{40}")

RACY_SECONDS = 2
"""A file that changed within this time is hashed anew each time: it could change again within one tick of the
file system's clock, and look the same."""

_known: dict[tuple[int, ...], str] = {}
"""Digests of this process by a file's device, inode, size, time of change and time of inode change."""


def model_fingerprint(name: str | os.PathLike[str], role: str = "--model") -> str:
    """Return what tells a model's content apart, of whatever name: 16 hex digits.

    Args:
        name: as a user gave it (:class:`engine.models.hub.NamedModel`).
        role: the option that named it, for errors.

    Raises:
        UserError: there is no such model.
    """
    named = NamedModel.open(name, role)
    folder = Path(named.path)
    if not folder.is_dir():
        config = named.find("config.json")
        if config is None:
            named.config()  # which says why there is none
            raise UserError(f"{named.label}: no config.json in it")
        folder = config.parent
        # The hub's cache names a snapshot by its commit, a digest of all that belongs to it.
        if COMMIT.fullmatch(folder.name):
            return folder.name[:16]
    return folder_fingerprint(folder)


def check_unchanged(name: str, expected: str, role: str = "--model") -> None:
    """Refuse a model that is another one than it was when the work was planned, or on the machine that did.

    Args:
        name: of the model.
        expected: its fingerprint then; "": not known.
        role: the option that named it, for errors.

    Raises:
        UserError: the content of its files is another one.
    """
    if expected and model_fingerprint(name, role) != expected:
        raise UserError(
            f"{role} {name}: its files are not those that this work began with; they were changed meanwhile, "
            "or differ between the machines: give every machine the same files and run the command again"
        )


def folder_fingerprint(folder: Path) -> str:
    """Return what tells a local model folder's content apart: 16 hex digits of a sha256 over its files."""
    digest = hashlib.sha256()
    for path in sorted(_model_files(folder)):
        digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def _model_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a model: those of its folder, and of the sub-folders that ``modules.json`` names."""
    for place in [folder, *_module_folders(folder)]:
        for path in place.iterdir() if place.is_dir() else ():
            named = path.name.endswith(READ) and not TOLD.match(path.name) and not path.name.startswith(".")
            if named and path.is_file():
                yield path


def _module_folders(folder: Path) -> list[Path]:
    """Return the sub-folders of a sentence-transformers folder, those below it that can be read."""
    try:
        modules = json.loads((folder / MODULES).read_bytes())
        paths = {str(module["path"]) for module in modules}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [folder / path for path in sorted(paths) if path and ".." not in path and not path.startswith("/")]


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a local file; one that has not changed is read once a process."""
    there = path.stat()
    key = (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
    if key not in _known:
        found = sha256_of(path)
        if time.time() - max(there.st_mtime, there.st_ctime) < RACY_SECONDS:
            return found
        _known[key] = found
    return _known[key]


def config_text(config: Any) -> str:
    """Return what of a configuration decides a model's output, as JSON."""
    content = {k: v for k, v in config.to_dict().items() if k not in PRESENTATION}
    return json.dumps(content, sort_keys=True, default=str)
