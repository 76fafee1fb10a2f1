"""Which process runs a test, and fixtures that every folder of tests may use: an S3 server on loopback."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.s3_proxy import S3Proxy

# Tiny models are quickest on one thread; several wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Names that are no folder are not looked for on the hub: no test needs the network, or waits for it.
os.environ["HF_HUB_OFFLINE"] = "1"

# No test asks a chat model that this machine may have; some make a stand-in.
for _name in [name for name in os.environ if name.startswith("SEEDSET_CHAT_")]:
    del os.environ[_name]

EXAMPLES = os.environ.get("SEEDSET_TEST_EXAMPLES")
"""Examples of every property test, where the environment asks for more of them (`make test-long`)."""

# No example has a time limit: how long one takes is the machine's affair.
hypothesis.settings.register_profile("untimed", deadline=None)
if EXAMPLES:
    hypothesis.settings.register_profile("long", deadline=None, max_examples=int(EXAMPLES))
hypothesis.settings.load_profile("long" if EXAMPLES else "untimed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that name no slow test where these alone are asked for: importing all takes a while."""
    if config.option.markexpr == "slow" and collection_path.match("test_*.py"):
        return "mark.slow" not in collection_path.read_text(encoding="utf-8") or None
    return None


class ByFolder(LoadScopeScheduling):
    """Let one process run all tests of a folder below ``tests/``: slow ones share a cluster or a service.

    (Groups by a marker, ``--dist loadgroup``, have no effect with this pytest: xdist 3.8 writes them to an
    attribute that is not read.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return "/".join(nodeid.split("/")[:2])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder | None:
    """Share tests by folder where they are shared by scope (the slow ones), else as xdist does."""
    return ByFolder(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long tests begin first: then processes that share the tests end together.

    A Ray that a fast test starts would take over the work of those that come after it in its process.
    """
    fast_on_ray = [
        item.nodeid
        for item in items
        if item.get_closest_marker("ray") and not item.get_closest_marker("slow")
    ]
    if fast_on_ray:
        raise pytest.UsageError(f"tests marked ray must be marked slow, too: {', '.join(fast_on_ray)}")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_proxy(s3_endpoint: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy in front of the server of ``s3``, which the environment names in place of it."""
    with S3Proxy(s3_endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def bucket_environment(endpoint: str) -> dict[str, str]:
    """Return the variables that say where buckets are, and with which keys."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket's address; the environment says how to reach it."""
    for name, value in bucket_environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"
