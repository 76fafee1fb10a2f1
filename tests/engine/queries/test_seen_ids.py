from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.queries import seen_ids
from engine.queries.seen_ids import SeenIds


@given(st.lists(st.text(max_size=2), max_size=300), st.sampled_from([1, 2, 7]))
def test_ids_are_claimed_once_as_in_a_dictionary(ids: list[str], recent: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen_ids, "RECENT", recent)
        seen, plain = SeenIds(), dict[str, int]()
        for number, text in enumerate(ids):
            assert seen.claim(text, number) == plain.get(text)
            plain.setdefault(text, number)
        assert len(seen._runs) <= 1 + len(plain).bit_length()
