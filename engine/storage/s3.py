"""Reach S3 buckets: the client of the environment's AWS configuration, and what pyarrow's file system lacks.

Keys, region and endpoint are those of the usual AWS configuration (``AWS_REGION``, ``AWS_DEFAULT_REGION``,
``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, the profile of ``AWS_PROFILE`` in ``~/.aws/config``), in the
order in which AWS' own programs look at them; nothing comes from a file of ours. pyarrow lists and reads;
uploads and conditional writes go through boto3, since a stream of pyarrow that breaks off leaves what was
written until then under the object's final name.

A path is ``bucket/key``, as in pyarrow. Nothing in it is decoded: ``#``, ``?``, ``%`` and ``;`` are letters.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from engine.errors import StorageError

_BLOCK = 4 << 20
_DELETED_AT_ONCE = 1000
_DEFAULT_REGION = "us-east-1"
_LOCATED = ("AWS_", "HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of the names, in capitals, of variables that a client depends on."""

_REFUSED = {"412", "409", "PreconditionFailed", "ConditionalRequestConflict"}
"""Answers of a server to a write whose condition does not hold."""
_MISSING = {"404", "NoSuchKey", "NotFound"}
_NO_CONDITIONS = {"501", "NotImplemented"}
"""Answers of a server that knows no conditional writes."""

_CHECK = (
    "check the bucket's name and the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
    "AWS_ENDPOINT_URL, or the profile in ~/.aws"
)


class ChangedError(Exception):
    """An object is no longer in the state that was asked for."""


class Version(NamedTuple):
    """One state of an object: its size in bytes and its entity tag, which changes with the content."""

    size: int
    etag: str


class _Client(NamedTuple):
    """A boto3 client, its region, its endpoint where that is not AWS' own, and keys for pyarrow."""

    s3: Any
    region: str
    endpoint: str | None
    keys: dict[str, str]


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


def open_bucket(bucket: str) -> pafs.S3FileSystem:
    """Return pyarrow's file system for a bucket, after a check that it can be used.

    Raises:
        StorageError: it cannot; says why, and where to look.
    """
    return _open_bucket(bucket, _environment())


@lru_cache(maxsize=64)
def _open_bucket(bucket: str, environment: tuple[tuple[str, str], ...]) -> pafs.S3FileSystem:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = _client(environment)
        client.s3.head_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise StorageError(f"s3://{bucket}: {error}; {_CHECK}") from None
    if client.endpoint is None:
        return pafs.S3FileSystem(region=client.region, **client.keys)
    parts = urlsplit(client.endpoint)
    return pafs.S3FileSystem(
        endpoint_override=parts.netloc, scheme=parts.scheme, region=client.region, **client.keys
    )


def versions(path: str) -> dict[str, Version]:
    """Return the objects below a folder by their paths, sorted, as one listing sees them."""
    bucket, _, key = path.partition("/")
    prefix = f"{key}/" if key else ""
    found: dict[str, Version] = {}
    with _reaching(path) as s3:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for one in page.get("Contents", ()):
                if not one["Key"].endswith("/"):  # else a folder that a console has made
                    found[f"{bucket}/{one['Key']}"] = Version(one["Size"], one["ETag"])
    return dict(sorted(found.items()))


def version(path: str) -> Version | None:
    """Return the state of an object; None where there is none."""
    bucket, _, key = path.partition("/")
    with _reaching(path) as s3:
        return _head(s3, bucket, key)


def read(path: str) -> tuple[bytes, Version] | None:
    """Return an object's content and the state that it is of; None where there is none."""
    bucket, _, key = path.partition("/")
    with _reaching(path) as s3:
        try:
            answer = s3.get_object(Bucket=bucket, Key=key)
        except s3.exceptions.ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise
        return answer["Body"].read(), Version(answer["ContentLength"], answer["ETag"])


def download(path: str, state: Version, sink: BinaryIO) -> None:
    """Write an object's content to ``sink``.

    Raises:
        ChangedError: it is no longer in this state.
    """
    bucket, _, key = path.partition("/")
    with _reaching(path) as s3:
        try:
            body = s3.get_object(Bucket=bucket, Key=key, IfMatch=state.etag)["Body"]
        except s3.exceptions.ClientError as error:
            if _code(error) in _REFUSED | _MISSING:
                raise ChangedError from None
            raise
        for block in body.iter_chunks(_BLOCK):
            sink.write(block)


