"""Read an object of a bucket as a stream that goes on where pyarrow's gives up.

pyarrow tries throttled requests again, but not where the error's text is longer than what was to be read (a
few bytes of a Parquet file's end): that overflows its buffer, and reads as an internal failure.
"""

from __future__ import annotations

import io

import pyarrow as pa

from engine.bucket_errors import of_pyarrow
from engine.storage.s3_client import Waits, call_files

_OVERFLOWN = "Failed to flush response stream"


def open_object(path: str) -> pa.PythonFile:
    """Open an object for reading (seekable).

    Args:
        path: "bucket/key".

    Raises:
        FileNotFoundError: it is not there.
        OSError: as pyarrow raises it.
    """
    return pa.PythonFile(_Object(path), mode="r")


class _Object(io.RawIOBase):
    """A stream of pyarrow that is opened anew, with keys that are still good, where that may help."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._stream = self._opened()
        self._place = 0

    def _opened(self) -> pa.NativeFile:
        return call_files(self._path, lambda fs: fs.open_input_file(self._path))

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, all where that is negative or None; fewer at the end alone."""
        waits = Waits()
        while True:
            try:
                self._stream.seek(self._place)
                found = bytes(self._stream.read(None if size is None or size < 0 else size))
            except OSError as error:
                known = of_pyarrow(str(error))
                if known is None or not waits.again(known[0], broken=_OVERFLOWN in str(error)):
                    raise
                self._stream = self._opened()
            else:
                self._place += len(found)
                return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._stream.size()}[whence]
        self._place = max(0, begin + offset)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self._stream.close()
        super().close()
