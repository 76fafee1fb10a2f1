"""JSON and YAML of users, in which no key is given twice."""

from __future__ import annotations

import pytest

from engine.repeated_keys import (
    RepeatedKeyError,
    json_records,
    json_value,
    other_than_text,
    repeated_key,
    yaml_value,
)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"b": {"c": 0, "a": [], "a": []}}]', '{"\\u0061": 1, "a": 2}']
)
def test_json_with_a_key_twice_is_refused_at_any_depth(text: str) -> None:
    with pytest.raises(RepeatedKeyError, match="a is given a second time"):
        json_value(text)
    assert repeated_key(json_records(text)) == "a"


def test_other_json_is_what_it_was() -> None:
    text = '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}'
    assert json_value(text) == json_records(text) == {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}
    assert repeated_key(json_records(text)) is None


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("t: {a: 1}\nt: {b: 1}\n", 2),
        ('t:\n  a: 1\n  "a": 2\n', 3),
        ("- {7: 1, '7': 2}", 1),
        ("? a\n: 1\n? a\n", 3),
    ],
)
def test_yaml_with_a_key_twice_is_refused_with_its_line(text: str, line: int, as_text: bool) -> None:
    with pytest.raises(RepeatedKeyError, match=f"line {line}: "):
        yaml_value(text, as_text)


def test_a_merged_mapping_may_be_overridden() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, x: 3}\n"
    assert yaml_value(text)["one"] == {"x": 3, "y": 2}
    assert yaml_value(text, scalars_as_text=True)["one"] == {"x": "3", "y": "2"}


@pytest.mark.parametrize("text", ["no", "007", "2026-01-01", "1e3", "true", "12:30:45", "0o7", "1.50"])
def test_scalars_can_stay_as_they_are_written(text: str) -> None:
    assert yaml_value(f"{text}: {text}", scalars_as_text=True) == {text: text}
    assert yaml_value("a:\nb: ~\nc: 'null'\n", scalars_as_text=True) == {"a": None, "b": None, "c": "null"}


def test_keys_that_yaml_reads_as_something_else_are_found() -> None:
    assert other_than_text("args:\n  tokens:\n    page: a\n    no: b\n") == ("no", 4)
    assert other_than_text("- a: {'007': 1, <<: {b: 1}}\n") is None
    assert other_than_text("") is None


@pytest.mark.parametrize("text", ["[" * 3000, "a: [", "\x00", "!!python/object:os.system {}"])
def test_what_is_no_yaml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not YAML"):
        yaml_value(text)
