"""Load a service over HTTP from one event loop: clients that wait for answers, and arrivals that do not.

The client writes bytes that were made before and reads no more of an answer than its length says, so that
it takes as little of the machine as a client can: it runs beside the service that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from engine.errors import UserError

IDLE_S = 2.0
"""A connection that was idle for longer is not used again: the service may be closing it just now."""

TIMEOUT_S = 120.0

SAME_BATCH_S = 0.05
"""Answers that come so close together were computed together."""

Seconds = npt.NDArray[np.float64]


class Response(NamedTuple):
    """An answer; ``status`` is 0 where the connection broke."""

    status: int
    headers: dict[str, str]
    body: bytes


class Sample(NamedTuple):
    """One request.

    Args:
        due: second (of the monotonic clock) at which it was to be sent.
        seconds: from then to its answer.
        late: how long after ``due`` it was sent, through the fault of the generator.
        verdict: "ok", or what came instead.
    """

    due: float
    seconds: float
    late: float
    verdict: str

    @property
    def ok(self) -> bool:
        """True if the answer is right."""
        return self.verdict == "ok"

    @property
    def end(self) -> float:
        """The second of its answer."""
        return self.due + self.seconds


Ask = Callable[[int], Awaitable[tuple[float, str]]]
"""Sends the request of a number; returns the second at which its answer was whole, and the verdict."""


class Http:
    """Keeps connections to one service open; used from one event loop."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._host, self._port = split.hostname or "", split.port or 80
        self._idle: deque[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def post(self, path: str, body: bytes, method: str = "POST") -> Response:
        """Send a JSON body; what breaks on the way comes back as status 0."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._exchange(head.encode() + body)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            return Response(0, {}, type(error).__name__.encode())

    async def _exchange(self, sent: bytes) -> Response:
        reader, writer = await self._connection()
        done = False
        try:
            writer.write(sent)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.split(": ", 1) for line in lines[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            done = headers.get("connection") != "close"
            return Response(int(lines[0].split()[1]), headers, body)
        finally:
            if done:
                self._idle.append((time.monotonic(), reader, writer))
            else:
                writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            since, reader, writer = self._idle.pop()  # the latest: the others may grow old
            if time.monotonic() - since < IDLE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop()[2].close()


async def one(ask: Ask, number: int) -> Sample:
    """Send one request."""
    due = time.monotonic()
    end, verdict = await ask(number)
    return Sample(due, end - due, 0.0, verdict)


async def closed_loop(ask: Ask, clients: int, stop: asyncio.Event, samples: list[Sample]) -> None:
    """Let clients ask, each again as soon as it was answered, until ``stop``; samples are appended."""
    numbers = iter(range(1 << 62))

    async def client() -> None:
        while not stop.is_set():
            samples.append(await one(ask, next(numbers)))

    await asyncio.gather(*(client() for _ in range(clients)))


async def closed_loop_for(ask: Ask, clients: int, seconds: float) -> list[Sample]:
    """Let clients ask for so many seconds."""
    samples: list[Sample] = []
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await closed_loop(ask, clients, stop, samples)
    return samples


def poisson(rate: float, seconds: float, seed: int = 0) -> Seconds:
    """Return the seconds [n] at which requests arrive, ``rate`` of them a second on average."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, size=int(rate * seconds + 10 * (rate * seconds) ** 0.5 + 10))
    arrivals = np.cumsum(gaps)
    return arrivals[arrivals < seconds]


async def open_loop(ask: Ask, arrivals: Seconds) -> list[Sample]:
    """Send a request at each second of ``arrivals``, answered or not what went before.

    Each is timed from the moment at which it was due: a generator that falls behind makes latencies
    longer, never shorter, and ``late`` tells.
    """
    samples: list[Sample] = []
    start = time.monotonic()

    async def send(number: int, due: float) -> None:
        late = time.monotonic() - due
        end, verdict = await ask(number)
        samples.append(Sample(due, end - due, late, verdict))

    async with asyncio.TaskGroup() as group:
        for number, arrival in enumerate(arrivals.tolist()):
            due = start + arrival
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            group.create_task(send(number, due))
    return samples


def percentile(samples: Sequence[Sample], q: float) -> float:
    """Return the q-th percentile of the right answers' seconds; nan where there is none."""
    seconds = [sample.seconds for sample in samples if sample.ok]
    return float(np.percentile(seconds, q)) if seconds else float("nan")


def steady_rate(samples: Sequence[Sample], clients: int) -> float:
    """Return answers a second while all of so many clients ask: after the first batch, and before the last
    answer to each.

    Raises:
        AssertionError: an answer was wrong.
        UserError: there are too few.
    """
    if wrong := [sample.verdict for sample in samples if not sample.ok]:
        raise AssertionError(f"{len(wrong)} answers are wrong: {wrong[0]}")
    ends = np.sort([sample.end for sample in samples])[:-clients]
    if len(ends) < 2 or ends[-1] <= ends[0] + SAME_BATCH_S:
        raise UserError(f"{len(samples)} answers of {clients} clients tell no rate; measure for longer")
    return float(np.count_nonzero(ends > ends[0] + SAME_BATCH_S) / (ends[-1] - ends[0]))
