"""Turn what the outside throws (disks, networks, libraries that read files) into errors that a user can mend.

The one table of them. An error is known by the number that the operating system gave it, or by the package
that defines its class; packages are compared by name, so that nothing is imported here. What is in no row is
left as it is: a defect of the program keeps its traceback.
"""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.bucket_errors import meaning, of_pyarrow
from engine.errors import FormatError, StorageError, UserError

AGAIN = "then run the command again"

_PERMISSION = "give this account the right to it, or name another place"

WAYS_OUT: dict[int | None, str] = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; check the path",
    errno.EISDIR: "a file belongs there, and there is a folder; check the path",
    errno.EEXIST: "something is there already; name another place",
    errno.ENOTEMPTY: "something else wrote there at the same time; run the command again",
    errno.ELOOP: "its links lead in a circle; name the place itself",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: f"free space or name a place on another disk, {AGAIN}",
    errno.EDQUOT: f"free space or name a place on another disk, {AGAIN}",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or name a place on another file system",
    errno.ENAMETOOLONG: "a file system takes names of up to 255 bytes; shorten it",
    errno.EMFILE: f"raise the limit of open files (ulimit -n), {AGAIN}",
    errno.ENFILE: f"this machine has too many files open; close some, {AGAIN}",
    errno.ENOMEM: "take fewer --workers or smaller batches, or a machine with more memory",
    errno.EAGAIN: f"raise the limit of processes (ulimit -u), {AGAIN}",
    errno.EIO: f"the disk or the network share fails; check it, {AGAIN}",
    errno.ESTALE: f"the network share was lost; mount it again, {AGAIN}",
    errno.EILSEQ: "the file system does not take this name; rename the file",
    errno.EINVAL: "the place does not take this; name another one",
    errno.EXDEV: "put both on one file system",
    errno.EADDRINUSE: "something listens there already; choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another one",
    errno.ECONNREFUSED: f"nothing listens there; check the address, {AGAIN}",
    errno.ECONNRESET: f"the other side ended the connection; check the network, {AGAIN}",
    errno.ETIMEDOUT: f"no answer came in time; check the address and the network, {AGAIN}",
    errno.EHOSTUNREACH: f"check the address and the network, {AGAIN}",
    errno.ENETUNREACH: f"check the address and the network, {AGAIN}",
}
"""The way out by the operating system's number."""

_COPY_AGAIN = "copy the file again, or make it again; it may be cut off"
_NETWORK = f"check the address and the network (and HTTP_PROXY), {AGAIN}"
_BUCKET = (
    "check the bucket's name, the network and the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
    "AWS_REGION and AWS_ENDPOINT_URL"
)
_MEMORY = "take fewer --workers or smaller batches, or a machine with more memory"

PACKAGES: dict[str, tuple[str, str]] = {
    "safetensors": ("the weights cannot be read", _COPY_AGAIN),
    "tokenizers": ("the tokenizer cannot be read", "write it again with the installed tokenizers"),
    "transformers": ("the model cannot be read", "write it again with save_pretrained"),
    "huggingface_hub": ("the model cannot be fetched", _NETWORK),
    "pyarrow": ("the file cannot be read", _COPY_AGAIN),
    "botocore": ("the bucket cannot be used", _BUCKET),
    "boto3": ("the bucket cannot be used", _BUCKET),
    "httpx": ("the network fails", _NETWORK),
    "httpx2": ("the network fails", _NETWORK),
    "httpcore": ("the network fails", _NETWORK),
    "requests": ("the network fails", _NETWORK),
    "urllib3": ("the network fails", _NETWORK),
    "ijson": ("not JSON", _COPY_AGAIN),
    "yaml": ("not YAML", "mend it at the place named"),
    "PIL": ("the image cannot be read", _COPY_AGAIN),
    "pydantic_core": ("not of the documented form", "make it again"),
}
"""What an error of a package says, and the way out."""

_BY_TEXT = {
    os.strerror(number): number
    for number in (
        errno.ENOENT,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EIO,
        errno.ENOMEM,
        errno.EMFILE,
    )
}
_IN_TEXT = re.compile(rf"\(os error (?P<number>\d+)\)|(?P<text>{'|'.join(_BY_TEXT)})")
"""What libraries in other languages write of the operating system's errors: Rust's number, C's words."""

_CUT_BY_TORCH = re.compile(r"inline_container\.cc:\d+\] \. unexpected pos|^basic_ios::clear: iostream error")
"""What ``torch.save`` says where its file could not be written on; why, it does not tell: a full disk nearly
always."""

_NUMBER = re.compile(r"^\[Errno \d+\] ")
_DETAIL = re.compile(r"\.? Detail: .*", re.DOTALL)


