"""Expand entity sets: the methods. Imports no Ray: every file runs in one plain process."""

import os
import sys
from importlib.util import find_spec

# `pip install seedset` alone is the HTTP client, without any of these.
_MISSING = [name for name in ("faiss", "ijson", "pydantic", "torch") if find_spec(name) is None]


def _started() -> str:
    """Return the command that this process runs: a module's name, or that of a script's file."""
    words = sys.orig_argv
    return words[words.index("-m") + 1] if "-m" in words[:-1] else os.path.basename(sys.argv[0])


if _MISSING:
    _WAY_OUT = f"the engine is not installed (no {', '.join(_MISSING)}): run `pip install 'seedset[engine]'`"
    if _started().partition(".")[0] in ("seedset", "jobs", "serve", "cluster"):
        print(f"error: {_WAY_OUT}", file=sys.stderr)
        sys.exit(2)
    raise ModuleNotFoundError(_WAY_OUT, name=_MISSING[0])
