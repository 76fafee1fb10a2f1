"""Share a workspace that is not there yet, on a disk and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.storage.workspace import Workspace


@pytest.fixture(params=["disk", "bucket"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    if request.param == "disk":
        return Workspace.open(tmp_path / "w")
    return Workspace.open(f"{request.getfixturevalue('s3')}/w")
