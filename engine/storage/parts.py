"""Keep a folder of parts: each is made once, the manifest comes last, a rerun makes what is missing.

::

    part-<name>.<suffix>   a file for each suffix; the last one is written last: with it the part is there
    manifest.json          what the parts are together, and in which order; without it nothing is finished

A part is named by its place (``00000``) where the order of files is what people read, else by
:func:`content_key`: a digest of all that it is made from. Then what has not changed is found again under
its name, and one new sentence makes one part anew. Knows nothing of who makes parts, or where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from engine.errors import StorageError
from engine.storage.lock import check_held
from engine.storage.manifests import format_fault
from engine.storage.store import Store
from engine.storage.whole import fault_of

MANIFEST = "manifest.json"
CURRENT = "CURRENT"
"""The pointer beside several folders of parts: the name of the one that was made last."""

BROKEN = (pa.ArrowException, ValueError, KeyError)
"""The errors of reading a file that is not whole; a ``ValidationError`` is a ``ValueError``."""

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


def content_key(*made_from: str | bytes | memoryview) -> str:
    """Return the name of what is made from these pieces, in this order: 16 hex digits of a sha256.

    Args:
        made_from: texts and bytes; where one ends and the next begins counts too.
    """
    digest = hashlib.sha256()
    for piece in made_from:
        content = piece.encode() if isinstance(piece, str) else bytes(piece)
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:16]


def numbered(place: int) -> str:
    """Return the name of the part at a place."""
    return f"{place:05}"


@dataclass(frozen=True)
class PartFolder(Generic[T]):
    """A folder of parts, local or in a bucket.

    Args:
        folder: where they are.
        suffixes: of a part's files, in the order in which they are written.
        read: returns from a part's last file what is known of the part (its counts); raises one of
            :data:`BROKEN` where the file is not whole, and the part then counts as missing.
        fault_of_earlier: returns why one of its other files is not whole, with the same effect.
    """

    folder: Store
    suffixes: tuple[str, ...]
    read: Callable[[Store], T]
    fault_of_earlier: Callable[[Store], str | None] = lambda file: None

    def file(self, name: str, suffix: str | None = None) -> Store:
        """Return a part's file, the last one if no suffix is given."""
        return self.folder / f"part-{name}{suffix or self.suffixes[-1]}"

    @contextmanager
    def writing(self, name: str, suffix: str | None = None) -> Iterator[Path]:
        """Yield a local path to write; on a clean exit it becomes that file of the part, whole."""
        with self.file(name, suffix).writing() as path:
            yield path

    def names(self) -> list[str]:
        """Return the names of the parts all of whose files are there, sorted."""
        there = {file.name for file in self.folder.files()}
        last = self.suffixes[-1]
        named = sorted(
            n[len("part-") : -len(last)] for n in there if n.startswith("part-") and n.endswith(last)
        )
        return [name for name in named if all(f"part-{name}{suffix}" in there for suffix in self.suffixes)]

    def finished(self, wanted: Iterable[str] | None = None) -> dict[str, T]:
        """Return what is known of the parts that are there and whole.

        Args:
            wanted: names to look at, in the order of the answer; default: all that are there, sorted.
        """
        there = self.names()
        if wanted is not None:
            known = set(there)
            there = [name for name in wanted if name in known]
        found: dict[str, T] = {}
        for name in there:
            if any(self.fault_of_earlier(self.file(name, suffix)) for suffix in self.suffixes[:-1]):
                continue  # broken from outside: made again
            try:
                found[name] = self.read(self.file(name))
            except BROKEN:
                continue
        return found

    def check_complete(self, names: Iterable[str], way_out: str) -> None:
        """Refuse a folder in which some of its parts are missing or not whole.

        Args:
            names: of the manifest.
            way_out: a command.

        Raises:
            StorageError: names how many there are of these, and the first three.
        """
        names, there = list(names), set(self.names())
        whole = self.finished(names)
        if missing := [name for name in names if name not in whole]:
            shown = [self.file(name).name + (": cut" if name in there else "") for name in missing[:3]]
            raise StorageError(
                f"{self.folder.uri}: {len(missing)} of {len(names)} parts are missing "
                f"({', '.join(shown)}); {way_out}, it makes what is missing"
            )


def check_whole(file: Store) -> None:
    """Read of a part no more than whether it is whole, for parts of which nothing else is to be known.

    Raises:
        ValueError: it is not.
    """
    if fault := fault_of(file):
        raise ValueError(f"{file.uri}: {fault}")


def read_model(file: Store, kind: type[Model], way_out: str) -> Model:
    """Return a manifest.

    Args:
        file: JSON.
        kind: of the manifest.
        way_out: what to do if it cannot be read.

    Raises:
        StorageError: it is not there, or not of this form.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        if fault := format_fault(error):
            raise StorageError(f"{file.uri}: {fault}") from None
        raise StorageError(f"{file.uri}: cannot be read ({error.errors()[0]['msg']}); {way_out}") from None


def read_each(folder: Store, kind: type[Model]) -> Iterator[Model]:
    """Yield the manifests below a folder that are of one kind; others may lie beside them."""
    for file in folder.files(f"/{MANIFEST}"):
        content = file.read_if_there()
        with suppress(ValidationError):
            yield kind.model_validate_json(content or b"")


def write_model(file: Store, manifest: BaseModel, **options: Any) -> None:
    """Write a manifest as JSON that people can read; ``options`` are pydantic's."""
    file.write_bytes(manifest.model_dump_json(indent=1, **options).encode() + b"\n")


def read_pointer(folder: Store) -> str | None:
    """Return which of several folders below ``folder`` was made last; None where there is none.

    Raises:
        StorageError: the pointer holds no name.
    """
    content = (folder / CURRENT).read_if_there()
    if content is None:
        return None
    name = content.decode(errors="replace").strip()
    if not name or "/" in name or "\ufffd" in name:
        raise StorageError(
            f"{(folder / CURRENT).uri}: names no folder beside it ({name[:40]!r}); run the command that "
            "writes it again"
        )
    return name


def write_pointer(folder: Store, name: str) -> None:
    """Say which folder below ``folder`` was made last.

    Raises:
        StorageError: the lock of this command was taken over.
    """
    check_held(folder)
    (folder / CURRENT).write_bytes(name.encode())
