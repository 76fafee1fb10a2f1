"""Read and write local folders and ``s3://`` prefixes alike; a write appears whole or not at all.

Knows nothing of what is stored. S3 credentials and the endpoint come from the environment
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``), never from
a file of ours; the endpoint is passed on explicitly because pyarrow does not read that variable.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from engine.errors import StorageError

_CHUNK = 4 << 20


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
        return name
    folder = Store.open(name)
    if folder.is_local:
        return folder.path
    copies = {file.local_copy(machine_cache()) for file in folder.files()}
    if not copies:
        raise StorageError(f"{name}: no such folder")
    copy = machine_cache() / folder.path
    for path in copy.rglob("*"):
        # Hidden files are left: another process may be writing one that is to become a copy.
        if path.is_file() and path not in copies and not path.name.startswith("."):
            path.unlink(missing_ok=True)
    return str(copy)


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
        parts = urlsplit(text) if "://" in text else None
        if parts is None:
            return cls(pafs.LocalFileSystem(), str(Path(text).expanduser().resolve()), True)
        if parts.scheme == "file":
            return cls(pafs.LocalFileSystem(), str(Path(parts.path).resolve()), True)
        if parts.scheme != "s3":
            raise StorageError(f"{text}: only local paths and s3:// addresses are known")
        if not parts.netloc:
            raise StorageError(f"{text}: names no bucket; write s3://bucket/prefix")
        return cls(_s3(parts.netloc), (parts.netloc + parts.path).rstrip("/"), False)

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
        return Store(self.fs, self.path.rpartition("/")[0], self.is_local)

    def __truediv__(self, name: str) -> Store:
        return Store(self.fs, f"{self.path}/{name}", self.is_local)

    def __str__(self) -> str:
        return self.uri

    def exists(self) -> bool:
        """Return whether a file or a folder is there."""
        return bool(self.fs.get_file_info(self.path).type != pafs.FileType.NotFound)

    def size(self) -> int:
        """Bytes of this file; -1 where there is none."""
        info = self.fs.get_file_info(self.path)
        return info.size if info.type == pafs.FileType.File else -1

    def files(self, suffix: str = "") -> list[Store]:
        """Return the files below this folder whose names end in ``suffix``, sorted; none of hidden names or
        in hidden folders."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        paths = [i.path for i in self.fs.get_file_info(selector) if i.type == pafs.FileType.File]
        start = len(self.path)
        kept = [p for p in paths if p.endswith(suffix) and "/." not in p[start:]]
        return [Store(self.fs, p, self.is_local) for p in sorted(kept)]

    def read_bytes(self) -> bytes:
        """Return a file's content."""
        with self.open_input() as stream:
            return bytes(stream.read())

    def sha256(self) -> str:
        """Return the hex sha256 of this file's content, read in blocks."""
        with self.open_input() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def open_input(self) -> pa.NativeFile:
        """Open this file for reading (seekable).

        Raises:
            StorageError: it is not there.
        """
        try:
            return self.fs.open_input_file(self.path)
        except FileNotFoundError:
            raise StorageError(f"{self.uri}: no such file") from None

    def write_bytes(self, content: bytes) -> None:
        """Write a file so that readers see the old content or the new, never a part of it."""
        with self.writing() as temporary:
            temporary.write_bytes(content)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a local path to write; on a clean exit its content becomes this file in one step."""
        if self.is_local:
            target = Path(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                yield temporary
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / self.name
            yield temporary
            self._upload(temporary)

    def delete(self) -> None:
        """Remove this file or folder, if it is there."""
        info = self.fs.get_file_info(self.path)
        if info.type == pafs.FileType.Directory:
            self.fs.delete_dir(self.path)
        elif info.type == pafs.FileType.File:
            self.fs.delete_file(self.path)

    def publish_folder(self, folder: Path, last: str) -> None:
        """Move a finished local folder here; readers go by the file ``last``, which arrives last.

        Locally the folder is swapped in by a rename. In a bucket, whose objects are each written whole,
        the files go up first, ``last`` after them, and then what the old folder held besides is removed.
        """
        if self.is_local:
            _swap_in(folder, Path(self.path))
            return
        old = {s.path for s in self.files()}
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        for name in [n for n in names if n != last] + [last]:
            (self / name)._upload(folder / name)
            old.discard((self / name).path)
        for path in old:
            self.fs.delete_file(path)
        shutil.rmtree(folder)

    def fetch(self, target: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Copy this file to a local path (whole or not at all) and return that path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with self.open_input() as source, temporary.open("wb") as sink:
                while block := source.read(_CHUNK):
                    sink.write(block)
                    if progress:
                        progress(len(block))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def local_copy(self, cache: Path) -> Path:
        """Return a local path with this file's content: its own, or a copy made in ``cache``.

        A copy is used again while the file has the size and the time of change that it was made of.
        """
        if self.is_local:
            return Path(self.path)
        target = cache / self.path
        info = self.fs.get_file_info(self.path)
        if target.exists():
            there = target.stat()
            if (there.st_size, there.st_mtime_ns) == (info.size, info.mtime_ns):
                return target
        self.fetch(target)
        os.utime(target, ns=(info.mtime_ns, info.mtime_ns))
        return target

    def staging(self) -> Path:
        """Return a new empty local folder to prepare a publication in, on this store's own disk if local."""
        if not self.is_local:
            return Path(tempfile.mkdtemp(prefix="staging-"))
        parent = Path(self.path).parent
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{self.name}-", dir=parent))

    def _upload(self, source: Path) -> None:
        with source.open("rb") as stream, self.fs.open_output_stream(self.path) as sink:
            while block := stream.read(_CHUNK):
                sink.write(block)


def _swap_in(folder: Path, target: Path) -> None:
    """Rename ``folder`` to ``target``; what stood there is moved aside first and removed after."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    aside = target.with_name(f".{target.name}-old-{uuid.uuid4().hex}")
    if target.exists():
        os.rename(target, aside)
    os.rename(folder, target)
    shutil.rmtree(aside, ignore_errors=True)


def _s3(bucket: str) -> pafs.S3FileSystem:
    """Return the S3 file system of the environment, after a check that the bucket can be used."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        boto3.client("s3", endpoint_url=endpoint, region_name=region).head_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        raise StorageError(
            f"s3://{bucket}: {error}; check the bucket's name and the variables AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        ) from None
    if endpoint is None:
        return pafs.S3FileSystem(region=region)
    parts = urlsplit(endpoint)
    return pafs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, region=region)