def upload(source: Path, path: str) -> None:
    """Write a local file as an object: whole or not at all, and look at its size there.

    boto3 sends a checksum along, which the server compares; large files go in parts, and an object of which
    not all parts have arrived does not exist.

    Raises:
        StorageError: the bucket cannot be written to, or something else arrived.
    """
    bucket, _, key = path.partition("/")
    size = source.stat().st_size
    with _reaching(path) as s3:
        s3.upload_file(str(source), bucket, key)
        there = _head(s3, bucket, key)
    if there is None or there.size != size:
        arrived = "is not there" if there is None else f"has {there.size} bytes"
        raise StorageError(f"s3://{path}: {arrived} after {size} bytes were written; run the command again")


def replace(path: str, content: bytes, expected: Version | None) -> bool:
    """Write an object if it is still in a state, None: if there is none; return whether it was.

    Where the server knows no conditional writes, the state is compared just before.
    """
    bucket, _, key = path.partition("/")
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected.etag}
    with _reaching(path) as s3:
        if _head(s3, bucket, key) != expected:
            return False
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=content, **condition)
        except s3.exceptions.ClientError as error:
            if _code(error) in _REFUSED or (_code(error) in _MISSING and expected is not None):
                return False
            if _code(error) not in _NO_CONDITIONS:
                raise
            s3.put_object(Bucket=bucket, Key=key, Body=content)
    return True


def delete(path: str) -> None:
    """Remove an object, if it is there."""
    bucket, _, key = path.partition("/")
    with _reaching(path) as s3:
        s3.delete_object(Bucket=bucket, Key=key)


def delete_all(paths: Iterable[str]) -> None:
    """Remove objects of one bucket, a thousand with each request; those that are not there count as removed.

    Raises:
        StorageError: some cannot be removed; names the first.
    """
    left = sorted(paths)
    for first in range(0, len(left), _DELETED_AT_ONCE):
        some = left[first : first + _DELETED_AT_ONCE]
        bucket = some[0].partition("/")[0]
        named = [{"Key": path.partition("/")[2]} for path in some]
        with _reaching(some[0]) as s3:
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})
        if refused := answer.get("Errors"):
            one = refused[0]
            raise StorageError(
                f"s3://{bucket}/{one['Key']}: {one['Code']}: {one.get('Message', '')}; {_CHECK}"
            )


@contextmanager
def _reaching(path: str) -> Iterator[Any]:
    """Yield the client; what it raises becomes an error that names the address."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield _client(_environment()).s3
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise StorageError(f"s3://{path}: {error}; {_CHECK}") from None


def _head(s3: Any, bucket: str, key: str) -> Version | None:
    try:
        answer = s3.head_object(Bucket=bucket, Key=key)
    except s3.exceptions.ClientError as error:
        if _code(error) in _MISSING:
            return None
        raise
    return Version(answer["ContentLength"], answer["ETag"])


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((n, v) for n, v in os.environ.items() if n.upper().startswith(_LOCATED)))


@lru_cache(maxsize=8)
def _client(environment: tuple[tuple[str, str], ...]) -> _Client:
    """Return the client of an environment; to make one takes a tenth of a second."""
    import boto3
    from botocore.config import Config

    session = boto3.session.Session()
    # boto3 does not look at AWS_REGION, which AWS' other programs prefer to AWS_DEFAULT_REGION.
    region = os.environ.get("AWS_REGION") or session.region_name or _DEFAULT_REGION
    s3 = session.client("s3", region_name=region)
    # What the endpoint would be without configuration: pyarrow is told of another one only.
    usual = session.client("s3", region_name=region, config=Config(ignore_configured_endpoint_urls=True))
    endpoint = s3.meta.endpoint_url
    return _Client(s3, region, None if endpoint == usual.meta.endpoint_url else endpoint, _keys(session))


def _keys(session: Any) -> dict[str, str]:
    """Return the keys that pyarrow has to be told, since it does not look for them in ``~/.aws/config``."""
    found = session.get_credentials()
    if found is None or found.method not in ("config-file", "assume-role"):
        return {}
    keys = found.get_frozen_credentials()
    told = {"access_key": keys.access_key, "secret_key": keys.secret_key}
    return told | ({"session_token": keys.token} if keys.token else {})
