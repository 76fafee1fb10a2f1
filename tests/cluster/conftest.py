"""One cluster with a job server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import bucket_environment
from tests.support.submit import JobServer, job_server


@pytest.fixture(scope="package")
def jobs_at(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    """Two nodes of two cores; what is started there knows the address and the keys of the buckets."""
    known = bucket_environment(s3_endpoint) | {"SEEDSET_CACHE": str(tmp_path_factory.mktemp("cache"))}
    with job_server(nodes=2, cpus_per_node=2, environment=known) as server:
        yield server
