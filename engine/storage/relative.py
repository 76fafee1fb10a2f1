"""Refuse relative paths where the working directory is no folder of the user's.

``ray job submit`` runs a command in Ray's copy of the code, or wherever a node was started. What a command
writes to a relative path there is gone with the copy, and the folder that the user means is elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import StorageError

PACKAGE = "_ray_pkg_"
"""Begin of the names of the folders that Ray unpacks a job's code into."""

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable that Ray sets for the command of a submitted job."""


def check_relative(path: str | os.PathLike[str]) -> None:
    """Refuse a relative path in a submitted job.

    Args:
        path: as it was given; addresses with a scheme and paths that begin with ``~`` are not relative.

    Raises:
        StorageError: says which path, and what to write instead.
    """
    text = os.fspath(path)
    if "://" in text or text.startswith("~") or os.path.isabs(text):
        return
    here = Path.cwd()
    if SUBMITTED in os.environ or any(part.startswith(PACKAGE) for part in here.parts):
        raise StorageError(
            f"{text}: a relative path in a submitted job, which runs in a folder of the cluster ({here}), "
            "not in yours, and what it leaves there is lost: give an absolute path that every node sees, or "
            "s3://bucket/prefix"
        )
