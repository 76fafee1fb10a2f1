from __future__ import annotations

import time

from benchmarks.peak_memory import own_memory, own_peak

HELD = 40 << 20


def test_what_is_held_for_a_moment_is_in_the_peak() -> None:
    def work() -> None:
        held = b"1" * HELD
        time.sleep(0.1)
        assert len(held) == HELD

    before = own_memory()
    peak, mapped, seconds = own_peak(work)
    assert HELD <= peak - before < 2 * HELD
    assert own_memory() - before < HELD
    assert mapped > 0
    assert seconds >= 0.1
