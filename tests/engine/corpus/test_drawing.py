"""The draw by hash against a plain one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.drawing import draw_of, drawn

MENTIONS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9)), max_size=40)


@given(MENTIONS, st.none() | st.integers(1, 4))
def test_the_smallest_draws_of_every_entity_are_kept_once(
    mentions: list[tuple[int, int]], per_entity: int | None
) -> None:
    entities = np.array([one for one, _ in mentions], np.int32)
    draws = np.array([number for _, number in mentions], np.uint64)
    kept, duplicates = drawn(entities, draws, per_entity)
    found = sorted((int(e), int(d)) for e, d in zip(entities[kept], draws[kept], strict=True))
    expected = [
        (entity, number)
        for entity in range(4)
        for number in sorted({d for e, d in mentions if e == entity})[:per_entity]
    ]
    assert found == expected
    decided = [one for one in mentions if one[0] >= 0]
    assert duplicates == len(decided) - len(set(decided))


def test_a_text_that_grows_keeps_what_was_drawn() -> None:
    draws = np.array([draw_of("Oslo", f"Oslo {i}") for i in range(200)], np.uint64)
    entities = np.zeros(200, np.int32)
    before, _ = drawn(entities[:100], draws[:100], 20)
    after, _ = drawn(entities, draws, 20)
    lost = set(draws[:100][before]) - set(draws[after])
    new = set(draws[after]) - set(draws[:100])
    assert len(lost) == len(new) < 20, "each new one displaces one, and nothing else changes"


def test_draws_differ_by_entity_and_sentence() -> None:
    assert draw_of("a", "b c") != draw_of("a b", "c")
    assert draw_of("Oslo", "Oslo is a city.") == 12776940213172546621, (
        "on every machine, and in every version"
    )
