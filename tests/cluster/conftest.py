"""One cluster with a job server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.submit import JobServer, job_server


@pytest.fixture(scope="session")
def jobs_at() -> Iterator[JobServer]:
    with job_server(nodes=2, cpus_per_node=2) as server:
        yield server
