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
        warn_of_former(f"{of}: {given!r}", repr(current))
    return current


@cache
def warn_of_former(former: str, current: str) -> None:
    """Warn, once a process, that a former name was used: on a command's terminal, in a service's log."""
    logger.warning("%s is now called %s; the former name will go", former, current)
