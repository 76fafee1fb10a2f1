"""Declare which right a route needs: at the route, below its path, and nowhere else.

    @app.put("/v1/things/{name}")
    @needs("publish")
    async def put_thing(...): ...

The application does not start with a route that declares none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from serve.settings import RIGHTS, Right

OPEN: Final = "open"
"""What needs no token: the page's files, and what machines ask that watch."""

Needed = Literal["open"] | Right

_DECLARED = "needed_right"

E = TypeVar("E", bound=Callable[..., Any])


def needs(right: Needed) -> Callable[[E], E]:
    """Return a decorator that declares the right which a route's endpoint needs."""
    if right != OPEN and right not in RIGHTS:
        raise ValueError(f"no right is called {right!r}; there are {', '.join([OPEN, *RIGHTS])}")

    def declare(endpoint: E) -> E:
        setattr(endpoint, _DECLARED, right)
        return endpoint

    return declare


def right_of(route: BaseRoute) -> Needed:
    """Return the right that a route declares.

    Raises:
        TypeError: it declares none: a mistake of the program.
    """
    found: Needed | None = getattr(getattr(route, "endpoint", None), _DECLARED, None)
    if found is None:
        raise TypeError(f"{getattr(route, 'path', route)}: declare the right that it needs with @needs(…)")
    return found


def check_declared(routes: Iterable[BaseRoute]) -> None:
    """Refuse (TypeError) routes of which one declares no right."""
    for route in routes:
        right_of(route)


def includes(held: Right, needed: Right) -> bool:
    """Return whether a right is as much as another, or more: each includes those before it in ``RIGHTS``."""
    return RIGHTS.index(held) >= RIGHTS.index(needed)


def route_of(scope: Scope, routes: Iterable[BaseRoute]) -> BaseRoute | None:
    """Return the route that a request goes to, as the router finds it.

    That is the first of its path and method, or else the first of its path, which refuses the method: two
    methods of one path may need different rights.
    """
    partial = None
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return route
        if match is Match.PARTIAL and partial is None:
            partial = route
    return partial
