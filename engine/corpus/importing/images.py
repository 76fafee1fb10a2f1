"""Store images of contexts that come as bytes, without decoding one."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from engine.corpus.image_addresses import FOLDER, MAX_BYTES
from engine.refusals import Code, Refusal

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
    """Return the kind of an image by its first bytes: png, jpg, gif, webp, bmp, tif, or :data:`UNKNOWN`."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _KINDS if content.startswith(magic)), UNKNOWN)


class ImageWriter:
    """A writer of images that come as bytes into a folder, each content once.

    Args:
        folder: becomes :data:`FOLDER` when the corpus is published; made with the first image.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, content: bytes) -> str:
        """Write an image, and return its address: a path below the workspace."""
        name = f"{hashlib.sha256(content).hexdigest()}.{kind_of(content)}"
        target = self._folder / name
        if not target.exists():
            self._folder.mkdir(exist_ok=True)
            target.write_bytes(content)
        return f"{FOLDER}/{name}"


def decode_image_bytes(given: bytes | str) -> bytes | Refusal:
    """Return the bytes of an image, given as they are or in base64 (line breaks allowed).

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
