"""Read what a finished run says of itself, and check that what it made is whole."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import DamagedFileError
from engine.storage.store import Store
from engine.storage.whole import fault_in

SUMMARY = "summary.json"
"""The file that a finished run has, written last."""

FILES = "files"
"""Entry of a summary with the sizes of the files that the run made."""


def finished_summary(run: Store, artifact: str) -> dict[str, Any]:
    """Return a finished run's summary.

    Args:
        run: its folder.
        artifact: folder of what it made, below that.

    Raises:
        MissingFileError: there is no summary.
        DamagedFileError: it is cut, or a file of what was made is missing or cut.
    """
    try:
        summary = dict(json.loads((run / SUMMARY).read_bytes()))
    except (ValueError, TypeError):
        raise DamagedFileError(f"{(run / SUMMARY).uri}: cut or damaged") from None
    made = run / artifact
    if fault := fault_in(made, summary.get(FILES)):  # runs of an earlier version do not list them
        raise DamagedFileError(f"{made.uri}/{fault}")
    return summary
