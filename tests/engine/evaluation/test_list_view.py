from __future__ import annotations

import pytest

from engine.evaluation.list_view import list_view_note
from engine.methods import method

JOINT = {"neighbor_lists": 40, "neighbor_view": "joint"}
MASK = {"neighbor_lists": 40, "neighbor_view": "mask"}
NO_LISTS = {"neighbor_lists": 0, "neighbor_view": None}


@pytest.mark.parametrize("name", ["retexpan+lm-rerank", "genexpan", "genexpan+retexpan"])
def test_lists_of_a_view_that_is_not_searched_are_told(name: str) -> None:
    note = list_view_note(method(name), JOINT)
    assert note is not None
    assert "40 lists" in note
    assert "compare with `joint`" in note


@pytest.mark.parametrize(
    ("name", "language_model"),
    [
        ("retexpan+lm-rerank", MASK),
        ("joint+lm-rerank", JOINT),
        ("default+lm-rerank", JOINT),
        ("retexpan", JOINT),
        ("retexpan+lm-rerank", NO_LISTS),
        ("retexpan+lm-rerank", {}),
    ],
)
def test_nothing_is_told_where_nothing_is_borrowed(name: str, language_model: dict[str, object]) -> None:
    assert list_view_note(method(name), language_model) is None


def test_a_generating_method_searches_no_view() -> None:
    """Its segments go by likelihood: the view that the stage would else read does not count."""
    note = list_view_note(method("genexpan"), MASK)
    assert note is not None
    assert "compare with `retexpan-negative`" in note
