from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.memory_scale import Size, corpora, line
from benchmarks.process_memory import COMMAND, STORE, Cost, measured

SIZES, ENTITIES = [1000, 5000, 7000], [10, 30]


def test_a_peak_that_grows_with_both_is_found_at_the_target() -> None:
    values = {size: 500 + 3.0 * size.sentences + 40 * size.entities for size in corpora(SIZES, ENTITIES)}
    assert list(values) == [Size(1000, 10), Size(5000, 10), Size(7000, 10), Size(1000, 30)]
    found = line(SIZES, ENTITIES, values)
    assert (found.a_sentence, found.an_entity) == (3, 40)
    assert found.at(Size(10_000, 200)) == 500 + 30_000 + 8000


def test_what_falls_by_chance_does_not_lower_the_target() -> None:
    values = {size: 500 - size.sentences / 1000 for size in corpora(SIZES, ENTITIES)}
    assert line(SIZES, ENTITIES, values).at(Size(10_000, 200)) == 499


def test_the_object_store_is_no_process() -> None:
    assert Cost({COMMAND: 3, "MapWorker": 5, STORE: 9}, 0, 0.0).largest == 5


def test_a_process_s_own_memory_and_its_files_are_measured(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; held = b'1' * (40 << 20); time.sleep(0.3); "
        "pathlib.Path(sys.argv[1], 'made').write_bytes(b'12345')"
    )
    cost = measured([sys.executable, "-S", "-c", program, str(tmp_path)], tmp_path)
    assert 40 << 20 <= cost.peaks[COMMAND] < 60 << 20
    assert cost.disk == 5
    with pytest.raises(RuntimeError, match="ended with status 3"):
        measured([sys.executable, "-S", "-c", "raise SystemExit(3)"], tmp_path)


@pytest.mark.parametrize(("program", "role"), [("default_worker.py", "IDLE"), ("monitor.py", "monitor.py")])
def test_a_process_of_python_is_told_by_its_program(tmp_path: Path, program: str, role: str) -> None:
    (tmp_path / program).write_text("import time; time.sleep(1)")
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-S', {str(tmp_path / program)!r}])"
    assert role in measured([sys.executable, "-S", "-c", start], tmp_path).peaks
