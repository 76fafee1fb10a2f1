"""Open text files as they are, or unpacked where their first bytes say that they are compressed.

The content decides, not the name: a compressed file may be called ``a.jsonl``, a plain one ``a.jsonl.gz``.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store

ENDINGS = (".gz", ".zst", ".bz2", ".xz", ".lz4")
"""Endings of compressed files that are read."""

_LFS_POINTER = b"version https://git-lfs"
_GZIP, _XZ, _ZIP = b"\x1f\x8b", b"\xfd7zXZ\0", b"PK\x03\x04"
# With the digits that follow a bzip2 header, so that a text that begins with BZh is none.
_KINDS = ((_GZIP, "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"), (_XZ, "xz"))
_BZIP2_BLOCK = b"1AY&SY"

_PIECE = 4096
"""Bytes that are unpacked at a time: what an error may cost of what stands before it."""


class Readable(Protocol):
    """What is asked of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


class BrokenStreamError(Exception):
    """The rest of a compressed file cannot be unpacked.

    Args:
        refusal: whether it is cut off or broken otherwise.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class _Unpacked:
    """A stream of what another one unpacks; errors of the unpacking are :class:`BrokenStreamError`.

    It reads in small pieces, and hands out what came before an error first.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._error: BrokenStreamError | None = None

    def read(self, size: int = -1, /) -> bytes:
        pieces, missing = [], size
        while missing and not self._error:
            try:
                piece = bytes(self._stream.read(min(missing, _PIECE) if missing > 0 else _PIECE))
            except EOFError:
                self._error = BrokenStreamError(_CUT_OFF)
            except (OSError, lzma.LZMAError) as error:
                self._error = BrokenStreamError(_fault_of(error))
            else:
                if not piece:
                    break
                pieces.append(piece)
                missing -= len(piece)
        if self._error and not pieces:
            raise self._error
        return b"".join(pieces)


def _fault_of(error: Exception) -> Refusal:
    if "Truncated" in str(error):
        return _CUT_OFF
    reason = f"cannot be unpacked from here on ({str(error).splitlines()[0]})"
    return Refusal(Code.FILE_BROKEN, reason)


_CUT_OFF = Refusal(Code.FILE_CUT_OFF, "the compressed file ends too early: it is cut off")


def without_ending(name: str) -> str:
    """Return a file's name in lower case, without the ending of a compressed file."""
    name = name.lower()
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def head_of(file: Store, stream: pa.NativeFile) -> bytes:
    """Return the first bytes of a file, which is then read from its beginning.

    Raises:
        FormatError: Git LFS left a pointer in its place.
    """
    head = bytes(stream.read(len(_LFS_POINTER)))
    stream.seek(0)
    if head == _LFS_POINTER:
        raise FormatError(f"{file.uri}: a pointer of Git LFS, not the file; run `git lfs pull` where it lies")
    return head


@contextmanager
def open_text(file: Store) -> Iterator[Readable]:
    """Yield a stream of a file's bytes, unpacked where it is compressed (gzip, zstd, bzip2, xz, lz4).

    Reading it raises :class:`BrokenStreamError` where a compressed file is cut off or broken.

    Raises:
        StorageError: there is no such file.
        FormatError: it is a zip archive, or a pointer of Git LFS.
    """
    with file.open_input() as stream:
        head = head_of(file, stream)
        if head.startswith(_ZIP):
            raise FormatError(f"{file.uri}: a zip archive, which may hold several files; unpack it first")
        kind = _kind_of(head)
        if not kind:
            yield _Empty() if not head and file.name.lower().endswith(ENDINGS) else stream
        elif kind == "xz":
            with lzma.LZMAFile(stream) as unpacked:
                yield _Unpacked(unpacked)
        else:
            yield _Unpacked(pa.CompressedInputStream(stream, kind))


def is_compressed(file: Store) -> bool:
    """Return whether a file's first bytes say that it is compressed, or a zip archive.

    Raises:
        StorageError: there is no such file.
    """
    with file.open_input() as stream:
        head = bytes(stream.read(16))
    return bool(_kind_of(head)) or head.startswith(_ZIP)


def _kind_of(head: bytes) -> str:
    """Return by what a file is compressed, by its first bytes; empty: by nothing that is known."""
    if head.startswith(b"BZh") and head[4:10] == _BZIP2_BLOCK:
        return "bz2"
    return next((kind for magic, kind in _KINDS if head.startswith(magic)), "")


class _Empty:
    """A compressed file without a byte: what packs nothing still writes a header."""

    def read(self, size: int = -1, /) -> bytes:
        raise BrokenStreamError(_CUT_OFF)
