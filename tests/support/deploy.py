"""What files for clusters name, as the project has it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def locked_version(name: str) -> str:
    """Return the version that requirements.lock has of a package."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{re.escape(name)}==(\S+)", lock, re.MULTILINE)
    return str(found)
