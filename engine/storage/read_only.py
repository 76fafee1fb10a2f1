"""Know the file systems that are only read from by the schemes of their addresses."""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import StorageError


class ReadOnly(NamedTuple):
    """A kind of file system that is only read from: what its addresses name, and what to check."""

    place: str
    check: str


_GOOGLE = ReadOnly(
    "bucket",
    "the name, the network and GOOGLE_APPLICATION_CREDENTIALS (or `gcloud auth application-default login`); "
    "a public bucket is gs://anonymous@BUCKET",
)
_AZURE = ReadOnly(
    "container",
    "the name (abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/path), the network, and AZURE_TENANT_ID, "
    "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or `az login`)",
)
_HADOOP = ReadOnly("name node", "the name node, the network, and JAVA_HOME, HADOOP_HOME and CLASSPATH")
_HUB = ReadOnly(
    "data set",
    "the name (hf://OWNER/NAME), the network, and HF_TOKEN (or `hf auth login`) for a private data set; "
    "HF_HUB_OFFLINE must not be set, and HF_ENDPOINT may name another hub. Without a network, fetch it "
    "elsewhere (hf download OWNER/NAME --repo-type dataset --local-dir FOLDER) and give the folder",
)
READ_ONLY = {
    "hf": _HUB,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "hdfs": _HADOOP,
    "viewfs": _HADOOP,
}
"""Schemes of addresses that :func:`engine.storage.sources.source_store` opens, and nobody else."""


def read_only_scheme(address: str) -> str | None:
    """Return the scheme of an address if it is one of :data:`READ_ONLY`."""
    scheme, found, _ = address.partition("://")
    return scheme.lower() if found and scheme.lower() in READ_ONLY else None


def refuse_read_only(address: str) -> None:
    """Refuse an address of a file system that is only read from.

    Raises:
        StorageError: says what it can be given as.
    """
    if scheme := read_only_scheme(address):
        raise StorageError(
            f"{address}: {scheme}:// is only read from, as a source of `seedset import` and `seedset link`; "
            "give a local path or an s3:// address"
        )
