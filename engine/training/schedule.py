"""The one-cycle learning rate schedule, a pure function of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math


def one_cycle(step: int, total: int, peak: float, warmup: float = 0.3) -> float:
    """Return the learning rate of a step: a half cosine up from peak/25, and one down to almost zero.

    Args:
        step: counted from 0.
        total: steps of the whole run.
        peak: the highest rate.
        warmup: the share of steps that rise.
    """
    rising = max(1.0, warmup * total)
    if step < rising:
        low, share = peak / 25, step / rising
        return low + (peak - low) * (1 - math.cos(math.pi * share)) / 2
    share = min(1.0, (step - rising) / max(1.0, total - rising))
    low = peak / 25e4
    return low + (peak - low) * (1 + math.cos(math.pi * share)) / 2
