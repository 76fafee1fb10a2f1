"""How far curators of a set agree, counted from its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.sets.agreement import agreement, judgements
from serve.sets.events import CREATE, JUDGE, UNDO, Event

Json = dict[str, Any]
Said = tuple[str, str, str, str]
"""Who accepted, rejected and took back which entities, called by one letter each."""


def history(*said: Said | int) -> list[Event]:
    """Events of a set; a number is an undo of the event of that version."""
    events = [Event(1, "t1", "ada", CREATE, {"name": "s", "question": None})]
    for one in said:
        version = len(events) + 1
        if isinstance(one, int):
            events.append(Event(version, f"t{version}", "ada", UNDO, {"undo": one}))
            continue
        by, accept, reject, clear = one
        sides = {
            side: [{"name": name, "id": 1} for name in names]
            for side, names in (("accept", accept), ("reject", reject))
        }
        content = {**sides, "clear": list(clear), "bundle": "b"}
        events.append(Event(version, f"t{version}", by, JUDGE, content, f"note {version}"))
    return events


def said_last(events: Sequence[Event]) -> dict[str, dict[str, bool]]:
    return {
        name: {who: one.accepted for who, one in by.items()} for name, by in judgements(events)[0].items()
    }


def test_the_last_word_of_each_counts_and_what_was_undone_or_taken_back_does_not() -> None:
    events = history(
        ("ada", "xyz", "", ""), ("bob", "x", "y", ""), ("ada", "", "x", ""), 3, ("ada", "", "", "z")
    )
    assert said_last(events) == {"x": {"ada": False}, "y": {"ada": True}}
    events = history(("ada", "x", "", ""), ("bob", "", "", "x"), ("", "xy", "z", ""))
    assert said_last(events) == {"x": {"ada": True}}, "who takes back takes back what is theirs"
    assert judgements(events)[1] == 3, "judgements of nobody"


def test_two_curators_are_compared_on_what_both_judged() -> None:
    both = "abcdefghij"  # Cohen's example, smaller: of ten, four accepted by both, three rejected by both
    events = history(
        ("ada", both[:6] + "x", both[6:], ""), ("bob", both[:4] + both[6], both[4:6] + both[7:], "")
    )
    found = agreement(events, "bob", 100)
    assert (found["shared"], found["agreed"], found["together"]) == (10, 7, None)
    chance = (6 / 10) * (5 / 10) + (4 / 10) * (5 / 10)
    (pair,) = found["pairs"]
    assert (pair["curators"], pair["judged"], pair["agreed"]) == (["ada", "bob"], 10, 7)
    assert pair["kappa"] == pytest.approx((0.7 - chance) / (1 - chance), abs=1e-4)
    assert found["curators"][0] == {"name": "ada", "judged": 11, "shared": 10}
    assert (found["to_judge"], found["left_to_judge"]) == (["x"], 1)
    split = found["disagreements"]
    assert {one["name"] for one in split} == {"e", "f", "g"}
    (e,) = (one for one in split if one["name"] == "e")
    assert e["stands"] == "rejected", "the later judgement stands"
    assert [(one["by"], one["accepted"], one["note"]) for one in e["judgements"]] == [
        ("ada", True, "note 2"),
        ("bob", False, "note 3"),
    ]


def test_three_curators_are_compared_together_on_what_all_judged() -> None:
    events = history(
        ("ada", "abc", "d", ""), ("bob", "ab", "cd", ""), ("eve", "a", "bcd", ""), ("eve", "", "z", "")
    )
    found = agreement(events, "", 1)
    together = found["together"]
    assert (sorted(together["curators"]), together["judged"], together["agreed"]) == (
        ["ada", "bob", "eve"],
        4,
        2,
    )
    mean = (1 + 1 / 3 + 1 / 3 + 1) / 4
    assert together["kappa"] == pytest.approx((mean - 0.5) / 0.5, abs=1e-4)
    assert len(found["pairs"]) == 3
    assert len(found["disagreements"]) == 1, "no more than the limit"
    assert found["to_judge"] == [], "nobody asks"


def test_where_nobody_judged_the_same_there_is_nothing_to_compare() -> None:
    found = agreement(history(("ada", "a", "", ""), ("bob", "b", "", "")), "eve", 100)
    assert (found["shared"], found["pairs"], found["together"], found["disagreements"]) == (0, [], None, [])
    assert (found["to_judge"], found["left_to_judge"]) == (["a", "b"], 2)
    assert agreement(history(), "", 100)["curators"] == []


Letters = st.text("abcd", max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["ada", "bob", "eve", ""]), Letters, Letters, Letters), max_size=8))
def test_figures_are_those_of_a_plain_count(said: list[Said]) -> None:
    apart = [(by, a, "".join(set(r) - set(a)), "".join(set(c) - set(a) - set(r))) for by, a, r, c in said]
    last: dict[tuple[str, str], bool] = {}
    for by, accept, reject, clear in apart:
        last |= {(by, n): True for n in accept} | {(by, n): False for n in reject}
        for name in clear:
            last.pop((by, name), None)
    found = agreement(history(*apart), "ada", 100)
    votes = {n: [v for (by, name), v in last.items() if name == n and by] for n in "abcd"}
    assert found["shared"] == sum(len(v) > 1 for v in votes.values())
    assert found["agreed"] == sum(len(v) > 1 and len(set(v)) == 1 for v in votes.values())
    for pair in found["pairs"]:
        first, second = pair["curators"]
        both = [n for n in "abcd" if (first, n) in last and (second, n) in last]
        assert pair["judged"] == len(both)
        assert pair["agreed"] == sum(last[first, n] == last[second, n] for n in both)
