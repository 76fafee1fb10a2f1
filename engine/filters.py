"""Say which entities may be ranked: conditions on attributes, as data, and as JSON between processes.

A filter holds where all of its clauses do. What a clause says of an attribute with several values:

==========================  ============================================================================
``Having``                  one of the entity's values is one of the given ones
:class:`Among`              ``all``: it has each of the given values; ``none``: it has none of them
:class:`Prefix`             one of its values begins so, by what one sees, in any case
:class:`Range`              one of its values lies within all bounds
:class:`Junction`           any, all or none of some filters hold
==========================  ============================================================================

Values are texts. A **number** among them is digits with a point, a sign and an exponent perhaps (``-1.5e3``,
blanks around it do not count; beyond float64, as ``1e999``, it is none); a **date** is ``YYYY``, ``YYYY-MM``
or ``YYYY-MM-DD`` and stands for its first day. A bound that is a JSON number compares numbers; one that is a
text is a date, and ``gt`` and ``lte`` of ``1990`` mean its last day. A value that is neither is passed over;
an attribute without any such value is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Junctive = Literal["any", "all", "none"]
Bound = float | str

Having = tuple[str, tuple[str, ...]]
"""An attribute, and the values of which an entity must have one."""

JUNCTIVES: tuple[Junctive, ...] = ("any", "all", "none")
BOUNDS = ("gte", "gt", "lte", "lt")


@dataclass(frozen=True, slots=True)
class Among:
    """A clause on the values of an attribute: an entity has all of them, or none."""

    attribute: str
    kind: Literal["all", "none"]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A clause on how a value of an attribute begins."""

    attribute: str
    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """A clause on where a value of an attribute lies: bounds by name, all numbers or all dates."""

    attribute: str
    bounds: tuple[tuple[str, Bound], ...]


@dataclass(frozen=True, slots=True)
class Junction:
    """A clause on other filters: any, all or none of them hold."""

    kind: Junctive
    parts: tuple[Filters, ...]


Clause = Having | Among | Prefix | Range | Junction
Filters = tuple[Clause, ...]
"""Clauses that all must hold; none: every entity may be ranked."""

_DATE = re.compile(r"(?P<year>\d{4})(-(?P<month>\d{2})(-(?P<day>\d{2}))?)?", re.ASCII)


def days_of(text: str) -> tuple[int, int] | None:
    """Return the first and the last day that a date stands for (1: 0001-01-01); None: it is no date."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    month, day = found["month"], found["day"]
    try:
        first = date(int(found["year"]), int(month or 1), int(day or 1))
        if day:
            return first.toordinal(), first.toordinal()
        # The last day before the next month or year begins; of the last year there is no next one.
        within = month and first.month < 12
        after = (first.year, first.month + 1) if within else (first.year + 1, 1)
        last = date.max if after[0] > date.max.year else date(*after, 1)
        return first.toordinal(), last.toordinal() - (after[0] <= date.max.year)
    except ValueError:
        return None


def interval(clause: Range) -> tuple[float, float, bool, bool]:
    """Return a range as its ends, and whether each of them belongs to it; of dates in days."""
    low, high, with_low, with_high = float("-inf"), float("inf"), True, True
    for name, bound in clause.bounds:
        first, last = _ends(bound)
        if name in ("gte", "gt"):
            low, with_low = (first, True) if name == "gte" else (last, False)
        else:
            high, with_high = (last, True) if name == "lte" else (first, False)
    return low, high, with_low, with_high


def _ends(bound: Bound) -> tuple[float, float]:
    if not isinstance(bound, str):
        return bound, bound
    days = days_of(bound)
    if days is None:
        raise ValueError(f"{bound!r} is no date")
    return days


def dumped(filters: Filters) -> str:
    """Return filters as JSON that :func:`loaded` reads; "" for none."""
    return json.dumps(_plain(filters)) if filters else ""


def loaded(text: str) -> Filters:
    """Return the filters that :func:`dumped` wrote."""
    return _filters(json.loads(text)) if text else ()


def _plain(filters: Filters) -> list[Any]:
    found: list[Any] = []
    for clause in filters:
        if isinstance(clause, Junction):
            found.append({clause.kind: [_plain(part) for part in clause.parts]})
        elif isinstance(clause, Among):
            found.append({"attribute": clause.attribute, clause.kind: clause.values})
        elif isinstance(clause, Prefix):
            found.append({"attribute": clause.attribute, "prefix": clause.text})
        elif isinstance(clause, Range):
            found.append({"attribute": clause.attribute, "range": clause.bounds})
        else:
            found.append({"attribute": clause[0], "any": clause[1]})
    return found


def _filters(given: list[Any]) -> Filters:
    return tuple(_clause(dict(one)) for one in given)


def _clause(given: dict[str, Any]) -> Clause:
    attribute = given.pop("attribute", None)
    kind: Any
    ((kind, value),) = given.items()
    if attribute is None:
        return Junction(kind, tuple(map(_filters, value)))
    if kind == "range":
        return Range(attribute, tuple((name, bound) for name, bound in value))
    if kind == "prefix":
        return Prefix(attribute, value)
    return (attribute, tuple(value)) if kind == "any" else Among(attribute, kind, tuple(value))
