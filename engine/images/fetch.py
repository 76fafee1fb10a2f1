"""Read the files behind images' addresses: the first pass, which hashes and checks but decodes nothing.

Needs no model, so it starts at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from engine.corpus.image_addresses import MAX_BYTES
from engine.errors import MissingFileError, StorageError, UserError
from engine.images.decode import UnusableImageError, check
from engine.refusals import Code, Refusal
from engine.storage.alike_paths import alike
from engine.storage.store import Store
from engine.storage.workspace import Workspace

WAITING_THREADS = 8
"""Threads that read from a bucket, where most of the time is waiting, or that feed a GPU."""


class ImageFiles:
    """The files behind the addresses of a workspace's images.

    A bucket is opened once: to ask for each image whether the bucket can be used would double the requests.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._buckets: dict[str, Store] = {}

    def store(self, address: str) -> Store:
        """Return the file; it need not exist.

        Raises:
            UnusableImageError: an address of a kind that is not known.
            StorageError: its bucket cannot be used.
        """
        if not address.startswith("s3://"):
            try:
                return self._workspace.image(address)
            except StorageError as error:
                raise UnusableImageError(Refusal(Code.IMAGE_ADDRESS, str(error))) from None
        bucket, _, name = address.removeprefix("s3://").partition("/")
        if bucket not in self._buckets:
            self._buckets[bucket] = Store.open(f"s3://{bucket}")
        return self._buckets[bucket] / name

    def threads(self, addresses: Sequence[str]) -> int:
        """Return how many threads should read these: one from a disk, more from a bucket."""
        far = not self._workspace.root.is_local or any(a.startswith("s3://") for a in addresses)
        return WAITING_THREADS if far else 1

    def read(self, address: str) -> bytes:
        """Return a file's content, no more of it than shows that it is too large.

        Raises:
            UnusableImageError: it is not there, or cannot be read.
            StorageError: its bucket cannot be used.
        """
        return self._content(self.store(address), address)

    def _content(self, store: Store, address: str) -> bytes:
        # A pipe would be waited for, and there is no end to some devices.
        if store.is_local and os.path.exists(store.path) and not os.path.isfile(store.path):
            reason = "cannot be read: not a regular file"
            raise UnusableImageError(Refusal(Code.IMAGE_UNREADABLE, reason))
        try:
            with store.open_input() as stream:
                return bytes(stream.read(MAX_BYTES + 1))
        except MissingFileError:
            found = alike(store)
            if len(found) == 1:
                return self._content(found[0], address)
            told = f"; spelt alike are {', '.join(repr(one.name) for one in found)}" if found else ""
            raise UnusableImageError(Refusal(Code.IMAGE_MISSING, f"missing: no such file{told}")) from None
        except (UserError, OSError) as error:
            if store.is_local:
                reason = f"cannot be read: {error}"
                raise UnusableImageError(Refusal(Code.IMAGE_UNREADABLE, reason)) from None
            # The network or the keys failed, not the image. A rerun continues from here.
            raise StorageError(f"{address}: {error}; run the job again, it makes what is missing") from None


def there_after_all(files: ImageFiles, missing: Iterable[str]) -> Iterator[str]:
    """Yield the local images among those called missing that this process finds."""
    for address in missing:
        store = files.store(address)
        if store.is_local and store.exists():
            yield address


def check_seen(files: ImageFiles, missing: Iterable[str]) -> None:
    """Refuse to call images missing that are there: they came meanwhile, or a node does not see their disk.

    Raises:
        UserError: names the first of them.
    """
    for address in there_after_all(files, missing):
        raise UserError(
            f"{address}: this image is there, and was not where a worker looked for it. If it came "
            "meanwhile, run the command again. If the worker is on another node that does not see it, put "
            "images on a disk that all nodes share or in a bucket, or work here alone, without RAY_ADDRESS"
        )


class HashedImage(NamedTuple):
    """An address's content: its sha256, "" where it cannot be read, and why it is refused."""

    sha256: str
    refusal: Refusal | None

    @property
    def reason(self) -> str:
        """The refusal's detail; "" where there is none."""
        return self.refusal.detail if self.refusal else ""


class ImageHasher:
    """The first pass, a worker: reads each address, hashes its content, and checks all but the decoding.

    Args:
        workspace: its address.
    """

    def __init__(self, workspace: str) -> None:
        self._files = ImageFiles(Workspace.open(workspace))

    def __call__(self, addresses: Sequence[str]) -> list[HashedImage]:
        """Return what is behind each address, in their order.

        Raises:
            StorageError: a bucket cannot be used.
        """
        with ThreadPoolExecutor(self._files.threads(addresses)) as pool:
            return list(pool.map(self.hashed, addresses))

    def hashed(self, address: str) -> HashedImage:
        """Return what is behind one address."""
        sha256 = ""
        try:
            content = self._files.read(address)
            sha256 = hashlib.sha256(content).hexdigest()
            check(content)
        except UnusableImageError as error:
            return HashedImage(sha256, error.refusal)
        return HashedImage(sha256, None)
