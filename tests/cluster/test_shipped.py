"""What ``ray job submit --working-dir .`` and ``ray up`` send to the machines: code, no secrets, no data."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import _get_ignore_file

ROOT = Path(__file__).resolve().parents[2]

KEPT_HERE = [".env", ".env.local", "serve/.env", "tokens.pem", "work/corpus/x", "demo-workspace/workspace/x"]


@pytest.mark.parametrize("name", [*KEPT_HERE, "workspace/x", "my-workspace/x", ".git/x"])
def test_secrets_and_workspaces_stay_here(name: str) -> None:
    ignored = _get_ignore_file(ROOT, ".rayignore")
    assert ignored is not None
    assert ignored(ROOT / name)


@pytest.mark.parametrize(
    "name", ["engine/storage/workspace.py", "jobs/workers/encoder.py", "ray_cluster.yaml"]
)
def test_code_is_sent(name: str) -> None:
    ignored = _get_ignore_file(ROOT, ".rayignore")
    assert ignored is not None
    assert (ROOT / name).is_file()
    assert not ignored(ROOT / name)


def test_the_cluster_file_leaves_them_out_too() -> None:
    excluded = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))["rsync_exclude"]
    assert {".env", ".env.*", "work/**", "workspace/**", "*-workspace/**"} <= set(excluded)
