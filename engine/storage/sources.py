"""Open sources that are only read from: Google Cloud Storage, Azure Data Lake, HDFS, the Hugging Face hub.

pyarrow reaches them, the hub through its own library, with the keys that each one's own programs use. What
follows the bucket in an address is the path as it stands: nothing in it is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.fs as pafs

from engine.errors import StorageError
from engine.external_errors import first_line, package_of
from engine.storage.read_only import READ_ONLY, read_only_scheme
from engine.storage.store import Store, T

_SHOWN = 200
"""Characters of another library's error that are shown."""

_UNREACHED = (pa.ArrowException, OSError, ValueError, ImportError)
_CLIENTS = ("huggingface_hub", "httpx", "httpx2")
"""Packages of the hub's library and of its HTTP client, whose errors are none of the system's."""

_DATA_SETS = "datasets"
"""Where the hub's library has data sets."""

_RETRIED_S = 30
"""Seconds for which requests to Google Cloud Storage are repeated; by default it is a quarter of an hour."""


def source_store(address: str | os.PathLike[str]) -> Store:
    """Return the store of what is read: what :meth:`Store.open` takes, or a place that is only read from.

    Raises:
        StorageError: as there; the place cannot be reached.
    """
    text = os.fspath(address)
    scheme = read_only_scheme(text)
    if scheme is None:
        return Store.open(text)
    host, _, inside = text.partition("://")[2].partition("/")
    origin, inside = f"{scheme}://{host}", inside.rstrip("/")
    if scheme == "hf" and host == "datasets":  # as the hub's library writes addresses
        host, _, inside = inside.partition("/")
    if not host:
        raise StorageError(f"{text}: names no {READ_ONLY[scheme].place}; write {scheme}://NAME/path")
    if {"", ".", ".."} & set(inside.split("/") if inside else ()):
        raise StorageError(
            f"{text}: a path with the part '', '.' or '..' is not read; name the folder itself"
        )
    if scheme == "hf":
        return _data_set(text, host, inside)
    with _reaching(text, scheme):
        fs, base = _file_system(origin)
        path = "/".join(filter(None, (base.rstrip("/"), inside))) if base != "/" else f"/{inside}"
        fs.get_file_info(path)
    return SourceStore(fs, path, False, origin, base.rstrip("/"))


@lru_cache(maxsize=64)
def _file_system(origin: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of an address without a path, and the path in it that the address stands for."""
    query = f"?retry_limit_seconds={_RETRIED_S}" if origin.startswith(("gs:", "gcs:")) else ""
    fs, path = pafs.FileSystem.from_uri(origin + query)
    return fs, path


def _data_set(address: str, owner: str, inside: str) -> HubStore:
    """Return what is in a data set of the Hugging Face hub, or of the one that ``HF_ENDPOINT`` names.

    Raises:
        StorageError: the address names none; there is none, or it cannot be reached.
    """
    if not inside:
        raise StorageError(f"{address}: names no data set; write hf://OWNER/NAME, or hf://OWNER/NAME/path")
    with _reaching(address, "hf"):
        from huggingface_hub import HfFileSystem, constants  # a second to load

        hub = HfFileSystem(endpoint=constants.ENDPOINT)
        hub.info("/".join((_DATA_SETS, owner, inside.partition("/")[0])))
        fs = pafs.PyFileSystem(pafs.FSSpecHandler(hub))
    return HubStore(fs, f"{_DATA_SETS}/{owner}/{inside}", False, "hf:/", _DATA_SETS)


@contextmanager
def _reaching(address: str, scheme: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not (isinstance(error, _UNREACHED) or package_of(error) in _CLIENTS):
            raise
        reason = first_line(error)
        shown = reason if len(reason) <= _SHOWN else f"{reason[:_SHOWN]}…"
        raise StorageError(
            f"{address}: cannot be reached ({shown}); check {READ_ONLY[scheme].check}"
        ) from None


@dataclass(frozen=True)
class SourceStore(Store):
    """A file or folder in a file system that is only read from.

    Args:
        origin: address of the bucket, the container or the name node.
        base: its path.
    """

    origin: str = ""
    base: str = ""

    @property
    def uri(self) -> str:
        """The address that :func:`source_store` takes."""
        inside = self.path[len(self.base) :].strip("/")
        return f"{self.origin}/{inside}" if inside else self.origin

    def ask(self, asked: Callable[[pafs.FileSystem], T]) -> T:
        """Ask the file system, which tries again by itself."""
        return asked(self.fs)

    def _opened(self) -> pa.NativeFile:
        return self.fs.open_input_file(self.path)

    def read_bytes(self) -> bytes:
        """Return a file's content."""
        with self.open_input() as stream:
            return bytes(stream.read())

    def read_if_there(self) -> bytes | None:
        """Return a file's content, or None where there is none."""
        return self.read_bytes() if self.size() >= 0 else None

    def stamp(self) -> str:
        """Return what changes with the file's content: its size, and the time of change."""
        info = self.fs.get_file_info(self.path)
        return f"{info.size} {info.mtime_ns}"

    def local_copy(self, cache: Path) -> Path:
        """Return a copy made in ``cache``, of which the state of the file is a part of the name."""
        scheme, _, rest = self.uri.partition("://")
        folder, _, name = f"{scheme}/{rest}".rpartition("/")
        target = cache / folder / self.stamp().replace(" ", "-") / name
        return target if target.exists() else self.fetch(target)

    def _refuse(self, *given: object, **by_name: object) -> NoReturn:
        raise StorageError(f"{self.uri}: is only read from; write to a local path or to s3://bucket/prefix")

    writing = replace_bytes = locked = delete = publish_folder = staging = _refuse


@dataclass(frozen=True)
class HubStore(SourceStore):
    """A file or folder of a data set on the Hugging Face hub."""

    def stamp(self) -> str:
        """Return what changes with the file's content: the hub's digest of it."""
        found = self.fs.handler.fs.info(self.path)
        return f"{found['size']} {found['blob_id']}"
