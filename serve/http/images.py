"""Say where a bundle's images are served, and read them: what an address brings is what it brought before.

An image's address carries the digest of its content, so that whoever keeps it, keeps the right one: an id
means another entity in the next bundle, and a path may hold another image tomorrow.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from engine.catalogue.entities import Catalogue
from engine.catalogue.sentences import MentionSentence
from engine.corpus.image_addresses import FOLDER
from engine.corpus.importing.images import kind_of
from engine.errors import StorageError
from engine.storage.alike_paths import existing
from engine.storage.workspace import Workspace

logger = logging.getLogger("seedset.serve")

MAX_SENTENCES = 8
"""Sentences of an entity that are looked at for its images: as many as a bundle holds."""
MAX_IMAGE_BYTES = 8 << 20

HASHED_BYTES = 64 << 20
"""Bytes of images whose content is looked at for one answer; further images are named by the bundle."""

IMAGE_TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
"""Media types that browsers show, by :func:`engine.corpus.importing.images.kind_of`."""

_STORED = re.compile(rf"{FOLDER}/([0-9a-f]{{64}})\.[a-z]+")
"""The address of an image that ``import`` stored under the digest of its content."""


@dataclass(frozen=True)
class Image:
    """An image's bytes, media type, and the hex sha256 of the bytes."""

    content: bytes
    media_type: str
    sha256: str


class ImageAddresses:
    """The addresses at which images of one bundle are served, for one answer.

    ``/v1/images/ENTITY/N?sha256=D`` brings the bytes with that digest or nothing, whatever is served then.
    Where the digest would take reading from a bucket, or more than :data:`HASHED_BYTES`, it is
    ``/v1/images/ENTITY/N?bundle=B``, which brings nothing once another bundle is served.
    """

    def __init__(self, workspace: Workspace, bundle: str) -> None:
        self._workspace, self._bundle = workspace, bundle
        self._budget = HASHED_BYTES

    def of(self, entity: int, sentences: Sequence[MentionSentence]) -> list[str]:
        """Return the addresses of the images of some of an entity's sentences, from the first on."""
        return [
            f"/v1/images/{entity}/{n}?{self._condition(address)}"
            for n, address in enumerate(_addresses(sentences))
        ]

    def _condition(self, address: str) -> str:
        digest = self._digest(address)
        return f"sha256={digest}" if digest else f"bundle={self._bundle}"

    def _digest(self, address: str) -> str | None:
        """Return the digest of an image's content, where it costs little."""
        if stored := _STORED.fullmatch(address):
            return stored[1]
        try:
            source = self._workspace.image(address)
            if not source.is_local:
                return None
            about = os.stat(source.path)
            if not 0 < about.st_size <= min(MAX_IMAGE_BYTES, self._budget):
                return None
            self._budget -= (
                about.st_size
            )  # also where the digest is known: equal answers name equal addresses
            return _file_digest(source.path, about.st_size, about.st_mtime_ns)
        except (StorageError, OSError, ValueError):  # the one who asks for the image is told
            return None


@lru_cache(maxsize=1 << 16)
def _file_digest(path: str, size: int, changed_ns: int) -> str:
    """Return the hex sha256 of a local file of that size that was last changed then."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def read_image(catalogue: Catalogue, workspace: Workspace, entity: int, n: int) -> Image | None:
    """Return an image that the bundle names for an entity. Reads from the disk.

    An address is a path, one below the workspace, or in a bucket; what lies there must be an image, so that
    a corpus cannot name other files of this machine.

    Returns:
        None: no such image, or it cannot be read, is too large, or is no image.
    """
    addresses = _addresses(catalogue.sentences([entity], MAX_SENTENCES).get(entity, ()))
    if n >= len(addresses):
        return None
    try:
        source = existing(workspace.image(addresses[n]))
        if not 0 < source.size() <= MAX_IMAGE_BYTES:
            return None
        content = source.read_bytes()
    except (StorageError, OSError, ValueError) as error:  # ValueError: no path at all
        logger.warning("an image cannot be read", extra={"entity": entity, "reason": str(error)})
        return None
    media_type = IMAGE_TYPES.get(kind_of(content))
    return Image(content, media_type, hashlib.sha256(content).hexdigest()) if media_type else None


def _addresses(sentences: Sequence[MentionSentence]) -> list[str]:
    """Return the addresses of images, each once, in the order of the sentences."""
    return list(dict.fromkeys(one.image for one in sentences if one.image))
