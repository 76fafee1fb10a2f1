"""Filters: every clause against a plain loop over entities, and each mistake by its place."""

from __future__ import annotations

import datetime
import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from engine.errors import FilterError, UnknownAttributeError
from engine.filters import days_of, dumped, loaded
from engine.queries.filters import MAX_CLAUSES, MAX_DEPTH, Filter, written
from engine.text.spelling import look_key
from tests.engine.test_catalogue import catalogue

READ: TypeAdapter[Any] = TypeAdapter(Filter)

Attributes = dict[str, list[str]]


def number(text: str) -> float | None:
    if not re.fullmatch(r"\s*[+-]?\d+(\.\d+)?([eE][+-]?\d{1,3})?\s*", text):
        return None
    return float(text) if math.isfinite(float(text)) else None


def first_day(text: str) -> Any:
    parts = text.split("-")
    if [len(part) for part in parts] not in ([4], [4, 2], [4, 2, 2]) or not "".join(parts).isdecimal():
        return None
    try:
        return datetime.date(*(int(part) for part in [*parts, "01", "01"][:3]))
    except ValueError:
        return None


def last_day(text: str) -> datetime.date:
    """Return the last day of a date, by trying each day after its first."""
    day = first_day(text)
    assert day is not None
    while day.isoformat().startswith(text) and day < datetime.date.max:
        day += datetime.timedelta(days=1)
    return day if day.isoformat().startswith(text) else day - datetime.timedelta(days=1)


def fulfils(entity: Attributes, given: dict[str, Any]) -> bool:
    return all(clause_holds(entity, name, value) for name, value in given.items())


def clause_holds(entity: Attributes, name: str, value: Any) -> bool:
    if name in ("any", "all", "none") and isinstance(value[0], dict):
        each = [fulfils(entity, part) for part in value]
        return {"any": any(each), "all": all(each), "none": not any(each)}[name]
    own = entity.get(name, [])
    if isinstance(value, str | list):
        return bool({value} & set(own) if isinstance(value, str) else set(value) & set(own))
    holds = {
        "any": lambda wanted: bool(set(wanted) & set(own)),
        "all": lambda wanted: set(wanted) <= set(own),
        "none": lambda wanted: not set(wanted) & set(own),
        "prefix": lambda text: any(look_key(one).startswith(look_key(text)) for one in own),
    }
    bounds = {bound: limit for bound, limit in value.items() if bound not in holds}
    rest = [holds[kind](wanted) for kind, wanted in value.items() if kind in holds]
    return all(rest) and (not bounds or any(within(one, bounds) for one in own))


def within(text: str, bounds: dict[str, Any]) -> bool:
    if all(isinstance(limit, str) for limit in bounds.values()):
        day = first_day(text)
        if day is None:
            return False
        return all(
            {
                "gte": lambda d=limit: day >= first_day(d),
                "gt": lambda d=limit: day > last_day(d),
                "lte": lambda d=limit: day <= last_day(d),
                "lt": lambda d=limit: day < first_day(d),
            }[bound]()
            for bound, limit in bounds.items()
        )
    read = number(text)
    if read is None:
        return False
    compared = {
        "gte": lambda limit: read >= limit,
        "gt": lambda limit: read > limit,
        "lte": lambda limit: read <= limit,
        "lt": lambda limit: read < limit,
    }
    return all(compared[bound](limit) for bound, limit in bounds.items())


COLOURS = ("red", "Reddish", "blue")
YEARS = ("1989", "1990", "1990-06", "1990-12-31", "1991-02-29", "9999", " 12 ", "-3.5", "1e3", "1e999", "big")
ENTITIES = st.fixed_dictionaries(
    {},
    optional={
        "colour": st.lists(st.sampled_from(COLOURS), max_size=3),
        "year": st.lists(st.sampled_from(YEARS), max_size=3),
        "none": st.lists(st.sampled_from(["odd"]), max_size=1),
    },
)
VALUES = st.lists(st.sampled_from(COLOURS), min_size=1, max_size=3)
DATES = st.sampled_from(["1989", "1990", "1990-06", "1990-12", "1990-12-31", "0001", "9999", "9999-12"])
NUMBERS = st.sampled_from([-3.5, 0, 12, 1000, 1990, 1e9])


def bounds(limits: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    low, high = (
        st.dictionaries(st.sampled_from(side), limits, max_size=1) for side in (("gte", "gt"), ("lte", "lt"))
    )
    return st.tuples(low, high).map(lambda sides: sides[0] | sides[1]).filter(bool)


TESTS = st.dictionaries(st.sampled_from(["any", "all", "none"]), VALUES, min_size=1) | st.sampled_from(
    [{"prefix": "re"}, {"prefix": "RED"}, {"prefix": "red", "none": ["red"]}]
)
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "colour": VALUES | st.sampled_from(COLOURS) | TESTS,
        "year": bounds(DATES) | bounds(NUMBERS),
        "none": st.just(["odd"]),
    },
).filter(bool)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(
        st.sampled_from(["any", "all", "none"]),
        st.lists(inner, min_size=1, max_size=3),
        min_size=1,
        max_size=2,
    ),
    max_leaves=6,
)

EVERYTHING = [{"colour": list(COLOURS), "year": ["1990", "5"], "none": ["odd"]}]
"""An entity by which every attribute and value is known."""


