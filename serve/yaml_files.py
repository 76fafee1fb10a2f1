"""Read a YAML file that a person wrote; what is wrong with it is told with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import FormatError
from engine.repeated_keys import yaml_value


def read_text(path: Path) -> str:
    """Return what a file of text holds.

    Raises:
        FormatError: it is not there, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def read_yaml(path: Path, scalars_as_text: bool) -> Any:
    """Return what a YAML or JSON file holds (:func:`~engine.repeated_keys.yaml_value`).

    Raises:
        FormatError: it cannot be read, or is not YAML.
    """
    try:
        return yaml_value(read_text(path), scalars_as_text)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None
