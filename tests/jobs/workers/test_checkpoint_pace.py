from __future__ import annotations

from jobs.workers.checkpoint_pace import CheckpointPace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_writing_takes_at_most_its_share_of_the_time() -> None:
    clock = Clock()
    pace = CheckpointPace(60, 0.05, clock)
    clock.now = 60.5
    assert pace.due()
    clock.now += 30  # of writing
    said = pace.wrote(30)
    assert said is not None
    assert "took 30.0 s: the next ones are 570 s apart" in said
    clock.now += 569
    assert not pace.due()
    clock.now += 2
    assert pace.due(), "30 of 600 seconds are 5 %"
    assert pace.wrote(31) is None, "told once"


def test_what_is_written_fast_is_written_as_often_as_asked() -> None:
    clock = Clock()
    pace = CheckpointPace(60, 0.05, clock)
    assert pace.wrote(2) is None
    clock.now = 61
    assert pace.due()
    slow = CheckpointPace(1, 1.0, clock)
    assert slow.wrote(500) is None, "with a share of 1 time alone counts"
    assert slow.interval == 1
