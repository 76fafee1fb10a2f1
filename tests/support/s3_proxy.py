"""A proxy in front of an S3 server: it counts what is asked, and fails in ways that are drawn by a seed."""

from __future__ import annotations

import http.client
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_PASSED_ON = ("content-length", "transfer-encoding", "connection")


@dataclass(frozen=True)
class Fault:
    """A way to fail.

    Args:
        status: of the answer; 0: the connection ends without one.
        code: that S3 gives for it, in the answer's XML.
        chance: that a request fails so.
        matches: regular expression of "METHOD /bucket/key?query" that may fail.
        key: id of the key with which requests fail; "": with any.
        at_most: times in all.
        after: the server has done what was asked, and its answer is lost.
        cut: share of the answer's body that arrives before the connection ends; None: another fault.
        flipped: one bit of the answer's body is another one.
    """

    status: int = 503
    code: str = "SlowDown"
    chance: float = 1.0
    matches: str = ""
    key: str = ""
    at_most: int = 1 << 30
    after: bool = False
    cut: float | None = None
    flipped: bool = False


@dataclass(frozen=True)
class Request:
    """A request that the server was asked, or that failed on the way to it (``fault``)."""

    method: str
    path: str
    sent: int
    received: int
    fault: Fault | None
    headers: dict[str, str]


@dataclass
class S3Proxy:
    """A proxy under ``endpoint``; it is told of faults while it runs.

    Attributes:
        faults: the first one that is drawn happens.
        requests: all, in the order in which they ended.
    """

    target: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def __post_init__(self) -> None:
        self._random, self._lock = random.Random(0), threading.Lock()
        self._happened: dict[Fault, int] = {}

    def drawn(self, asked: str, signed: str) -> Fault | None:
        """Draw whether a request fails, and how."""
        with self._lock:
            for fault in self.faults:
                if not re.search(fault.matches, asked) or self._happened.get(fault, 0) >= fault.at_most:
                    continue
                if fault.key and f"Credential={fault.key}/" not in signed:
                    continue
                if self._random.random() < fault.chance:
                    self._happened[fault] = self._happened.get(fault, 0) + 1
                    return fault
        return None

    def reseed(self, seed: int) -> None:
        """Begin the draws of another seed."""
        self._random = random.Random(seed)

    def forget(self) -> None:
        """Forget what was asked and what happened."""
        self.requests.clear()
        self._happened.clear()

    def happened(self) -> int:
        """Return how many requests failed."""
        return sum(self._happened.values())

    def asked(self, method: str, matches: str = "") -> list[Request]:
        """Return the requests of a method whose paths match."""
        return [one for one in self.requests if one.method == method and re.search(matches, one.path)]

    @contextmanager
    def running(self) -> Iterator[S3Proxy]:
        """Listen while the block runs."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(proxy: S3Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else the headers and the body of an answer wait for each other (Nagle, delayed acknowledgement).
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # who asked has given up
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

        def _pass(self) -> None:
            body = self._body()
            fault = proxy.drawn(f"{self.command} {unquote(self.path)}", self.headers.get("Authorization", ""))
            if fault is None or fault.after or fault.cut is not None or fault.flipped:
                status, headers, content = self._ask(body)
            else:
                status, headers, content = fault.status, [("Content-Type", "application/xml")], _xml(fault)
            received = self._answer(fault, status, headers, content)
            told = {name.lower(): value for name, value in self.headers.items()}
            proxy.requests.append(Request(self.command, unquote(self.path), len(body), received, fault, told))

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(pieces)

        def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            host = urlsplit(proxy.target).netloc
            connection = http.client.HTTPConnection(host, timeout=60)
            headers = {n: v for n, v in self.headers.items() if n.lower() not in (*_PASSED_ON, "expect")}
            connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, answer.getheaders(), content

        def _answer(
            self, fault: Fault | None, status: int, headers: list[tuple[str, str]], content: bytes
        ) -> int:
            if fault and (fault.after or not fault.status) and fault.cut is None:
                self.close_connection = True
                return 0
            size = len(content)
            if self.command == "HEAD":
                size = int({n.lower(): v for n, v in headers}.get("content-length", 0))
            if fault and fault.cut is not None:
                content = content[: int(len(content) * fault.cut)]
                self.close_connection = True
            if fault and fault.flipped and content:
                middle = len(content) // 2
                content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in (*_PASSED_ON, "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            return len(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    return Handler


def _xml(fault: Fault) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{fault.code}</Code>'
        f"<Message>{fault.code}, as the test asks</Message><RequestId>1</RequestId></Error>"
    ).encode()
