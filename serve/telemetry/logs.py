"""Log one JSON object a line: what came from outside is escaped, so no line can be forged."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Any

from engine.errors import UserError

NAME = "seedset"
logger = logging.getLogger(f"{NAME}.serve")

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""Attributes that every record has: anything else was given as ``extra``, or with a leading _ by Ray."""


class JsonFormatter(logging.Formatter):
    """A formatter of records as one line of JSON each: time, level, event, and what was given besides."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _OWN and name[0] != "_"},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logs(level: str | int = "INFO") -> None:
    """Write this program's logs to stderr, a JSON object a line. Called again, it only sets the level."""
    root = logging.getLogger(NAME)
    root.setLevel(level)
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        root.addHandler(handler)
        root.propagate = False


def log_withheld(error: UserError, **fields: Any) -> None:
    """Log the whole message of an error of which callers are told less."""
    if error.public_message != str(error):
        log_event("not told to the caller", level=logging.WARNING, reason=str(error), **fields)


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with ``fields`` (none may have the name of a LogRecord's attribute)."""
    logger.log(level, event, extra=fields)
