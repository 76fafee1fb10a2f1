"""Expand entity sets: the methods. Imports no Ray: every file runs in one plain process."""

import os
import sys
from importlib.util import find_spec

# `pip install seedset` alone is the HTTP client, without any of these.
_MISSING = [name for name in ("faiss", "ijson", "pydantic", "torch") if find_spec(name) is None]


def _is_command() -> bool:
    """Return whether this process is a command of ours: ``seedset …``, or ``python -m jobs.…``."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return os.path.basename(sys.argv[0]) == "seedset" or module.partition(".")[0] in (
        "jobs",
        "serve",
        "cluster",
    )


if _MISSING:
    _WAY_OUT = f"the engine is not installed (no {', '.join(_MISSING)}): run `pip install 'seedset[engine]'`"
    if _is_command():
        print(f"error: {_WAY_OUT}", file=sys.stderr)
        sys.exit(2)
    raise ModuleNotFoundError(_WAY_OUT, name=_MISSING[0])
