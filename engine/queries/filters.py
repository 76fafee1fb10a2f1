"""Read a filter as it is written in a request, a row of a table or a call, and say which clause is wrong.

::

    {"continent": ["Asia", "Africa"]}                      one of the values; a single one may stand alone
    {"language": {"all": ["Swahili", "English"]}}          each of them; {"none": [...]}: none of them
    {"population": {"gte": 1e6, "lt": 5e7}}                numbers; {"founded": {"lt": "1990-06"}}: dates
    {"city": {"prefix": "New "}}
    {"any": [{...}, {...}]}                                one of these filters; also all and none

What an object holds must all be fulfilled. :mod:`engine.filters` says what each clause means.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from engine.filters import (
    BOUNDS,
    JUNCTIVES,
    Among,
    Bound,
    Clause,
    Filters,
    Junction,
    Junctive,
    Prefix,
    Range,
    days_of,
)
from engine.refusals import encodable
from engine.vocabulary import MAX_NAME_LENGTH

MAX_CONDITIONS = 16
"""Clauses of one object."""
MAX_VALUES = 64
"""Values of one clause."""
MAX_DEPTH = 4
"""Filters within filters."""
MAX_CLAUSES = 64
"""Clauses of a filter in all."""

Path = tuple[str | int, ...]

TESTS = (*JUNCTIVES, "prefix", *BOUNDS)
"""What may be said of an attribute."""

_SHOWN = 80

_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": "^[^\\u0000]*$"}
_VALUES = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_VALUES}
_BOUND = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$"}]}
_OBJECT: dict[str, Any] = {
    "type": "object",
    "maxProperties": MAX_CONDITIONS,
    "propertyNames": _TEXT,
}
_ON_ATTRIBUTE: dict[str, Any] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(JUNCTIVES, _VALUES),
        "prefix": _TEXT,
        **dict.fromkeys(BOUNDS, _BOUND),
    },
    "additionalProperties": False,
    "minProperties": 1,
}
_PARTS = {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": MAX_CLAUSES}
SCHEMA: dict[str, Any] = {
    **_OBJECT,
    "additionalProperties": {"anyOf": [_VALUES, _TEXT, _ON_ATTRIBUTE, _PARTS]},
    "examples": [
        {"continent": ["Asia", "Africa"]},
        {"population": {"gte": 1e6}, "none": [{"government": {"prefix": "Federal"}}]},
    ],
}
"""JSON Schema of a filter; filters within filters are of the same form."""


class _WrongClauseError(Exception):
    """A clause that cannot be read, with its place."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class _Reading:
    """How pydantic reads a filter, writes and describes one."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validated, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return SCHEMA


Filter = Annotated[Filters, _Reading]
"""The type of a field that holds a filter: what was read is :data:`engine.filters.Filters`."""


def written(filters: Filters) -> dict[str, Any]:
    """Return a filter as it is written in a request: reading that gives these clauses again."""
    found: dict[str, Any] = {}
    for clause in filters:
        match clause:
            case Junction(kind, parts):
                found[kind] = [written(part) for part in parts]
            case Among(attribute, kind, values):
                found.setdefault(attribute, {})[kind] = list(values)
            case Prefix(attribute, text):
                found.setdefault(attribute, {})["prefix"] = text
            case Range(attribute, bounds):
                found.setdefault(attribute, {}).update(bounds)
            case (attribute, values):
                found.setdefault(attribute, {})["any"] = list(values)
    return {
        name: said["any"] if isinstance(said, dict) and set(said) == {"any"} else said
        for name, said in found.items()
    }


def _validated(given: Any) -> Filters:
    """Return a filter as data; what is wrong is said as pydantic says it, at the place of the clause."""
    try:
        return _Reader().filters(given, (), 0)
    except _WrongClauseError as wrong:
        error = PydanticCustomError("filter", "{said}", {"said": str(wrong)})
        details = InitErrorDetails(type=error, loc=wrong.path, input=None)
        raise ValidationError.from_exception_data("filter", [details]) from None


class _Reader:
    """A reader of one filter; it counts the clauses."""

    def __init__(self) -> None:
        self._clauses = 0

    def filters(self, given: Any, path: Path, depth: int) -> Filters:
        """Return the clauses of an object."""
        if not isinstance(given, dict):
            raise _WrongClauseError(path, "Input should be a valid dictionary, of attributes")
        if depth > MAX_DEPTH:
            raise _WrongClauseError(path, f"filters are nested more than {MAX_DEPTH} deep")
        if len(given) > MAX_CONDITIONS:
            raise _WrongClauseError(path, f"at most {MAX_CONDITIONS} clauses are taken in one object")
        if depth and not given:
            raise _WrongClauseError(path, "an empty filter says nothing; leave it out")
        found: list[Clause] = []
        for name, value in given.items():
            found += self._clause(name, value, path, depth)
        return tuple(found)

    def _clause(self, name: Any, value: Any, path: Path, depth: int) -> list[Clause]:
        name = _text(name, path, "an attribute")
        here = (*path, name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")
        if name in JUNCTIVES and isinstance(value, list) and any(isinstance(one, dict) for one in value):
            self._count(here)
            parts = tuple(self.filters(one, (*here, place), depth + 1) for place, one in enumerate(value))
            return [Junction(cast(Junctive, name), parts)]
        if isinstance(value, dict):
            return self._tests(name, value, here)
        if not isinstance(value, list | str):
            raise _WrongClauseError(
                here, f"give a list of values, or an object of {', '.join(TESTS[:-1])} or {TESTS[-1]}"
            )
        self._count(here)
        return [(name, _values(value, here))]

    def _tests(self, name: str, given: dict[Any, Any], here: Path) -> list[Clause]:
        """Return what an object says of an attribute."""
        if unknown := next((one for one in given if one not in TESTS), None) if given else "":
            shown = str(unknown)[:_SHOWN]
            raise _WrongClauseError((*here, shown), f"nothing is called so; there are {', '.join(TESTS)}")
        if not given:
            raise _WrongClauseError(here, f"says nothing; give some of {', '.join(TESTS)}")
        found: list[Clause] = []
        for kind in JUNCTIVES:
            if kind in given:
                values = _values(given[kind], (*here, kind))
                found.append((name, values) if kind == "any" else Among(name, kind, values))
        if "prefix" in given:
            found.append(Prefix(name, _text(given["prefix"], (*here, "prefix"), "a prefix")))
        if bounds := [one for one in BOUNDS if one in given]:
            found.append(_range(name, [(one, given[one]) for one in bounds], here))
        for _ in found:
            self._count(here)
        return found

    def _count(self, path: Path) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise _WrongClauseError(path, f"a filter holds at most {MAX_CLAUSES} clauses in all")


def _range(name: str, given: list[tuple[str, Any]], here: Path) -> Range:
    sides = [one[0][0] for one in given]
    if len(set(sides)) < len(sides):
        one, other = next((a, b) for a, b in (BOUNDS[:2], BOUNDS[2:]) if {a, b} <= {n for n, _ in given})
        raise _WrongClauseError((*here, other), f"give {one} or {other}, not both")
    bounds = tuple((bound, _bound(value, (*here, bound))) for bound, value in given)
    if len({isinstance(value, str) for _, value in bounds}) > 1:
        raise _WrongClauseError((*here, bounds[-1][0]), "one bound is a number and the other a date")
    return Range(name, bounds)


def _bound(given: Any, path: Path) -> Bound:
    if isinstance(given, str) and days_of(given) is not None:
        return given
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            if math.isfinite(found := float(given)):
                return found
        except OverflowError:
            pass
    shown = repr(given)[:_SHOWN]
    raise _WrongClauseError(
        path, f"{shown} is no number, and no date such as '1990', '1990-06' or '1990-06-01'"
    )


def _values(given: Any, path: Path) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list):
        raise _WrongClauseError(path, "Input should be a valid list of values")
    if not 1 <= len(listed) <= MAX_VALUES:
        raise _WrongClauseError(
            path, f"List should have at least 1 item and at most {MAX_VALUES}, not {len(listed)}"
        )
    checked = [_text(one, (*path, place), "a value") for place, one in enumerate(listed)]
    return tuple(dict.fromkeys(checked))


def _text(given: Any, path: Path, what: str) -> str:
    """Return a text that an attribute, a value or a prefix may be."""
    fault = ""
    if not isinstance(given, str):
        fault = "is no text"
    elif not 1 <= len(given) <= MAX_NAME_LENGTH:
        fault = f"has {len(given)} characters; 1 to {MAX_NAME_LENGTH} are taken"
    elif "\0" in given:
        fault = "holds a NUL character"
    elif encodable(given) != given:
        fault = "holds half of a surrogate pair"
    if fault:
        raise _WrongClauseError(path, f"{what} {fault}")
    return cast(str, given)
