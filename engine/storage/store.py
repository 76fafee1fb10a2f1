"""Read and write local folders and ``s3://`` prefixes alike; a write appears whole or not at all.

Knows nothing of what is stored, and of buckets no more than :mod:`engine.storage.s3` says.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from engine.errors import MissingFileError, StorageError
from engine.external_errors import translated
from engine.storage import local_files, s3
from engine.storage.local_files import ASIDE, in_one_step, local_path, new_folder, readable_names, swap_in
from engine.storage.object_copies import copied
from engine.storage.object_stream import open_object
from engine.storage.read_only import refuse_read_only
from engine.storage.relative import check_relative
from engine.storage.s3_client import call_files, open_bucket
from engine.storage.staging import note_staged

_CHUNK = 4 << 20
_TRIES = 3
"""Times that what changes while it is copied is copied again."""

P = ParamSpec("P")
T = TypeVar("T")


def machine_cache() -> Path:
    """Return this machine's cache folder: ``SEEDSET_CACHE``, by default ``~/.cache/seedset``."""
    return Path(os.environ.get("SEEDSET_CACHE") or Path.home() / ".cache" / "seedset")


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a local file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_folder(name: str) -> str:
    """Return a local folder with all files of one in a bucket; a name without a scheme comes back as it is.

    The copy lies in the machine's cache, with the sub-folders that the folder has, and files that have left
    the bucket since leave it too: beside new files, an old one could be taken for a part of them.

    Raises:
        StorageError: there is no such folder in the bucket.
    """
    if "://" not in name:
        if os.path.exists(name):  # else it is a name on the hub
            check_relative(name)
        return name
    folder = Store.open(name)
    if folder.is_local:
        return folder.path
    copy = machine_cache() / folder.path
    for _ in range(_TRIES):
        there = _shown(s3.versions(folder.path))
        if not there:
            raise StorageError(f"{name}: no such folder")
        copies = {copied(path, state, machine_cache()) for path, state in there.items()}
        if None not in copies and _shown(s3.versions(folder.path)) == there:
            break
    else:
        raise StorageError(f"{name}: is being written to; run the command again when that is done")
    for path in copy.rglob("*"):
        # Hidden files are left: another process may be writing one that is to become a copy.
        if path.is_file() and path not in copies and not path.name.startswith("."):
            path.unlink(missing_ok=True)
    return str(copy)


