"""The page on scale tells what the plan computes of what was measured: each figure is computed here again."""

from __future__ import annotations

import pytest

from cluster import measured as m
from cluster.sizing import GIB, SizeSettings, core_hours, disk, memory, serial_hours
from tests.support.deploy import ROOT

PAGE = " ".join((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split())
LARGE = SizeSettings(entities=1e8, sentences=1e9)
NODE_GIB = 32


@pytest.mark.parametrize("step", m.MEMORY)
def test_where_a_step_ends(step: str) -> None:
    size = 1e9, m.MEMORY_ENTITIES[0], m.MEMORY_DIMENSIONS
    found = m.largest_at(step, *size)
    slope = found.a_sentence
    ends = m.MEMORY_SENTENCES[0] + (NODE_GIB * GIB - found.base * 2**20) / slope
    (row,) = (line for line in (ROOT / "docs" / "scale.md").read_text().splitlines() if f"| `{step}`" in line)
    assert f"| {slope:,.0f} |" in row
    assert f"| {ends / 1e6:,.0f} million" in row
    assert f"| {found.at(*size) / 1024:.0f} GiB |" in row


def test_what_entities_take() -> None:
    assert f"6,144 bytes | {1e8 * 384 * 16 / GIB:.0f} GiB" in PAGE
    assert f"4 KB | {1e8 * 4096 / GIB:.0f} GiB" in PAGE
    vectors = next(line for line in memory(LARGE) if line.what.startswith("vectors"))
    assert f"4,608 bytes | {vectors.value:.0f} GiB" in PAGE
    assert f"48 bytes a vector and view are {1e8 * 48 * 3 / GIB:.0f} GiB" in PAGE
    assert f"{507 * 2**20 / 1e6:.0f} bytes | {100 * 507 / 1024:.0f} GiB, {100 * 22 / 60:.0f} minutes" in PAGE
    assert f"{m.TRIE.value:.0f} bytes | {1e8 * m.TRIE.value / GIB:.1f} GiB" in PAGE
    assert f"{2**31 / 1e8:.0f} times as many" in PAGE
    assert f"at {NODE_GIB * GIB / (384 * 16) / 1e6:.1f} million entities" in PAGE


def test_what_takes_long_and_much() -> None:
    frozen, trained, _ = core_hours(LARGE)
    assert f"| {serial_hours(LARGE).value:.2f} hours |" in PAGE
    assert f"| {frozen.value:.0f} core-hours |" in PAGE
    assert f"| {trained.value:.0f} core-hours |" in PAGE
    view = 1e8 * 384 * 4 / GIB
    assert f"{view:.0f} GiB a view" in PAGE
    assert f"with 100 of them {view / 100:.1f} GiB each" in PAGE
    assert f"10 million entities are {view / 10:.0f} GiB a view" in PAGE
    states = next(line for line in disk(LARGE) if line.what.startswith("frozen"))
    each = states.value * GIB / 1e9
    assert f"{each:,.0f} bytes a sentence" in PAGE
    assert f"take {states.value / 1024:.0f} TiB" in PAGE
    assert f"at {200 * GIB / each / 1e6:.0f} million sentences a disk of 200 GiB" in PAGE
