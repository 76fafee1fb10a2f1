"""What waits to be written: within its limits, never lost where the log is away, and never waited for."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from engine.errors import StorageError
from serve.audit import recorder
from serve.audit.entries import Json, Wanted
from serve.audit.host import AuditHost, HandleAudit
from serve.audit.recorder import Recorder
from serve.errors import UnavailableError
from serve.settings import ServeSettings


class Log:
    """A log that is away while ``away``."""

    def __init__(self) -> None:
        self.away, self.lines, self.dropped = False, list[bytes](), 0

    async def write(self, lines: Sequence[bytes], dropped: int) -> int:
        if self.away:
            raise UnavailableError("away")
        self.lines += lines
        self.dropped += dropped
        return 0

    async def read(self, wanted: Wanted) -> Json:
        raise NotImplementedError

    @property
    def numbers(self) -> list[int]:
        return [json.loads(line)["n"] for line in self.lines]


def test_what_is_sent_while_the_log_is_away_comes_later_in_its_order() -> None:
    log = Log()
    waiting = Recorder(log)

    async def send() -> None:
        waiting.record({"n": 0})
        log.away = True
        await waiting.flush()
        waiting.record({"n": 1})
        await waiting.flush()
        assert log.lines == []
        log.away = False
        await waiting.flush()
        await waiting.flush()

    asyncio.run(send())
    assert (log.numbers, log.dropped) == ([0, 1], 0)


def test_what_is_above_the_limits_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_ENTRIES", 3)
    monkeypatch.setattr(recorder, "MAX_BYTES", 100)
    log = Log()
    waiting = Recorder(log)
    log.away = True

    async def send() -> None:
        waiting.record({"n": 0}, 1000)  # one alone may be longer
        waiting.record({"n": 1}, 1)
        await waiting.flush()
        waiting.record({"n": 2})
        log.away = False
        await waiting.flush()
        for number in range(3, 9):
            waiting.record({"n": number})
        await waiting.flush()

    asyncio.run(send())
    assert (log.numbers, log.dropped) == ([0, 3, 4, 5], 5)


def test_what_is_left_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()

    async def send() -> None:
        waiting = Recorder(log)
        running = asyncio.create_task(waiting.run())
        await asyncio.sleep(0)
        waiting.record({"n": 1})
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(send())
    assert log.numbers == [1]


def handle_of(host: AuditHost | None) -> DeploymentHandle:
    """A handle that carries what it is given as Ray does; None: the replica is lost."""

    def method(name: str) -> Any:
        async def remote(*given: Any) -> Any:
            if host is None:
                raise RayActorError
            return pickle.loads(pickle.dumps(await getattr(host, name)(*pickle.loads(pickle.dumps(given)))))

        return SimpleNamespace(remote=remote)

    return cast(DeploymentHandle, SimpleNamespace(write=method("write"), read=method("read")))


def test_a_log_behind_a_handle_that_is_lost_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = ServeSettings(workspace="w", audit=str(path))

    async def ask() -> None:
        waiting = Recorder(HandleAudit(handle_of(AuditHost(settings))))
        waiting.record({"event": "asked", "who": "anna"})
        await waiting.flush()
        lost = HandleAudit(handle_of(None))
        with pytest.raises(UnavailableError, match="try again"):
            await lost.read(Wanted())
        waiting.audit = lost
        waiting.record({"event": "asked", "who": "bob"})
        await waiting.flush()
        waiting.audit = HandleAudit(handle_of(AuditHost(settings)))
        await waiting.flush()
        found = await waiting.audit.read(Wanted())
        assert [one["who"] for one in found["entries"]] == ["bob", "anna"]
        path.unlink()
        with pytest.raises(StorageError):
            await waiting.audit.read(Wanted())

    asyncio.run(ask())
