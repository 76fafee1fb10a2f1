from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.importing import seen
from engine.corpus.importing.seen import SeenKeys


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)))
def test_keys_are_new_once_as_in_a_set(keys: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "LATEST", 3)
        found, plain = SeenKeys(), set[int]()
        for key in keys:
            assert found.add(key) is (key not in plain)
            plain.add(key)


def test_keys_are_held_at_8_bytes_but_for_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "LATEST", 100)
    found = SeenKeys()
    assert all(found.add(hash((key, "text"))) for key in range(5000))
    assert len(found._sorted) + len(found._latest) == 5000
    assert len(found._latest) < 5000 / 7
