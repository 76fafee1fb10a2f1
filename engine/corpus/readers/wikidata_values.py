"""Write the values of Wikidata's statements as texts; values that are entities wait for their labels.

Times and quantities are written without words, so that they are the same in every language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.corpus.readers.json_stream import json_type
from engine.refusals import Code, Refusal

_TIME = re.compile(r"([+-])(\d{1,16})-(\d\d)-(\d\d)T")
_UNIT = re.compile(r"/(Q[1-9]\d*)$")
_DAY, _MONTH = 11, 10
_YEARS = {8: 10, 7: 100, 6: 1000}
"""Years of a decade, a century and a millennium, by precision."""
_PREFIXES = {"item": "Q", "property": "P"}


class Value(NamedTuple):
    """A value of a statement.

    Args:
        text: "" where it is an entity.
        id: of the entity that it is, or of a quantity's unit; "" where there is none.
    """

    text: str
    id: str = ""


def value_of(snak: Mapping[str, Any]) -> Value | Refusal | None:
    """Return the value of a statement's snak; None where that says that there is none, or an unknown one."""
    kind = snak.get("snaktype")
    if kind in ("novalue", "somevalue"):
        return None
    data = snak.get("datavalue")
    if kind != "value" or not isinstance(data, dict):
        return Refusal(Code.WRONG_LAYOUT, "a snak without a value")
    of, value = data.get("type"), data.get("value")
    if of == "string" and isinstance(value, str):
        return Value(value) if value.strip() else Refusal(Code.TEXT_EMPTY, "a value is empty")
    read = _READ.get(str(of))
    if read is None or not isinstance(value, dict):
        return Refusal(
            Code.WRONG_TYPE, f"a value of type {str(of)[:40]!r} that is {json_type(value)} is not read"
        )
    try:
        return read(value)
    except (KeyError, ValueError, TypeError, AttributeError):
        return Refusal(Code.WRONG_LAYOUT, f"a value of type {of!r} in a form that is not known")


def _entity(value: Mapping[str, Any]) -> Value:
    """Return an entity's id; older dumps have its number alone."""
    given = value.get("id")
    if given is None:
        given = f"{_PREFIXES[value['entity-type']]}{int(value['numeric-id'])}"
    if not isinstance(given, str) or not given:
        raise ValueError(given)
    return Value("", given)


def _time(value: Mapping[str, Any]) -> Value:
    """Return a time as ``1879-03-14``, ``1879-03``, ``1879`` or, of a decade, ``1870-1879``; -44 is 44 BC."""
    found = _TIME.match(value["time"])
    if found is None:
        raise ValueError(value["time"])
    sign, precision, year = "-" if found[1] == "-" else "", int(value["precision"]), int(found[2])
    if precision >= _DAY:
        return Value(f"{sign}{year:04}-{found[3]}-{found[4]}")
    if precision == _MONTH:
        return Value(f"{sign}{year:04}-{found[3]}")
    if precision not in _YEARS:
        return Value(f"{sign}{year}")
    span = _YEARS[precision]
    # A decade begins with its round year, centuries and millennia end with theirs.
    first = year // span * span if span == 10 else (max(year, 1) - 1) // span * span + 1
    return Value(f"{sign}{first}-{sign}{first + span - 1}")


def _quantity(value: Mapping[str, Any]) -> Value:
    amount = value["amount"].removeprefix("+")
    float(amount)
    unit = _UNIT.search(value["unit"])
    return Value(amount, unit[1] if unit else "")


def _text(value: Mapping[str, Any]) -> Value:
    if not value["text"].strip():
        raise ValueError(value)
    return Value(value["text"])


def _place(value: Mapping[str, Any]) -> Value:
    return Value(f"{float(value['latitude']):g}, {float(value['longitude']):g}")


_READ: dict[str, Callable[[Mapping[str, Any]], Value]] = {
    "wikibase-entityid": _entity,
    "time": _time,
    "quantity": _quantity,
    "monolingualtext": _text,
    "globecoordinate": _place,
}
