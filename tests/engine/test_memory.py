from __future__ import annotations

from pathlib import Path

from engine.memory import memory_limit


def test_a_containers_limit_is_the_memory_there_is(tmp_path: Path) -> None:
    physical = memory_limit(tmp_path / "nothing")
    assert physical > 0
    for said, found in (("max\n", physical), ("1048576\n", 1 << 20), (f"{physical * 2}\n", physical)):
        (tmp_path / "memory.max").write_text(said)
        assert memory_limit(tmp_path / "memory.max") == found
