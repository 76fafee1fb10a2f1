"""Name the versions of the program and of the libraries that decide what an artifact is."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

PROGRAM = "seedset"

OF_TABLES = ("pyarrow",)
"""Libraries that decide a corpus."""

OF_TOKENS = ("numpy", "pyarrow", "tokenizers", "transformers")
"""Libraries that decide model input and blocks of a language model."""

OF_STATES = ("numpy", "torch", "transformers")
"""Libraries that decide the states of frozen layers."""

OF_FEATURES = ("numpy", "pillow", "torch", "transformers")
"""Libraries that decide features of images."""

OF_BUNDLES = ("faiss-cpu", "numpy", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")
"""Libraries that decide the files of a bundle."""

LIBRARIES = tuple(sorted({*OF_TABLES, *OF_TOKENS, *OF_STATES, *OF_FEATURES, *OF_BUNDLES}))
"""All that manifests name."""

Versions = dict[str, str]
"""Versions by the name of the distribution; "python" is the interpreter's."""


def version_of(name: str) -> str:
    """Return the version of an installed distribution; "" where it is not installed."""
    if name == PROGRAM and (ours := _of_clone()):
        return ours
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def versions_of(libraries: Iterable[str]) -> Versions:
    """Return the versions of the program, of Python, and of those libraries that are installed."""
    named = {PROGRAM: version_of(PROGRAM), "python": platform.python_version()}
    return {name: found for name, found in (named | {n: version_of(n) for n in libraries}).items() if found}


@cache
def _of_clone() -> str:
    """Return the version that is written beside the code, in a clone or what was uploaded of one, else ""."""
    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(project["version"]) if project.get("name") == PROGRAM else ""