def as_user_error(error: BaseException, place: str = "", way_out: str = "") -> UserError | None:
    """Return an error of the outside as one line with the place and the way out; None for any other.

    Args:
        error: as it was raised.
        place: file or address that was in use; where the error names another one, both are named.
        way_out: what mends it; default: by the error.
    """
    if isinstance(error, UserError):
        return error
    known = _told(error)
    if known is None:
        return None
    kind, what, reason, usual = known
    what = "" if what in place else what
    public = "the service lacks memory, or cannot read a file that it needs" if kind is UserError else ""
    return kind(": ".join(filter(None, (place, what, reason))) + f"; {way_out or usual}", public=public)


@contextmanager
def translated(
    place: str, way_out: str = "", hidden: Sequence[str] = (), system_only: bool = False
) -> Iterator[None]:
    """Name a place in whatever of the outside fails in the block; see :func:`as_user_error`.

    Args:
        place: file or address that is in use.
        way_out: what mends it; default: by the error.
        hidden: names of temporary files, which no error shows: they stand for the place.
        system_only: leave what the operating system has no part in.

    Raises:
        UserError: in place of the outside's error, which is its cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if system_only and system_number(error) is None:
            raise
        if isinstance(error, OSError) and str(error.filename) in hidden:
            error.filename = error.filename2 = None
        found = as_user_error(error, place, way_out)
        if found is None:
            raise
        raise found from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    lines = [line.strip() for line in str(error).split("\n")]
    return next(filter(None, lines), type(error).__name__).rstrip(" .;:")


def package_of(error: BaseException) -> str:
    """Return the name of the package that defines an error's class."""
    return type(error).__module__.partition(".")[0]


def system_number(error: BaseException) -> int | None:
    """Return the operating system's number of an error, also of one that only tells it in its text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if found := _IN_TEXT.search(str(error)):
        number = int(found["number"]) if found["number"] else _BY_TEXT[found["text"]]
        return number if number in WAYS_OUT else None
    return None


def _told(error: BaseException) -> tuple[type[UserError], str, str, str] | None:
    """Return the kind of error, what it is about, the reason and the way out; None: not of the outside."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return UserError, "", "there is not enough memory", _MEMORY
    if isinstance(error, UnicodeError):
        return FormatError, *_of_unicode(error)
    if isinstance(error, RecursionError):
        return FormatError, "", "nested too deeply", "write it with fewer levels"
    if isinstance(error, json.JSONDecodeError):
        return FormatError, "", f"not JSON ({first_line(error)})", "mend it at the place named"
    if isinstance(error, zlib.error | EOFError):
        return FormatError, "", f"cannot be decompressed ({first_line(error)})", _COPY_AGAIN
    if (number := system_number(error)) and not isinstance(error, OSError):
        lines = [line.strip() for line in str(error).split("\n") if _IN_TEXT.search(line)]
        return StorageError, "", lines[0].rstrip(" .;:"), WAYS_OUT[number]
    if isinstance(error, RuntimeError) and _CUT_BY_TORCH.search(str(error)):
        reason = f"cannot be written to its end, as on a full disk ({first_line(error)})"
        return StorageError, "", reason, WAYS_OUT[errno.ENOSPC]
    if package_of(error) in PACKAGES:
        what, way_out = PACKAGES[package_of(error)]
        return StorageError, "", f"{what} ({first_line(error)})", way_out
    if isinstance(error, OSError):
        return StorageError, *_of_system(error)
    if type(error) is Exception:  # libraries that are not written in Python raise these
        return UserError, "", first_line(error), "check what was given"
    return None


def _of_system(error: OSError) -> tuple[str, str, str]:
    """Return what an error of the operating system is about, the reason and the way out."""
    named = (error.filename, error.filename2)
    files = [os.fsdecode(one) for one in named if isinstance(one, str | bytes | os.PathLike)]
    reason = os.strerror(error.errno) if error.errno else ""
    text = _DETAIL.sub("", _NUMBER.sub("", first_line(error)))  # pyarrow's stand in no attribute
    if refused := of_pyarrow(str(error)):
        what, way_out = meaning(*refused) or ("", _BUCKET)
        return what, first_line(error), way_out
    if "AWS Error" in str(error):
        return "", first_line(error), _BUCKET
    if not reason:
        return "", text, f"check the place and the network, {AGAIN}"
    usual = WAYS_OUT.get(error.errno, f"check the place, {AGAIN}")
    if files or text.startswith(reason) or error.strerror == reason:
        return " and ".join(files), reason, usual
    return "", f"{text}: {reason}", usual


def _of_unicode(error: UnicodeError) -> tuple[str, str, str]:
    """Return what a text that cannot be encoded or decoded is about, the reason and the way out."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return "", f"not UTF-8 (0x{byte:02x} at byte {error.start})", "write it as UTF-8"
    if isinstance(error, UnicodeEncodeError):
        begin, text = max(0, error.start - 40), error.object
        shown = ascii(("…" if begin else "") + text[begin : error.end + 40])
        if error.encoding.lower().replace("-", "") != "utf8":
            return "", f"{shown} cannot be written in {error.encoding}", "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"
        return "", f"{shown} is not UTF-8", "rename the file, or write the text as UTF-8"
    return "", first_line(error), "write it as UTF-8"
