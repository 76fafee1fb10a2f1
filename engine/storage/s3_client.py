"""Reach S3 buckets with the environment's AWS configuration: clients, what is tried again, and what is said.

Keys, region and endpoint are those of the usual AWS configuration (``AWS_REGION``, ``AWS_DEFAULT_REGION``,
``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, the profile of ``AWS_PROFILE`` in ``~/.aws/config``), in the
order in which AWS' own programs look at them; nothing comes from a file of ours.

Requests that are throttled (503 SlowDown), that the server fails at (500), or whose connection breaks are
tried again by boto3 and pyarrow, :data:`TRIES` times in all unless AWS_MAX_ATTEMPTS says otherwise. Here are
tried again: answers that break off or whose checksum is wrong, refusals that may pass (a right that was just
given), and once, with keys that are read anew, what was refused as the session's token had expired.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from engine.bucket_errors import DENIED, EXPIRED, meaning, of_pyarrow
from engine.errors import StorageError

T = TypeVar("T")

TRIES = 10
"""Times that a request is sent: throttling passes in seconds, boto3's usual three take less than two."""
DENIED_WAITS_S = (0.5, 1.5)
"""Waits before a refused request is sent again: rights reach all of S3 some seconds after they were given."""
BROKEN_WAITS_S = (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0)
"""Waits before an answer that broke off is asked for again."""

