"""Accept the former names of settings, fields and stages, and name the new one once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

logger = logging.getLogger("seedset")


def with_current_names(of: str, given: Any, renamed: Mapping[str, str]) -> Any:
    """Return a mapping with its former keys replaced by the current ones; a warning names each once.

    Args:
        of: what the keys belong to, for the message.
        given: the mapping; anything else is returned unchanged, for pydantic to refuse.
        renamed: former name to current name.

    Raises:
        ValueError: a former name and its current one are both given.
    """
    if not isinstance(given, Mapping):
        return given
    for former, current in renamed.items():
        if former in given and current in given:
            raise ValueError(f"{of}: {former!r} is the former name of {current!r}; give one of them")
    return {current_name(of, key, renamed): value for key, value in given.items()}


def current_name(of: str, given: str, renamed: Mapping[str, str]) -> str:
    """Return the current name of what may be given by a former one; a warning names each once."""
    current = renamed.get(given, given)
    if current != given:
        _warn(of, given, current)
    return current


@cache
def _warn(of: str, former: str, current: str) -> None:
    logger.warning("%s: %r is now called %r; the former name will go", of, former, current)
