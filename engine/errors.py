"""Define the errors that a user can mend. Each names the input, the place and the way out."""

from __future__ import annotations

from collections.abc import Sequence

from engine.text.spelling import is_blank, tell_apart

MAX_COMPARED = 1000
"""Characters of what was given that are compared with suggestions: it may be as long as a body."""


class UserError(Exception):
    """A mistake in what was given (a file, a name, a setting), not in the program.

    Jobs print it as one line and end with status 2; HTTP answers it with its ``status``. No traceback.

    Args:
        message: names the input, the place and the way out.
        public: what is said in its place to callers of a service, who are to see no path, no address and
            nothing of its environment; "": what the class says, and where that is nothing the message.
    """

    status = 400
    public: str = ""

    def __init__(self, message: object = "", public: str = "") -> None:
        super().__init__(message)
        if public:
            self.public = public

    @property
    def public_message(self) -> str:
        """What callers of a service are told."""
        return self.public or str(self)


def did_you_mean(given: str, suggestions: Sequence[str]) -> str:
    """Return the end of a message that names spellings; where one looks like the given one, with the sign."""
    told = tell_apart(given[:MAX_COMPARED], list(suggestions)) if suggestions else []
    return f"; did you mean {', '.join(told)}?" if told else ""


class UnknownEntityError(UserError):
    """A seed is neither a name nor an id of the vocabulary."""

    status = 422

    def __init__(self, given: str | int, closest: list[str], where: str = "") -> None:
        self.given = given
        self.closest = closest
        place = f"{where}: " if where else ""
        hint = did_you_mean(str(given), closest)
        blank = isinstance(given, str) and given and is_blank(given)
        empty = ": a name without a visible sign is empty" if blank else ""
        super().__init__(f"{place}unknown entity {given!r}{empty}{hint}")
        self._arguments = (given, closest, where)

    def __reduce__(self) -> tuple[type, tuple[str | int, list[str], str]]:
        """Cross process borders whole (an exception is rebuilt from its constructor's arguments)."""
        return type(self), self._arguments


class UnknownAttributeError(UserError):
    """A condition names an attribute, or a value of one, that no entity has.

    Args:
        attribute: its name as given.
        value: as given; None: the attribute itself is unknown.
        suggestions: spellings that would work in the place of what is unknown.
        where: the place of the condition, such as ``filter.any.1``.
    """

    status = 422

    def __init__(
        self, attribute: str, value: str | None, suggestions: list[str], where: str = "filter"
    ) -> None:
        self.field = f"{where}.{attribute}"
        self.suggestions = suggestions
        given = f"attribute {attribute!r}" if value is None else f"{attribute!r} with the value {value!r}"
        hint = did_you_mean(attribute if value is None else value, suggestions)
        super().__init__(f"{where}: no entity has {given}{hint}")
        self._arguments = (attribute, value, suggestions, where)

    def __reduce__(self) -> tuple[type, tuple[str, str | None, list[str], str]]:
        """Cross process borders whole, as :class:`UnknownEntityError` does."""
        return type(self), self._arguments


class QueryError(UserError):
    """A query that cannot be answered: no positive seeds, a seed on both sides, a limit exceeded."""

    status = 422


class FilterError(QueryError):
    """A clause of a filter asks of an attribute what its values do not say.

    Args:
        field: the clause, as a dotted path.
        message: what is wrong with it.
    """

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")
        self._arguments = (field, message)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Cross process borders whole."""
        return type(self), self._arguments


class BundleError(UserError):
    """A bundle that is not there, not whole, or lacks what a method needs."""

    status = 503


class FormatError(UserError):
    """A file that is not in the documented form: in a service one of its own, as callers send none."""

    status = 503
    public = "a file of the service is not in the form that it should have"


class StorageError(UserError):
    """A path or a bucket that cannot be reached."""

    status = 503
    public = "the service cannot reach a file that it needs"


class MissingFileError(StorageError):
    """A file is not there, though its disk or bucket can be reached."""


class DamagedFileError(StorageError):
    """A file is there and cut off, or a folder lacks some of its files."""
