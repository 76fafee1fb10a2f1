"""Pictures of contexts: where they lie, and those that come as bytes. Never decodes one."""

from __future__ import annotations

import base64
import hashlib
import posixpath
from pathlib import Path

from engine.corpus.text import fault_of_name
from engine.refusals import Code, Refusal
from engine.storage.store import Store

FOLDER = "corpus/images"
"""Of a workspace: ``<sha256 of the content>.<kind>``."""

MAX_BYTES = 32 << 20
MAX_ADDRESS = 4096
"""Characters."""

UNKNOWN = "bin"
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


def kind_of(content: bytes) -> str:
    """Return the kind of a picture by its first bytes: png, jpg, gif, webp, bmp, tif, or :data:`UNKNOWN`."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _KINDS if content.startswith(magic)), UNKNOWN)


def address_in(folder: Store, image: str) -> str:
    """Return the address of an image that a source in ``folder`` names: a relative path lies below it."""
    if image.startswith("file:///"):
        return image.removeprefix("file://")
    if "://" in image or image.startswith("/"):
        return image
    return Store(folder.fs, posixpath.normpath(f"{folder.path}/{image}"), folder.is_local).uri


def fault_of_address(address: str) -> Refusal | None:
    """Return why an address (of :func:`address_in`) cannot be stored, or None; nothing is opened."""
    if fault := fault_of_name(address, MAX_ADDRESS):
        return fault
    if not address.startswith(("/", "s3://")):
        return Refusal(Code.IMAGE_ADDRESS, f"{address[:80]!r} is no path and no s3:// address")
    return None


class Pictures:
    """Writes pictures that come as bytes into a folder, each content once.

    Args:
        folder: becomes :data:`FOLDER` when the corpus is published; made with the first picture.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, content: bytes) -> str:
        """Write a picture, and return its address: a path below the workspace."""
        name = f"{hashlib.sha256(content).hexdigest()}.{kind_of(content)}"
        target = self._folder / name
        if not target.exists():
            self._folder.mkdir(exist_ok=True)
            target.write_bytes(content)
        return f"{FOLDER}/{name}"


def picture_bytes(given: bytes | str) -> bytes | Refusal:
    """Return the bytes of a picture, given as they are or in base64 (line breaks allowed).

    It is refused where the text is not base64, and where it is larger than :data:`MAX_BYTES`.
    """
    if isinstance(given, str):
        try:
            given = base64.b64decode("".join(given.split()), validate=True)
        except ValueError as error:
            return Refusal(Code.IMAGE_NOT_BASE64, f"are not base64 ({error})")
    if len(given) > MAX_BYTES:
        return Refusal(Code.IMAGE_TOO_LARGE, f"are more than {MAX_BYTES >> 20} MiB")
    return given
