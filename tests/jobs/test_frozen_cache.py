"""What the frozen layers have read is not read again: where parts differ, their sentences are looked up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.models.hub import embedded_model_path
from engine.models.text import TextEncoder
from engine.storage.manifests import makers_in
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache, mapped_tokens
from engine.training.input_rows import InputRows
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.model_input import preprocess
from jobs.workers import executor
from jobs.workers.executor import LocalExecutor
from tests.support.corpora import run_import, ultrawiki

NAMES = ["iron", "tin", "zinc", "lead"]


def sentences(n: int) -> dict[str, list[str]]:
    """Of each entity others: with the name masked they would be the same to the frozen layers."""
    return {name: [f"Sentence {i}{k} tells of {name}." for i in range(n)] for k, name in enumerate(NAMES)}


def filled(folder: Path, max_sentences: int = 6) -> FrozenCache:
    workspace = Workspace.open(folder)
    tokenizer = fingerprint(load_tokenizer(embedded_model_path()))
    settings = InputSettings(tokenizer=tokenizer, max_sentences=max_sentences)
    preprocess(workspace, "embedded", settings, LocalExecutor())
    return frozen_cache(workspace, open_inputs(workspace), "embedded", executor=LocalExecutor())


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sentences of every batch that the frozen layers read."""
    found: list[int] = []
    lower = TextEncoder.lower_states

    def counted(self: TextEncoder, ids: torch.Tensor, *more: Any) -> torch.Tensor:
        found.append(len(ids))
        return lower(self, ids, *more)

    monkeypatch.setattr(TextEncoder, "lower_states", counted)
    return found


def test_of_another_draw_only_what_is_new_is_read(tmp_path: Path, read: list[int]) -> None:
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences(9)), "ultrawiki")
    filled(tmp_path / "w", 6)
    assert sum(read) == 4 * 6
    read.clear()
    more = filled(tmp_path / "w", 8)
    assert sum(read) == 4 * 2, "a draw of more holds the smaller one"
    read.clear()
    filled(tmp_path / "w", 4)
    assert not read
    states = more.open().gather(np.arange(32))[0]
    run_import(tmp_path / "v", tmp_path / "raw", "ultrawiki")
    plain = filled(tmp_path / "v", 8).open().gather(np.arange(32))[0]
    torch.testing.assert_close(states.float(), plain.float(), rtol=0.05, atol=0.05)


def test_other_libraries_make_nothing_anew_and_are_noted_with_what_they_add(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences(2)), "ultrawiki")
    before = filled(tmp_path / "w", 1)
    file = before.parts[0].states.parent / "manifest.json"
    (ours,) = makers_in(file)
    assert ours.keys() == {"seedset", "python", "numpy", "torch", "transformers"}
    (of_tokens,) = before.inputs.manifest.made_by
    read.clear()
    for steps in ("frozen_cache", "model_input"):
        monkeypatch.setattr(f"jobs.steps.{steps}.versions_of", lambda libraries: {"seedset": "99.0"})
    again = filled(tmp_path / "w", 1)
    assert not read
    assert (again.inputs, again.states) == (before.inputs, before.states)
    assert makers_in(file) == (ours,)
    assert again.inputs.manifest.made_by == (of_tokens,)
    assert filled(tmp_path / "w", 2).inputs.manifest.made_by == ({"seedset": "99.0"},), (
        "all its parts are new"
    )
    assert makers_in(file) == (ours, {"seedset": "99.0"})


def test_a_sentence_that_is_gone_costs_none_of_the_others(tmp_path: Path, read: list[int]) -> None:
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences(6)), "ultrawiki")
    filled(tmp_path / "w")
    read.clear()
    fewer = sentences(6)
    del fewer["tin"][2]
    fewer["lead"].append("Lead is new.")
    run_import(tmp_path / "w", ultrawiki(tmp_path / "less", fewer), "ultrawiki", overwrite=True)
    filled(tmp_path / "w", 7)
    assert sum(read) == 1


def test_the_disk_that_it_takes_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, int] = {}
    monkeypatch.setattr(executor, "check_disk", lambda folder, size: told.update({folder.path: size}))
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences(9)), "ultrawiki")
    filled(tmp_path / "w")
    (states,) = (folder for folder in told if "/cache/" in folder)
    taken = sum(file.stat().st_size for file in Path(states).glob("*.npy"))
    assert 0.9 * taken < told[states] <= taken, "all but the file's own header"
    filled(tmp_path / "w")
    assert told[states] == 0, "what is there takes nothing more"


def test_tokens_of_all_parts_are_mapped_from_a_file_that_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences(3)), "ultrawiki")
    cache = filled(tmp_path / "w")
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("engine.storage.mapped.SMALL", 0)
    once = cache.inputs.manifest
    again = {f"again-{name}": rows for name, rows in once.parts.items()}
    twice = once.model_copy(update={"tokens": 2 * once.tokens, "parts": once.parts | again})
    inputs = replace(cache.inputs, manifest=twice, parts=2 * cache.inputs.parts)
    rows, states = (
        InputRows.read(cache.inputs.parts[0].path),
        replace(cache, inputs=inputs, states=2 * cache.states),
    )
    tokens, data = mapped_tokens(inputs), states.open()
    assert not any((tmp_path / "cache").iterdir())
    for row in range(2 * len(rows)):
        (part,) = data.parts_of(np.array([row])).tolist()
        assert part == row // len(rows)
        assert tokens[part][data.tokens_at(row)].tobytes() == rows.tokens_of(row % len(rows))
