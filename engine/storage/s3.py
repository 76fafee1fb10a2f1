"""Read and write objects of S3 buckets where pyarrow's file system falls short.

pyarrow lists and reads; uploads, conditional writes and copies of one state go through boto3, since a stream
of pyarrow that breaks off leaves what was written until then under the object's final name. How buckets are
reached, and what is tried again, is in :mod:`engine.storage.s3_client`.

A path is ``bucket/key``, as in pyarrow. Nothing in it is decoded: ``#``, ``?``, ``%`` and ``;`` are letters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from engine.errors import StorageError
from engine.storage.s3_client import CHECK, call, code_of

_BLOCK = 4 << 20
_DELETED_AT_ONCE = 1000

_REFUSED = {"412", "409", "PreconditionFailed", "ConditionalRequestConflict"}
"""Answers of a server to a write whose condition does not hold."""
_MISSING = {"404", "NoSuchKey", "NotFound"}
_BEYOND = {"416", "InvalidRange"}
"""Answers of a server to a range that begins where the object has ended."""
_NO_CONDITIONS = {"501", "NotImplemented"}
"""Answers of a server that knows no conditional writes."""
_CONFLICT_WAITS_S = (0.1, 0.3, 1.0)
"""Waits before a conditional write is sent again that was refused although its condition held: another one
was under way at that moment."""


class ChangedError(Exception):
    """An object is no longer in the state that was asked for."""


class Version(NamedTuple):
    """One state of an object: its size in bytes and its entity tag, which changes with the content."""

    size: int
    etag: str


class UnfinishedUpload(NamedTuple):
    """An upload in parts that was neither ended nor given up: its parts take space and are in no listing."""

    path: str
    upload_id: str
    begun: float
    """Seconds since the epoch."""


def split_address(address: str) -> str:
    """Return the path ``bucket/key`` of an ``s3://`` address, without slashes at its end.

    Raises:
        StorageError: it names no bucket, or its key cannot be told from another one.
    """
    path = address.partition("://")[2].rstrip("/")
    bucket, _, key = path.partition("/")
    if not bucket:
        raise StorageError(f"{address}: names no bucket; write s3://bucket/prefix")
    parts = key.split("/") if key else []
    if "" in parts:
        raise StorageError(
            f"{address}: a key with two slashes after one another is not read; name it with one"
        )
    if {".", ".."} & set(parts):
        raise StorageError(f"{address}: a key with the part '.' or '..' is not read; name the folder itself")
    if any(sign < " " or sign == "\x7f" for sign in path):
        raise StorageError(f"{address!r}: holds a control character; name a key without one")
    return path


def versions(path: str) -> dict[str, Version]:
    """Return the objects below a folder by their paths, sorted, as one listing sees them."""
    bucket, _, key = path.partition("/")
    prefix = f"{key}/" if key else ""

    def listed(s3: Any) -> dict[str, Version]:
        found: dict[str, Version] = {}
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for one in page.get("Contents", ()):
                if not one["Key"].endswith("/"):  # else a folder that a console has made
                    found[f"{bucket}/{one['Key']}"] = Version(one["Size"], one["ETag"])
        return found

    return dict(sorted(call(path, listed).items()))


def version(path: str) -> Version | None:
    """Return the state of an object; None where there is none."""
    return call(path, lambda s3: _head(s3, path))


def read(path: str) -> tuple[bytes, Version] | None:
    """Return an object's content and the state that it is of; None where there is none."""
    bucket, _, key = path.partition("/")

    def got(s3: Any) -> tuple[bytes, Version] | None:
        try:
            answer = s3.get_object(Bucket=bucket, Key=key)
        except s3.exceptions.ClientError as error:
            if code_of(error) in _MISSING:
                return None
            raise
        return answer["Body"].read(), Version(answer["ContentLength"], answer["ETag"])

    return call(path, got)


def read_range(path: str, begin: int, end: int) -> bytes | None:
    """Return the bytes of an object from ``begin`` to before ``end``; fewer where it ends before.

    None where there is no such object.
    """
    bucket, _, key = path.partition("/")

    def got(s3: Any) -> bytes | None:
        try:
            answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={begin}-{end - 1}")
            return bytes(answer["Body"].read())
        except s3.exceptions.ClientError as error:
            if code_of(error) in _MISSING:
                return None
            if code_of(error) in _BEYOND:
                return b""
            raise

    return b"" if begin >= end else call(path, got)


def download(path: str, state: Version, sink: BinaryIO) -> None:
    """Write an object's content to ``sink``, which is emptied before.

    boto3 compares it with the checksum that S3 keeps, where it keeps one of the whole object.

    Raises:
        ChangedError: it is no longer in this state.
    """
    bucket, _, key = path.partition("/")

    def copied(s3: Any) -> None:
        try:
            body = s3.get_object(Bucket=bucket, Key=key, IfMatch=state.etag)["Body"]
        except s3.exceptions.ClientError as error:
            if code_of(error) in _REFUSED | _MISSING:
                raise ChangedError from None
            raise
        sink.seek(0)
        sink.truncate()
        for block in body.iter_chunks(_BLOCK):
            sink.write(block)

    call(path, copied)


