"""Say what a bucket's refusal means: the right that is missing, and the way out."""

from __future__ import annotations

import re

RIGHTS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
"""The right that each operation needs."""

DENIED = frozenset({"accessdenied", "403", "forbidden", "allaccessdisabled"})
EXPIRED = frozenset({"expiredtoken", "expiredtokenexception", "tokenrefreshrequired", "requestexpired"})
THROTTLED = frozenset({"slowdown", "503", "throttling", "throttlingexception", "toomanyrequests", "429"})

_AGAIN = "run the command again"
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile (AWS_PROFILE) in ~/.aws"
_OTHERS: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        EXPIRED,
        "the session token has expired",
        f"get a new one (aws sso login, or AWS_SESSION_TOKEN and its keys), then {_AGAIN}",
    ),
    (
        THROTTLED | {"serviceunavailable"},
        "the bucket answers too many requests with 503 SlowDown",
        f"{_AGAIN} later or with fewer --workers, or let it try more often (AWS_MAX_ATTEMPTS)",
    ),
    (
        frozenset({"invalidaccesskeyid", "invalidclienttokenid", "unrecognizedclient", "invalidtoken"}),
        "the keys are not known there",
        f"check {_KEYS}, and AWS_ENDPOINT_URL",
    ),
    (frozenset({"signaturedoesnotmatch"}), "the secret key is another one", f"check {_KEYS}"),
    (
        frozenset({"nosuchbucket"}),
        "there is no such bucket",
        "check the bucket's name, AWS_REGION and AWS_ENDPOINT_URL, or make it",
    ),
    (
        frozenset({"permanentredirect", "301", "authorizationheadermalformed", "illegallocationconstraint"}),
        "the bucket lies in another region",
        "set AWS_REGION to that one",
    ),
    (frozenset({"requesttimetooskewed"}), "this machine's clock is wrong", f"set it, then {_AGAIN}"),
    (
        frozenset({"quotaexceeded", "xminiostoragefull", "insufficientstorage", "507"}),
        "the bucket is full",
        f"free space in it (seedset clean) or raise its quota, then {_AGAIN}",
    ),
    (
        frozenset({"internalerror", "internalfailure", "500", "badgateway", "502", "504"}),
        "the server of the bucket fails",
        f"{_AGAIN} later",
    ),
)

_OF_PYARROW = re.compile(r"AWS Error (?P<code>\w+) during (?P<operation>\w+) operation")
_STATUS = re.compile(r"HTTP status (\d+)|HTTP response code: (\d+)|\b(\d{3}) Forbidden")


def meaning(code: str, operation: str) -> tuple[str, str] | None:
    """Return what a refusal means and the way out; None: nothing is known of it.

    Args:
        code: of the error, as S3 gives it or pyarrow writes it; the HTTP status where there is none.
        operation: that was refused, such as "PutObject".
    """
    plain = code.replace("_", "").lower()
    if plain in DENIED:
        right = RIGHTS.get(operation, "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket")
        unseen = ""
        if right == "s3:GetObject":
            unseen = " (or the object is not there: without s3:ListBucket that is not told)"
        return (
            f"access is denied, {operation or 'the request'} needs the right {right}{unseen}",
            "give this account that right on the bucket and its objects, or use other keys: AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return next(((what, way_out) for codes, what, way_out in _OTHERS if plain in codes), None)


def of_pyarrow(text: str) -> tuple[str, str] | None:
    """Return the code and the operation of an error that pyarrow's file system raised; None: of another."""
    found = _OF_PYARROW.search(text)
    if found is None:
        return None
    code = found["code"]
    if code == "UNKNOWN" and (status := _STATUS.search(text)):
        code = next(filter(None, status.groups()))
    return code, found["operation"]
