"""Define the errors of named sets."""

from __future__ import annotations

from engine.errors import UserError

SHOWN = 80
"""Characters shown of what was given."""


class UnknownSetError(UserError):
    """There is no set of this id."""

    status = 404

    def __init__(self, set_id: str) -> None:
        self.set_id = set_id
        super().__init__(f"no set {set_id[:SHOWN]!r}; GET /v1/sets lists those that there are")

    def __reduce__(self) -> tuple[type[UnknownSetError], tuple[str]]:
        return type(self), (self.set_id,)


class SetExistsError(UserError):
    """Another set has this name, but for its case and look-alike signs."""

    status = 409

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"name: there is a set {name[:SHOWN]!r}; open that one, or choose another name")

    def __reduce__(self) -> tuple[type[SetExistsError], tuple[str]]:
        return type(self), (self.name,)


class SetConflictError(UserError):
    """A write names an older version than the set has: somebody changed it meanwhile.

    Args:
        given: the version that the write saw.
        current: the one that there is.
    """

    status = 409

    def __init__(self, given: int, current: int) -> None:
        self.given, self.current = given, current
        super().__init__(
            f"version: the set was changed meanwhile: it is at {current}, and this change saw {given}; "
            f"read the events after {given}, then send it again with the newer version"
        )

    def __reduce__(self) -> tuple[type[SetConflictError], tuple[int, int]]:
        return type(self), (self.given, self.current)


class SetChangeError(UserError):
    """A change that cannot be made: over a limit, or nothing to undo there."""

    status = 422
