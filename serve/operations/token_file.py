"""Gather the tokens of a service: of its settings, of a file, and of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.errors import FormatError, UserError
from engine.repeated_keys import yaml_value
from serve.http.errors import in_words
from serve.operations.deploy_file import read_settings
from serve.settings import Grant, ServeSettings, Token

VARIABLE = "SEEDSET_TOKENS"
"""Lines like those of the file, such as a secret that a container is given."""

_GRANTS = TypeAdapter(dict[str, Token])


def with_tokens(settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> ServeSettings:
    """Return settings with all tokens in ``tokens``; done again, nothing changes.

    Raises:
        FormatError: the file is not there, or what it or the variable holds is no mapping of names to tokens,
            or holds none: a service that was to be closed would be open to all.
        UserError: two sources say different things of one name.
    """
    found = dict(settings.tokens)
    if settings.token_file is not None:
        path = Path(settings.token_file)
        _add(found, _grants(read_settings(path), str(path)), str(path))
    if VARIABLE in environment:
        _add(found, _grants(_parsed(environment[VARIABLE]), VARIABLE), VARIABLE)
    return settings.model_copy(update={"tokens": found, "token_file": None})


def _parsed(text: str) -> Any:
    try:
        return yaml_value(text, scalars_as_text=True)
    except ValueError as error:
        raise FormatError(f"{VARIABLE}: {error}") from None


def _grants(given: Any, where: str) -> dict[str, Grant]:
    line = "a line `NAME: {rights: read, sha256: …}` for each, as `seedset token` prints it"
    if not isinstance(given, dict) or not given:
        raise FormatError(f"{where}: holds no token; write {line}")
    try:
        return _GRANTS.validate_python(given)
    except ValidationError as error:
        # What stands in the wrong place may be a token, so only where it stands is told.
        raise FormatError(f"{where}: {in_words(error.errors(include_input=False))}; write {line}") from None


def _add(found: dict[str, Grant], more: Mapping[str, Grant], where: str) -> None:
    for name, grant in more.items():
        if found.setdefault(name, grant) != grant:
            raise UserError(f"{where}: another token is called {name!r}; give one of them another name")
