"""Plans are computed by hand here; the figures that they rest on are those of docs/performance.md."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from cluster import measured as m
from cluster.size import main, plan, text
from cluster.sizing import SizeSettings, core_hours, disk, memory, serial_hours
from engine.errors import UserError
from tests.support.deploy import ROOT

PERFORMANCE = " ".join((ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split())
FIGURES = {name: one for name, one in vars(m).items() if isinstance(one, m.Measured)}


def settings(**changes: float) -> SizeSettings:
    return SizeSettings.model_validate({"entities": 1000, "sentences": 1_000_000, **changes})


def by_name(lines: list, start: str) -> float:
    (found,) = (line.value for line in lines if line.what.startswith(start))
    return float(found)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_one_that_the_document_tells(name: str) -> None:
    assert FIGURES[name].words in PERFORMANCE, (
        "docs/performance.md has another: bring cluster/measured.py in line"
    )


def test_the_memory_is_the_document_s() -> None:
    assert m.MEMORY_WORDS in PERFORMANCE
    for step, roles in m.MEMORY.items():
        told = ", ".join(
            f"{role} " + " / ".join("–" if one is None else str(one) for one in values)
            for role, values in roles.items()
        )
        assert f"`{step}` {told}" in PERFORMANCE, step


def test_the_lines_end_where_the_document_says() -> None:
    told = re.search(r"ends at ([\d.]+), ([\d.]+), ([\d.]+) and ([\d.]+) GiB", PERFORMANCE)
    assert told
    size = 10_000_000, 200_000, m.ENCODER_DIMENSIONS
    for step, gib in zip(m.MEMORY, told.groups(), strict=True):
        assert m.largest_at(step, *size).at(*size) / 1024 == pytest.approx(float(gib), abs=0.06), step


def test_a_line_by_hand() -> None:
    (found,) = m.memory_lines("import")
    assert found.a_sentence == pytest.approx(38 * 2**20 / 450_000)
    assert found.an_entity == pytest.approx(28 * 2**20 / 11_000)
    assert found.at(600_000, 15_000) == pytest.approx(152 + 28)
    assert found.at(10, 10) == 114
    _, worker = m.memory_lines("preprocess")
    assert worker.a_sentence == 0, "it was less of more sentences"
    (command, _) = m.memory_lines("train-encoder")
    more = command.at(1e6, 1e6, 384) - command.at(1e6, 1e6)
    assert more == pytest.approx(16 * 368 * 1e6 / 2**20)


def test_the_whole_of_what_was_measured_is_planned_within_half_of_it() -> None:
    whole = settings(entities=4_092, sentences=156_411)
    seconds = (
        serial_hours(whole).value * 3600 + sum(line.value for line in core_hours(whole)) * 3600 / m.CORES
    )
    assert 1 <= seconds / m.WHOLE_RUN.value < 1.5


def test_work_by_hand() -> None:
    lines = core_hours(settings())
    assert by_name(lines, "frozen") == pytest.approx(1e6 / 285 / 3600)
    assert by_name(lines, "training") == pytest.approx(12e6 / 4950 / 3600)
    assert by_name(lines, "vectors") == pytest.approx(1e6 / 4950 / 3600)
    assert serial_hours(settings()).value == pytest.approx(1e6 * 4.5 / 394_097 / 3600)


def test_a_larger_encoder_and_longer_sentences_cost_what_they_compute() -> None:
    lines, larger = core_hours(settings()), core_hours(settings(layers=12, dimensions=768, tokens=68))
    assert by_name(larger, "frozen") == pytest.approx(by_name(lines, "frozen") * 8 * 2)
    assert by_name(larger, "training") == pytest.approx(by_name(lines, "training") * 4)


def test_memory_and_disk_by_hand() -> None:
    needed, stored = memory(settings()), disk(settings(images=1000))
    sentences = 3 * 2**20 / 450_000 * 850_000 / 2**20
    assert by_name(needed, "largest process of build-index") == pytest.approx((535 + sentences) / 1024)
    assert by_name(needed, "vectors") == pytest.approx(1000 * 384 * 4 * 3 / 2**30)
    assert by_name(stored, "frozen") == pytest.approx(1e6 * 34 * 384 * 2 / 2**30)
    assert by_name(stored, "patch") == pytest.approx(1000 * 50 * 768 * 2 / 2**30)
    small = memory(settings(sentences=1000))
    assert by_name(small, "largest process of import") == pytest.approx(114 / 1024)


def test_a_language_model_by_hand() -> None:
    with_model = settings(language_model_parameters=7e9, gpu_teraflops=200, hours=10)
    needed = memory(with_model)
    assert by_name(needed, "language model, served") == pytest.approx(14e9 / 2**30)
    assert by_name(needed, "language model in training") == pytest.approx(112e9 / 2**30)
    gpus = plan(with_model).gpus
    # 6 x 7e9 x 34e6 = 1.428e18 operations: 2 hours of one such GPU; 104 GiB in two times 64.
    assert [line.value for line in gpus] == [1, 2, 2, 1]
    (split,) = plan(settings(language_model_parameters=70e9)).gpus
    assert split.value == 4  # 130 GiB in 64 each are three, and heads are shared out by powers of two
    on_cores = core_hours(settings(language_model_parameters=6.8e6))
    assert by_name(on_cores, "language model") == pytest.approx(34e6 / (6950 / 2) / 3600)


def test_a_batch_by_hand() -> None:
    assert by_name(core_hours(settings(queries=1e6)), "batch") == pytest.approx(1e6 * 0.013 * 2 / 3600)
    larger = settings(queries=1e3, language_model_parameters=48e6)
    assert by_name(core_hours(larger), "batch") == pytest.approx(1e3 * 0.55 * 2 * 2 / 3600)


def test_nodes_are_as_many_as_the_largest_need_wants() -> None:
    found = plan(settings(sentences=1e8, hours=10, node_memory_gib=128, node_disk_gib=1000))
    work = sum(line.value for line in found.work)
    left = 10 - found.hours.value
    cores, vectors, disks, nodes = (line.value for line in found.nodes)
    assert cores - 1 < work / left / 0.8 / 8 <= cores
    assert vectors == 1
    assert disks == 3  # 2,432 GiB
    assert nodes == max(cores, vectors, disks)
    half = plan(settings(sentences=1e8, hours=10, node_memory_gib=128, node_disk_gib=1000, efficiency=0.4))
    assert half.nodes[0].value == pytest.approx(2 * cores, abs=1)


def test_what_no_number_of_nodes_can_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"--hours 1: import, one process: .* = 3\.17 hours, .*--append"):
        plan(settings(sentences=1e9, hours=1, node_memory_gib=2000))
    with pytest.raises(
        UserError, match=r"--node-memory-gib 1: largest process of train-encoder: .*larger nodes"
    ):
        plan(settings(sentences=1e7, node_memory_gib=1))


def test_the_plan_shows_its_arithmetic_and_what_was_not_measured() -> None:
    shown = text(plan(settings(images=10, queries=5)))
    assert "1,000,000 sentences x 12 epochs x 1 (dimensions) / (9900/s / 2 cores) = 0.673 core-hours" in shown
    for words in ("efficiency 0.8 is assumed", "image features was not measured", "without a GPU"):
        assert words in shown
    for line in shown.splitlines():
        assert not line.startswith("  nodes for") or " = " in line


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(main.app, ["--entities", "1e3", "--sentences", "1e6"])
    assert done.exit_code == 0
    assert done.stdout.startswith("Alone\n  import, one process: ")
