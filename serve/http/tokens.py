"""Know the tokens of a service: of its settings, of the environment, and of a file that may change.

The file is looked at twice a second by each replica of the ingress. A change counts once the file was the
same in two looks, so that what is half written is not taken. A file that cannot be used changes nothing: the
tokens that were read last hold, and log, metrics and health say so.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from engine.errors import FormatError, UserError
from engine.repeated_keys import yaml_value
from serve.http.errors import in_words
from serve.settings import Grant, ServeSettings, Token
from serve.telemetry.logs import log_event
from serve.telemetry.metrics import Metrics
from serve.yaml_files import read_yaml

VARIABLE = "SEEDSET_TOKENS"
"""Lines like those of the file, such as a secret that a container is given."""

LOOK_S = 0.5
"""Seconds between two looks at the file."""

LINE = "a line `NAME: {rights: read, sha256: …}` for each, as `seedset token` prints it"

UNUSABLE = "the file of tokens cannot be used as it is now; those that were read last hold"
"""What everybody may know of a file that is broken."""

_GRANTS = TypeAdapter(dict[str, Token])


@dataclass(frozen=True)
class TokenSources:
    """Where the tokens of a service come from, and which there were when it was built.

    Args:
        fixed: of the settings and the environment: the same as long as the service runs.
        path: of the file, if there is one; absolute, as replicas have folders of their own.
        read: what the file held. A replica on a machine without the file goes by it.
    """

    fixed: Mapping[str, Grant]
    path: Path | None = None
    read: Mapping[str, Grant] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> Self:
        """Gather the tokens.

        Raises:
            FormatError: the file is not there, or what it or the variable holds is no mapping of names to
                tokens, or holds none: a service that was to be closed would be open to all.
            UserError: two sources say different things of one name.
        """
        fixed = dict(settings.tokens)
        if VARIABLE in environment:
            try:
                given = yaml_value(environment[VARIABLE], scalars_as_text=True)
            except ValueError as error:
                raise FormatError(f"{VARIABLE}: {error}") from None
            fixed = _merged(fixed, _grants(given, VARIABLE), VARIABLE)
        if settings.token_file is None:
            return cls(fixed)
        path = Path(settings.token_file).absolute()
        read = _grants(read_yaml(path, scalars_as_text=True), str(path))
        _merged(fixed, read, str(path))
        return cls(fixed, path, read)

    @property
    def built(self) -> dict[str, Grant]:
        """All tokens when the service was built."""
        return {**self.fixed, **self.read}


class KnownTokens:
    """The tokens that let in now.

    Args:
        sources: of them.
        metrics: are told whether the file can be used.
    """

    def __init__(self, sources: TokenSources, metrics: Metrics | None = None) -> None:
        self.sources, self._metrics = sources, metrics
        self.grants: Mapping[str, Grant] = sources.built
        """By name; replaced as a whole."""
        self.problem = ""
        """Why the file cannot be used as it is now; empty if it can."""
        self._seen: Any = None
        self._taken: Any = None
        if sources.path is not None:
            self._begin(sources.path)

    @property
    def wanted(self) -> bool:
        """Whether a token is wanted, also where none is left that would do."""
        return bool(self.sources.fixed) or self.sources.path is not None

    async def watch(self) -> None:
        """Look at the file, if there is one, until cancelled."""
        while self.sources.path is not None:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file again if it changed, and has been the same since the last look."""
        path = self.sources.path
        if path is None:
            return
        stamp = _stamp(path)
        settled, self._seen = stamp == self._seen, stamp
        if not settled:
            return
        if stamp == self._taken:
            self._told("")
            return
        try:
            self._take(path, stamp)
        except UserError as error:
            self._told(str(error))

    def _begin(self, path: Path) -> None:
        """Read the file for the first time in this process.

        Who was let in by one that is broken now is not known: what it said before may have been taken back.
        """
        self._seen = _stamp(path)
        try:
            self._take(path, self._seen)
        except UserError as error:
            if isinstance(self._seen, tuple):  # it is there
                self.grants = dict(self.sources.fixed)
            self._told(str(error))

    def _take(self, path: Path, stamp: Any) -> None:
        # Here an empty file is one from which the last token was taken: the service stays closed.
        given = read_yaml(path, scalars_as_text=True) or {}
        grants = _merged(self.sources.fixed, _grants(given, str(path), least=0), str(path))
        before, self.grants, self._taken = self.grants, grants, stamp
        self._told("")
        if grants != before:
            log_event(
                "tokens changed",
                added=sorted(grants.keys() - before.keys()),
                taken_back=sorted(before.keys() - grants.keys()),
                changed=sorted(
                    name for name in grants.keys() & before.keys() if grants[name] != before[name]
                ),
            )

    def _told(self, problem: str) -> None:
        """Note whether the file can be used; the log says once what is wrong."""
        if problem and problem != self.problem:
            log_event("tokens cannot be read", level=logging.ERROR, reason=problem)
        elif self.problem and not problem:
            log_event("tokens can be read again")
        self.problem = problem
        if self._metrics is not None:
            self._metrics.tokens_unusable(bool(problem))


def _stamp(path: Path) -> Any:
    """Return what differs once a file was written, by whatever program; a text if it cannot be looked at."""
    try:
        found = path.stat()
    except OSError as error:
        return error.strerror
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _grants(given: Any, where: str, least: int = 1) -> dict[str, Grant]:
    if not isinstance(given, dict) or len(given) < least:
        raise FormatError(f"{where}: holds no token; write {LINE}")
    try:
        return _GRANTS.validate_python(given)
    except ValidationError as error:
        # What stands in the wrong place may be a token, so only where it stands is told.
        raise FormatError(f"{where}: {in_words(error.errors(include_input=False))}; write {LINE}") from None


def _merged(found: Mapping[str, Grant], more: Mapping[str, Grant], where: str) -> dict[str, Grant]:
    merged = dict(found)
    for name, grant in more.items():
        if merged.setdefault(name, grant) != grant:
            raise UserError(f"{where}: another token is called {name!r}; give one of them another name")
    return merged
