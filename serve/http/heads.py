"""Read and check the head of a request: its size, its id, and the host that it names.

Also used in Serve's proxies, so it imports little.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import uuid
from collections.abc import Iterable, Sequence
from functools import cache

from starlette.types import Scope

from serve.http.errors import Problem

logger = logging.getLogger("seedset.serve")

MAX_HEAD_BYTES = 64 << 10
"""Bytes of the address and the headers of a request; more are answered with 431."""

REQUEST_ID = b"x-request-id"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

TOO_LARGE = Problem("head_too_large", f"the address and the headers hold at most {MAX_HEAD_BYTES} bytes", 431)

ANY = "*"
"""The host name that stands for all."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Headers = Iterable[tuple[bytes, bytes]]


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return what a request's headers of a name (in lower case) say."""
    return [value for key, value in scope["headers"] if key == name]


def head_bytes(address: bytes, headers: Headers) -> int:
    """Return about how many bytes of a head were sent."""
    return len(address) + sum(len(name) + len(value) + 4 for name, value in headers)


def is_too_large(scope: Scope) -> bool:
    """Return whether a request's head is above the limit."""
    address = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    return head_bytes(address + scope.get("query_string", b""), scope["headers"]) > MAX_HEAD_BYTES


def request_id_of(scope: Scope) -> str:
    """Return the id that the caller gave, if it is one and can be written down, or else a new one."""
    given = header_values(scope, REQUEST_ID)
    if len(given) == 1 and _GOOD_ID.fullmatch(given[0]):
        return given[0].decode()
    return uuid.uuid4().hex


def with_request_id(headers: Headers, request_id: str) -> list[tuple[bytes, bytes]]:
    """Return headers with this id and no other."""
    others = [(name, value) for name, value in headers if name.lower() != REQUEST_ID]
    return [*others, (REQUEST_ID, request_id.encode())]


class HostCheck:
    """The hosts that requests may name.

    A page of another site whose name is made to point at this machine is, for a browser, of our own site
    ("DNS rebinding"): where no token is wanted, it could ask and read everything. It cannot hide its name.

    Args:
        allowed: host names; ``*.example.org`` stands for all below it, ``*`` for every one. Empty: any host,
            but loopback names and addresses alone where a request comes over loopback and no tokens are set.
        tokens: whether tokens are set.
    """

    def __init__(self, allowed: Sequence[str], tokens: bool) -> None:
        self._allowed, self._tokens, self._warned = frozenset(map(_plain, allowed)), tokens, False

    def problem(self, scope: Scope) -> Problem | None:
        """Return why a request is refused; None if it is not."""
        if not self._tokens and not self._warned and _from_elsewhere(scope):
            self._warned = True
            logger.warning("requests come from other machines, and no tokens are set: everybody is let in")
        if ANY in self._allowed or (not self._allowed and (self._tokens or not _over_loopback(scope))):
            return None
        # Who sends no host at all is no browser.
        if all(self._is_allowed(host_of(value)) for value in header_values(scope, b"host")):
            return None
        way_out = "name the host in allowed_hosts" + ("" if self._allowed else ", or set tokens")
        return Problem("host_not_allowed", f"requests may not name this host; {way_out}", 403)

    def _is_allowed(self, host: str) -> bool:
        if is_loopback(host) or host in self._allowed:
            return True
        if not self._allowed:
            # No name to be made to point elsewhere: an address, and this machine's own name.
            return _address_of(host) is not None or host == _own_name()
        above = host.split(".")[1:]
        return any(f"*.{'.'.join(above[n:])}" in self._allowed for n in range(len(above)))


def host_of(header: bytes) -> str:
    """Return the host of a ``Host`` header without its port, in lower case."""
    text = header.decode("latin-1").strip()
    if text.startswith("["):
        return _plain(text.partition("]")[0] + "]")
    host, colon, port = text.rpartition(":")
    return _plain(host if colon and (port.isdecimal() or not port) else text)


def _plain(host: str) -> str:
    return host.lower().removesuffix(".").removeprefix("[").removesuffix("]")


def _address_of(host: str) -> Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own for itself."""
    address = _address_of(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _over_loopback(scope: Scope) -> bool:
    """Return whether a request came to a loopback address of this machine."""
    address = _server_address(scope)
    return address is not None and address.is_loopback


def _server_address(scope: Scope) -> Address | None:
    """Return the address of this machine that a request came to; None if that is not known."""
    server = scope.get("server")
    return _address_of(str(server[0])) if server else None


def _from_elsewhere(scope: Scope) -> bool:
    address = _server_address(scope)
    return address is not None and not address.is_loopback


@cache
def _own_name() -> str:
    return socket.gethostname().lower()