_DEFAULT_REGION = "us-east-1"
_LOCATED = ("AWS_", "HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of the names, in capitals, of variables that a client depends on."""

CHECK = (
    "check the bucket's name and the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
    "AWS_ENDPOINT_URL, or the profile in ~/.aws"
)

_WITHOUT_TEXT = ("HeadObject", "HeadBucket")

Environment = tuple[tuple[str, str], ...]

_usable: set[tuple[str, Environment]] = set()
"""Buckets that were reached, with the environment in which they were."""


class Client(NamedTuple):
    """A boto3 client and its session; and for pyarrow the region, and what else it is told."""

    s3: Any
    session: Any
    region: str
    endpoint: str | None
    """None: AWS' own."""
    tries: int
    options: dict[str, Any]


def call(path: str, operation: Callable[[Any], T]) -> T:
    """Call what asks a bucket, and again where that may help; see above.

    Args:
        path: "bucket/key", for what is said of it.
        operation: takes the client; it is called anew from its beginning.

    Raises:
        StorageError: names the address, what is missing, and the way out.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    waits = Waits()
    while True:
        try:
            return operation(_made(path).s3)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            cause = _reason(path, _cause(error))
            if not waits.again(code_of(cause), _is_broken(cause)):
                raise StorageError(f"s3://{path}: {_said(cause)}") from None


def call_files(path: str, operation: Callable[[pafs.FileSystem], T]) -> T:
    """Call what asks a bucket through pyarrow's file system, and again where that may help.

    Raises:
        StorageError: names the address, what is missing, and the way out.
        OSError: as pyarrow raises it.
    """
    waits = Waits()
    while True:
        try:
            return operation(open_bucket(path))
        except OSError as error:
            code, name = of_pyarrow(str(error)) or ("", "")
            reason = _refusal(path) if name in _WITHOUT_TEXT else None
            if not waits.again(code if reason is None else code_of(reason), broken=False):
                if reason is None:
                    raise
                raise StorageError(f"s3://{path}: {_said(reason)}") from None


def _made(path: str) -> Client:
    """Return the client of the environment; an endpoint or a region that cannot be one is named."""
    try:
        return _client(environment())
    except ValueError as error:
        raise StorageError(f"s3://{path}: {error}; {CHECK}") from None


def _reason(path: str, error: BaseException) -> BaseException:
    """Return an error, or the one that tells why: the answer to a HEAD has a status and no text."""
    silent = getattr(error, "operation_name", "") in _WITHOUT_TEXT and code_of(error) in ("400", "403")
    return (_refusal(path) if silent else None) or error


def _refusal(path: str) -> BaseException | None:
    """Return why nothing is answered at an address, as a listing tells it; None: it is not told."""
    from botocore.exceptions import ClientError

    bucket, _, key = path.partition("/")
    try:
        _client(environment()).s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except ClientError as error:
        return None if code_of(error).lower() in DENIED else error
    return None


class Waits:
    """What is left of the tries of one call."""

    def __init__(self) -> None:
        self._denied, self._broken = iter(DENIED_WAITS_S), iter(BROKEN_WAITS_S)
        self._renewed = False

    def again(self, code: str, broken: bool) -> bool:
        """Wait, and return whether to try again."""
        plain = code.replace("_", "").lower()
        if plain in EXPIRED:
            first, self._renewed = not self._renewed, True
            if first:
                _client.cache_clear()  # a new session reads the keys anew
                _open_bucket.cache_clear()
            return first
        waits = self._denied if plain in DENIED else self._broken if broken else iter(())
        wait = next(waits, None)
        if wait is None:
            return False
        time.sleep(wait)
        return True


def open_bucket(path: str) -> pafs.S3FileSystem:
    """Return pyarrow's file system for the bucket of ``bucket/key``, after a check that it can be used.

    Raises:
        StorageError: it cannot; says why, and where to look.
    """
    bucket, _, key = path.partition("/")
    known = (bucket, environment())
    if known not in _usable:
        _check_usable(bucket, key)
        _usable.add(known)
    return _open_bucket(environment(), tuple(sorted(_keys(_client(environment()).session).items())))


def _check_usable(bucket: str, key: str) -> None:
    def reach(s3: Any) -> None:
        try:
            s3.head_bucket(Bucket=bucket)
        except s3.exceptions.ClientError as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                way_out = meaning("NoSuchBucket", "")
                raise StorageError(f"s3://{bucket}: {'; '.join(way_out or ())}") from None
            if code_of(error).lower() not in DENIED:
                raise
            # The answer has no text: a listing says why. And a policy may allow that below a folder alone.
            s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)

    call(f"{bucket}/{key}" if key else bucket, reach)


@lru_cache(maxsize=64)
def _open_bucket(environment: Environment, keys: tuple[tuple[str, str], ...]) -> pafs.S3FileSystem:
    client = _client(environment)
    options: dict[str, Any] = dict(keys) | client.options
    options["retry_strategy"] = pafs.AwsStandardS3RetryStrategy(max_attempts=client.tries)
    if client.endpoint is not None:
        parts = urlsplit(client.endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return pafs.S3FileSystem(region=client.region, **options)


def environment() -> Environment:
    """Return the variables that a client depends on."""
    return tuple(sorted((n, v) for n, v in os.environ.items() if n.upper().startswith(_LOCATED)))


@lru_cache(maxsize=8)
def _client(environment: Environment) -> Client:
    """Return the client of an environment; to make one takes a tenth of a second."""
    import boto3
    import botocore.session
    from botocore.config import Config

    core = botocore.session.get_session()
    session = boto3.session.Session(botocore_session=core)
    # boto3 does not look at AWS_REGION, which AWS' other programs prefer to AWS_DEFAULT_REGION.
    region = os.environ.get("AWS_REGION") or session.region_name or _DEFAULT_REGION
    given = core.get_config_variable("max_attempts")
    config = Config(retries={} if given else {"total_max_attempts": TRIES})
    s3 = session.client("s3", region_name=region, config=config)
    # What the endpoint would be without configuration: pyarrow is told of another one only.
    usual = session.client("s3", region_name=region, config=Config(ignore_configured_endpoint_urls=True))
    endpoint = s3.meta.endpoint_url
    options: dict[str, Any] = {}
    if (s3.meta.config.s3 or {}).get("addressing_style") == "virtual":
        options["force_virtual_addressing"] = True
    if ca_bundle := core.get_config_variable("ca_bundle"):
        options["tls_ca_file_path"] = ca_bundle
    own = None if endpoint == usual.meta.endpoint_url else endpoint
    return Client(s3, session, region, own, int(given or TRIES), options)


def _keys(session: Any) -> dict[str, str]:
    """Return the keys that pyarrow has to be told, since it does not look for them in ``~/.aws/config``.

    Those of a role are renewed by botocore before they expire.
    """
    found = session.get_credentials()
    if found is None or found.method not in ("config-file", "assume-role"):
        return {}
    keys = found.get_frozen_credentials()
    told = {"access_key": keys.access_key, "secret_key": keys.secret_key}
    return told | ({"session_token": keys.token} if keys.token else {})


def code_of(error: BaseException) -> str:
    """Return the code that S3 gave for an error; empty for one that it has not made."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _cause(error: BaseException) -> BaseException:
    """Return what boto3's transfers wrap in an error of their own."""
    inner = error.__cause__ or error.__context__
    return inner if inner is not None and code_of(inner) and not code_of(error) else error


def _is_broken(error: BaseException) -> bool:
    """Return whether an answer broke off while it was read, or is not what its checksum is of."""
    from botocore import exceptions

    kinds = (
        exceptions.FlexibleChecksumError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        exceptions.ReadTimeoutError,
    )
    return isinstance(error, kinds)


def _said(error: BaseException) -> str:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"there are no keys for it ({error}); {CHECK}"
    found = meaning(code_of(error), getattr(error, "operation_name", ""))
    if found is None:
        return f"{error}; {CHECK}"
    message = error.response.get("Error", {}).get("Message") if hasattr(error, "response") else ""
    code = code_of(error)
    told = f"{code}: {message}" if message and not code.isdigit() else f"status {code}"
    return f"{found[0]} ({told}); {found[1]}"