def _naming(method: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """Name the file or folder in what a disk or a bucket raises; see :mod:`engine.external_errors`."""

    @wraps(method)
    def named(self: Store, *given: P.args, **by_name: P.kwargs) -> T:
        with translated(self.uri):
            return method(self, *given, **by_name)

    return named


@dataclass(frozen=True)
class Store:
    """A folder, local or in a bucket. ``store / "name"`` is a child (a file or a folder)."""

    fs: pafs.FileSystem
    path: str
    is_local: bool

    @classmethod
    def open(cls, uri: str | os.PathLike[str]) -> Store:
        """Return the store of a local path or an ``s3://bucket/prefix`` address.

        Raises:
            StorageError: a scheme other than a plain path, ``file`` or ``s3``; a bucket that cannot be used.
        """
        text = os.fspath(uri)
        scheme, found, rest = text.partition("://")
        if not found and re.match(r"s3[an]?:", text, re.IGNORECASE):
            raise StorageError(f"{text}: neither a path nor a bucket's address; write s3://bucket/prefix")
        if not found:
            check_relative(text)
            return cls(pafs.LocalFileSystem(), local_path(text), True)
        if scheme.lower() == "file":
            host, _, path = rest.partition("/")
            if host not in ("", "localhost"):
                raise StorageError(
                    f"{text}: names the machine {host!r}; write file:///path, or the path alone"
                )
            return cls(pafs.LocalFileSystem(), local_path(f"/{unquote(path)}"), True)
        refuse_read_only(text)
        if scheme.lower() != "s3":
            raise StorageError(f"{text}: only local paths and s3:// addresses are known")
        path = s3.split_address(text)
        return cls(open_bucket(path), path, False)

    @property
    def uri(self) -> str:
        """The address that :meth:`open` takes."""
        return self.path if self.is_local else f"s3://{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Store:
        """The folder that this file or folder lies in."""
        return replace(self, path=self.path.rpartition("/")[0])

    def __truediv__(self, name: str) -> Store:
        return replace(self, path=f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.uri

    def ask(self, asked: Callable[[pafs.FileSystem], T]) -> T:
        """Ask the file system, in a bucket with keys that are still good, and again where that may help."""
        return asked(self.fs) if self.is_local else call_files(self.path, asked)

    def _opened(self) -> pa.NativeFile:
        return self.fs.open_input_file(self.path) if self.is_local else open_object(self.path)

    def _info(self) -> pafs.FileInfo:
        return self.ask(lambda fs: fs.get_file_info(self.path))

    @_naming
    def exists(self) -> bool:
        """Return whether a file or a folder is there."""
        return bool(self._info().type != pafs.FileType.NotFound)

    @_naming
    def size(self) -> int:
        """Bytes of this file; -1 where there is none."""
        info = self._info()
        return info.size if info.type == pafs.FileType.File else -1

    @_naming
    def files(self, suffix: str | tuple[str, ...] = "") -> list[Store]:
        """Return the files below this folder whose names end in ``suffix``, sorted; none of hidden names or
        in hidden folders.

        Args:
            suffix: one or several; files of other names are left out, what they are called and hold.

        Raises:
            StorageError: the folder cannot be read; the name of a file with the suffix is not UTF-8.
        """
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        try:
            infos = self.ask(lambda fs: fs.get_file_info(selector))
            paths = [info.path for info in infos if info.type == pafs.FileType.File]
        except UnicodeDecodeError:  # pyarrow gives up on a folder with one such name
            paths = readable_names(self.path, suffix)
        start = len(self.path)
        kept = [p for p in paths if p.endswith(suffix) and "/." not in p[start:]]
        return [replace(self, path=p) for p in sorted(kept)]

    @_naming
    def read_bytes(self) -> bytes:
        """Return a file's content, in a bucket after a look at its checksum.

        Raises:
            MissingFileError: it is not there.
        """
        if self.is_local:
            with self.open_input() as stream:
                return bytes(stream.read())
        content = self.read_if_there()
        if content is None:
            raise MissingFileError(f"{self.uri}: no such file")
        return content

    @_naming
    def sha256(self) -> str:
        """Return the hex sha256 of this file's content, read in blocks."""
        with self.open_input() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @_naming
    def open_input(self) -> pa.NativeFile:
        """Open this file for reading (seekable).

        Raises:
            MissingFileError: it is not there.
        """
        try:
            return self._opened()
        except FileNotFoundError:
            raise MissingFileError(f"{self.uri}: no such file") from None

    @_naming
    def read_range(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` to before ``end`` of this file; fewer where it ends before.

        Raises:
            MissingFileError: it is not there.
        """
        if self.is_local:
            with self.open_input() as stream:
                return bytes(stream.read_at(end - begin, begin))
        found = s3.read_range(self.path, begin, end)
        if found is None:
            raise MissingFileError(f"{self.uri}: no such file")
        return found

    @_naming
    def read_if_there(self) -> bytes | None:
        """Return a file's content, or None where there is none."""
        if self.is_local:
            with suppress(FileNotFoundError):  # it went after it was looked for
                path = Path(self.path)
                return path.read_bytes() if path.is_file() else None
            return None
        found = s3.read(self.path)
        return None if found is None else found[0]

    def write_bytes(self, content: bytes) -> None:
        """Write a file so that readers see the old content or the new, never a part of it."""
        with self.writing() as temporary:
            temporary.write_bytes(content)

    def replace_bytes(self, content: bytes, expected: bytes | None) -> bool:
        """Write a file if it still holds what was expected, None: if there is none; return whether it did.

        Of two programs that try at once one is refused: by a lock, or in a bucket by a conditional write.
        """
        if self.is_local:
            with self.locked():
                if self.read_if_there() != expected:
                    return False
                self.write_bytes(content)
            return True
        found = s3.read(self.path)
        if (None if found is None else found[0]) != expected:
            return False
        return s3.replace(self.path, content, None if found is None else found[1])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs that lock this local path out of the block, where the disk knows locks."""
        parent = Path(self.path).parent
        parent.mkdir(parents=True, exist_ok=True)
        with local_files.locked(parent):
            yield

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a local path to write; on a clean exit its content becomes this file in one step."""
        if self.is_local:
            with in_one_step(Path(self.path)) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / self.name
            yield temporary
            s3.upload(temporary, self.path)

    @_naming
    def stamp(self) -> str:
        """Return what changes with the file's content: its size, and the time of change or its entity tag."""
        return f"{self.size()} {_changed(Path(self.path))}" if self.is_local else repr(s3.version(self.path))

    @_naming
    def delete(self) -> None:
        """Remove this file or folder, if it is there."""
        info = self._info()
        if info.type == pafs.FileType.Directory:
            self.ask(lambda fs: fs.delete_dir(self.path))
        elif info.type == pafs.FileType.File:
            # Of a bucket's last file in a folder pyarrow would leave an empty object for the folder.
            self.fs.delete_file(self.path) if self.is_local else s3.delete(self.path)

    @_naming
    def publish_folder(self, folder: Path, last: str) -> None:
        """Move a finished local folder here; readers go by the file ``last``.

        Locally the folder is exchanged for what stood here, in one step where the disk can do that. In a
        bucket, whose objects are each written whole, ``last`` goes first, then the files go up, ``last``
        after them: what is interrupted is not taken for the old folder or the new.
        """
        if self.is_local:
            swap_in(folder, Path(self.path))
            return
        (self / last).delete()
        old = {s.path for s in self.files()}
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        for name in [n for n in names if n != last]:
            s3.upload(folder / name, f"{self.path}/{name}")
            old.discard((self / name).path)
        s3.delete_all(old)
        s3.upload(folder / last, f"{self.path}/{last}")
        shutil.rmtree(folder)

    def in_place_or_aside(self) -> Store:
        """Return this local folder, or where an interrupted :meth:`publish_folder` put what stood here."""
        path = Path(self.path)
        if path.exists():
            return self
        aside = max(path.parent.glob(f".{glob.escape(path.name)}{ASIDE}*"), key=_changed, default=None)
        return self if aside is None else Store(self.fs, str(aside), True)

    @_naming
    def fetch(self, target: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Copy this file to a local path (whole or not at all) and return that path."""
        with in_one_step(target) as temporary, temporary.open("wb") as sink, self.open_input() as source:
            while block := source.read(_CHUNK):
                sink.write(block)
                if progress:
                    progress(len(block))
        return target

    @_naming
    def link_or_fetch(self, target: Path) -> Path:
        """Bring a file that never changes to a local path: by a link where the disk can, else as a copy."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.is_local:
            try:
                os.link(self.path, target)
            except FileExistsError:
                raise
            except OSError:  # another disk, or one without links (exFAT, SMB)
                pass
            else:
                return target
        return self.fetch(target)

    @_naming
    def local_copy(self, cache: Path) -> Path:
        """Return a local path with this file's content: its own, or a copy made in ``cache``.

        A copy is used again while the object has the entity tag that it was made of.

        Raises:
            MissingFileError: it is not there.
        """
        if self.is_local:
            return Path(self.path)
        for _ in range(_TRIES):
            state = s3.version(self.path)
            if state is None:
                raise MissingFileError(f"{self.uri}: no such file")
            if copy := copied(self.path, state, cache):
                return copy
        raise StorageError(f"{self.uri}: is being written to; run the command again when that is done")

    @_naming
    def staging(self) -> Path:
        """Return a new empty local folder to prepare a publication in, on this store's own disk if local."""
        return note_staged(new_folder(Path(self.path) if self.is_local else None))


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def _shown(files: dict[str, s3.Version]) -> dict[str, s3.Version]:
    """Return the files whose names do not begin with a dot."""
    return {path: state for path, state in files.items() if not path.rpartition("/")[2].startswith(".")}
