"""Compute learning rates as pure functions of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math
from typing import Literal

RateSchedule = Literal["one-cycle", "constant"]
"""Schedules of an encoder's learning rate: a short run's, and RetExpan's."""


def encoder_rate(schedule: RateSchedule, step: int, total: int, peak: float) -> float:
    """Return the learning rate of a step of an encoder's run.

    Args:
        schedule: "one-cycle" (:func:`one_cycle`; ours, for few passes at a high rate), or "constant": the
            rate itself at every step, without a warm-up, as RetExpan's program trains.
        step: counted from 0.
        total: steps of the whole run.
        peak: the highest rate.
    """
    return peak if schedule == "constant" else one_cycle(step, total, peak)


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


def warmup_cosine(step: int, total: int, peak: float, warmup: float, floor: float = 0.05) -> float:
    """Return the learning rate of a step: a straight line up to the peak, then a half cosine down.

    Args:
        step: counted from 0.
        total: steps of the whole run.
        peak: the highest rate.
        warmup: how many steps rise; below 1 a share of the whole run.
        floor: share of the peak at which the run ends.
    """
    rising = round(warmup * total if warmup < 1 else min(warmup, total))
    if step < rising:
        return peak * (step + 1) / rising
    share = min(1.0, (step - rising) / max(1, total - rising))
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2)
