from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import time

from benchmarks.peak_memory import own_memory, own_peak

HELD = 40 << 20


def work():
    held = b"1" * HELD
    time.sleep(0.1)
    assert len(held) == HELD


before = own_memory()
peak, mapped, seconds = own_peak(work)
assert HELD <= peak - before < 2 * HELD, (peak, before)
assert own_memory() - before < HELD, (own_memory(), before)
assert mapped > 0
assert seconds >= 0.1
"""


def test_what_is_held_for_a_moment_is_in_the_peak() -> None:
    """In a process of its own: what other tests have left behind may go at any moment."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