@given(st.lists(ENTITIES, max_size=8), NESTED)
@settings(max_examples=60)
def test_filters_equal_a_plain_loop(tmp_path_factory: pytest.TempPathFactory, rows, filter_) -> None:
    rows = [*rows, *EVERYTHING]
    filters = READ.validate_python(filter_)
    found = catalogue(tmp_path_factory.mktemp("c"), rows).matching(filters)
    assert found.tolist() == [i for i, row in enumerate(rows) if fulfils(row, filter_)]
    assert loaded(dumped(filters)) == filters
    assert pickle.loads(pickle.dumps(filters)) == filters
    assert isinstance(hash(filters), int)


@given(NESTED)
def test_what_is_written_is_read_as_the_same_filter(filter_: dict[str, Any]) -> None:
    read = READ.validate_python(filter_)
    for text in (READ.dump_json(read), json.dumps(written(read))):
        assert READ.validate_json(text) == read


@pytest.mark.parametrize("text", ["0001", "1999-02", "2000-02", "2000-12", "2000-02-29", "9999", "9999-12"])
def test_a_date_stands_for_all_its_days(text: str) -> None:
    first = first_day(text)
    assert first is not None
    assert days_of(text) == (first.toordinal(), last_day(text).toordinal())


def test_what_is_no_date_has_no_days() -> None:
    assert not any(map(days_of, ["", "199", "1990-13", "1990-00", "1991-02-29", "0000", "1990-6", "٢٠٠٠"]))


def nested(depth: int) -> Any:
    return {"any": [nested(depth - 1)]} if depth else {"a": ["b"]}


@pytest.mark.parametrize(
    ("given", "place", "words"),
    [
        ([], (), "valid dictionary"),
        (
            {"a": 1},
            ("a",),
            "give a list of values, or an object of any, all, none, prefix, gte, gt, lte or lt",
        ),
        ({"a": []}, ("a",), "at least 1"),
        ({"a": ["x"] * 65}, ("a",), "at most 64"),
        ({"a": ["x", 1]}, ("a", 1), "a value is no text"),
        ({"a": ["x", "\0"]}, ("a", 1), "NUL"),
        ({"a": {}}, ("a",), "says nothing"),
        ({"a": {"gte": 1, "near": 2}}, ("a", "near"), "nothing is called so; there are any, all"),
        ({"a": {"gte": "soon"}}, ("a", "gte"), "'soon' is no number, and no date such as '1990'"),
        ({"a": {"gte": True}}, ("a", "gte"), "True is no number"),
        ({"a": {"gte": 1, "gt": 2}}, ("a", "gt"), "give gte or gt, not both"),
        ({"a": {"gte": 1, "lt": "1990"}}, ("a", "lt"), "one bound is a number and the other a date"),
        ({"a": {"lt": 10**400}}, ("a", "lt"), "is no number"),
        ({"a": {"prefix": ""}}, ("a", "prefix"), "a prefix has 0 characters"),
        ({"any": [{"a": ["b"]}, {"a": {"all": 3}}]}, ("any", 1, "a", "all"), "valid list"),
        ({"any": [{"a": ["b"]}, {}]}, ("any", 1), "an empty filter says nothing"),
        ({"any": [{"a": ["b"]}, "x"]}, ("any", 1), "valid dictionary"),
        (nested(MAX_DEPTH + 1), ("any", 0) * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} deep"),
        (
            {"any": [{"a": ["b"]}] * MAX_CLAUSES},
            ("any", MAX_CLAUSES - 1, "a"),
            f"at most {MAX_CLAUSES} clauses",
        ),
        ({str(n): ["x"] for n in range(17)}, (), "at most 16"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(
    given: Any, place: tuple[str | int, ...], words: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)) as caught:
        READ.validate_python(given)
    assert [error["loc"] for error in caught.value.errors()] == [place]
    READ.validate_python(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"colour": {"gte": 1}}, "filter.colour.gte", "'colour' has no values that are numbers, but such as"),
        (
            {"colour": {"lt": "1990"}},
            "filter.colour.lt",
            "are dates (YYYY, YYYY-MM or YYYY-MM-DD), but such",
        ),
        ({"day": {"gt": 5}}, "filter.day.gt", "it holds dates"),
        ({"none": [{"colour": {"prefix": "gr"}}]}, "filter.none.0.colour.prefix", "begins with 'gr'"),
        ({"any": [{"colour": ["red"]}, {"colour": ["rde"]}]}, "filter.any.1.colour", "did you mean 'red'"),
        (
            {"all": [{"colr": {"prefix": "r"}}]},
            "filter.all.0.colr",
            "attribute 'colr'; did you mean 'colour'",
        ),
    ],
)
def test_what_no_value_can_answer_is_refused_at_its_clause(
    tmp_path: Path, given: Any, field: str, words: str
) -> None:
    known = catalogue(tmp_path, [{"colour": ["red"], "day": ["1990-01-02"]}])
    with pytest.raises((FilterError, UnknownAttributeError), match=re.escape(words)) as caught:
        known.matching(READ.validate_python(given))
    error: Any
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.field, error.status) == (field, 422)


def test_a_filter_is_evaluated_once(tmp_path: Path) -> None:
    known = catalogue(tmp_path, EVERYTHING)
    filters = READ.validate_python({"year": {"lt": 100}})
    first = known.matching(filters)
    assert known.matching(READ.validate_python({"year": {"lt": 100.0}})) is first