def upload(source: Path, path: str) -> None:
    """Write a local file as an object: whole or not at all, and look at its size there.

    boto3 sends a checksum along, which the server compares; large files go in parts, and an object of which
    not all parts have arrived does not exist.

    Raises:
        StorageError: the bucket cannot be written to, or something else arrived.
    """
    bucket, _, key = path.partition("/")
    size = source.stat().st_size

    def written(s3: Any) -> Version | None:
        s3.upload_file(str(source), bucket, key)
        return _head(s3, path)

    there = call(path, written)
    if there is None or there.size != size:
        arrived = "is not there" if there is None else f"has {there.size} bytes"
        raise StorageError(f"s3://{path}: {arrived} after {size} bytes were written; run the command again")


def replace(path: str, content: bytes, expected: Version | None) -> bool:
    """Write an object if it is still in a state, None: if there is none; return whether it was.

    Where the server knows no conditional writes, the state is compared just before. A write whose answer was
    lost is sent again and then refused, as the object is no longer in that state: so what is there then is
    read, and counts as written if it is this content.
    """
    sent: list[bool] = []
    for wait in (*_CONFLICT_WAITS_S, None):
        if call(path, lambda s3: _replaced(s3, path, content, expected, sent)):
            return True
        found = read(path)
        if sent and found is not None and found[0] == content and found[1] != expected:
            return True
        if (None if found is None else found[1]) != expected or wait is None:
            return False
        time.sleep(wait)
    return False


def _replaced(s3: Any, path: str, content: bytes, expected: Version | None, sent: list[bool]) -> bool:
    bucket, _, key = path.partition("/")
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected.etag}
    if _head(s3, path) != expected:
        return False
    sent.append(True)
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=content, **condition)
    except s3.exceptions.ClientError as error:
        if code_of(error) in _REFUSED or (code_of(error) in _MISSING and expected is not None):
            return False
        if code_of(error) not in _NO_CONDITIONS:
            raise
        s3.put_object(Bucket=bucket, Key=key, Body=content)
    return True


def delete(path: str) -> None:
    """Remove an object, if it is there."""
    bucket, _, key = path.partition("/")
    call(path, lambda s3: s3.delete_object(Bucket=bucket, Key=key))


def delete_all(paths: Iterable[str]) -> None:
    """Remove objects of one bucket, a thousand with each request; those that are not there count as removed.

    Raises:
        StorageError: some cannot be removed; names the first.
    """
    left = sorted(paths)
    for first in range(0, len(left), _DELETED_AT_ONCE):
        some = left[first : first + _DELETED_AT_ONCE]
        bucket = some[0].partition("/")[0]
        answer = call(some[0], partial(_deleted, bucket, [path.partition("/")[2] for path in some]))
        if refused := answer.get("Errors"):
            one = refused[0]
            raise StorageError(
                f"s3://{bucket}/{one['Key']}: cannot be removed ({one['Code']}: {one.get('Message', '')}), "
                f"which needs the right s3:DeleteObject; {CHECK}"
            )


def _deleted(bucket: str, keys: list[str], s3: Any) -> Any:
    named = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    return s3.delete_objects(Bucket=bucket, Delete=named)


def unfinished_uploads(path: str) -> list[UnfinishedUpload]:
    """Return the uploads below a folder that a writer left behind, or that are under way."""
    bucket, _, key = path.partition("/")
    prefix = f"{key}/" if key else ""

    def listed(s3: Any) -> list[UnfinishedUpload]:
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        return [
            UnfinishedUpload(f"{bucket}/{one['Key']}", one["UploadId"], one["Initiated"].timestamp())
            for page in pages
            for one in page.get("Uploads", ())
        ]

    return call(path, listed)


def give_up_upload(one: UnfinishedUpload) -> None:
    """Remove the parts of an upload that was not ended; if it has ended meanwhile, nothing happens."""
    bucket, _, key = one.path.partition("/")

    def aborted(s3: Any) -> None:
        try:
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=one.upload_id)
        except s3.exceptions.ClientError as error:
            if code_of(error) not in _MISSING | {"NoSuchUpload"}:
                raise

    call(one.path, aborted)


def _head(s3: Any, path: str) -> Version | None:
    bucket, _, key = path.partition("/")
    try:
        answer = s3.head_object(Bucket=bucket, Key=key)
    except s3.exceptions.ClientError as error:
        if code_of(error) in _MISSING:
            return None
        raise
    return Version(answer["ContentLength"], answer["ETag"])
