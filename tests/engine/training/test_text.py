from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from engine.errors import FormatError, StorageError
from engine.models.text import TextEncoder
from engine.storage.store import Store
from engine.training.cache import CachedStates, fill_part, masked_sums
from engine.training.checkpoint import TENSORS
from engine.training.input_rows import InputRows
from engine.training.optimizer import parameter_groups
from engine.training.order import epoch_batches
from engine.training.schedule import one_cycle
from engine.training.settings import EncoderSettings
from engine.training.text import EncoderTraining
from tests.support.sentences import cached, random_rows

N_ENTITIES = 40
SETTINGS = EncoderSettings(epochs=2, batch_size=32, learning_rate=1e-3, precision="float32")


@pytest.fixture(scope="module")
def rows() -> InputRows:
    return random_rows(150, N_ENTITIES)


def training(
    rows: InputRows,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    checkpoint: Path | None = None,
    **changes: object,
) -> EncoderTraining:
    encoder = TextEncoder.load("embedded")
    settings = SETTINGS.model_copy(update=changes)
    data = cached(encoder, rows, folder, dtype)
    return EncoderTraining(encoder, data, N_ENTITIES, settings, checkpoint=checkpoint)


def plain_losses(rows: InputRows, settings: EncoderSettings, like: EncoderTraining) -> list[float]:
    """The same run as a plain loop: the whole model forward on every batch, no cache, no DeepSpeed."""
    encoder = TextEncoder.load("embedded")
    head = torch.nn.Sequential(
        torch.nn.Linear(encoder.dim, encoder.dim),
        torch.nn.GELU(),
        torch.nn.Linear(encoder.dim, N_ENTITIES),
    )
    trained = like.module.head
    assert isinstance(trained, torch.nn.Sequential)
    head.load_state_dict(trained.state_dict())
    encoder.last.requires_grad_(True)
    module = torch.nn.ModuleDict({"last": encoder.last, "head": head})
    optimizer = torch.optim.AdamW(parameter_groups(module, settings.weight_decay))
    losses: list[float] = []
    for epoch in range(settings.epochs):
        for batch in epoch_batches(rows.lengths, settings.batch_size, settings.seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(len(losses), like.total_steps, settings.learning_rate)
            ids, lengths = rows.padded_ids(batch)
            at_mask = encoder.states(ids, lengths)[torch.arange(len(batch)), rows.mask_index[batch]]
            labels = torch.from_numpy(rows.entity_id[batch])
            loss = F.cross_entropy(head(at_mask), labels, label_smoothing=settings.smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def test_the_loss_is_that_of_the_plain_uncached_step(rows, tmp_path) -> None:
    ours = training(rows, tmp_path)
    plain = plain_losses(rows, SETTINGS, ours)
    for _ in ours.run():
        pass
    np.testing.assert_allclose(ours.losses, plain, rtol=2e-5)
    assert plain[-1] < plain[0] - 0.1


def test_contexts_without_words_are_neither_trained_on_nor_summed(rows, tmp_path) -> None:
    """Every third one is begin, mask, end: the rest trains and sums as if these were not there."""
    bare = np.arange(len(rows)) % 3 == 0
    lengths = np.where(bare, 3, rows.lengths)
    ends = zip(rows.offsets[:-1], lengths, rows.lengths, strict=True)
    kept = np.concatenate([start + np.r_[: n - 1, whole - 1] for start, n, whole in ends])
    offsets = np.cumsum([0, *lengths])
    mask = np.where(bare, 1, rows.mask_index)
    ids = rows.ids[kept]
    ids[offsets[:-1][bare] + 1] = 103
    mixed = InputRows(ids, offsets, mask, rows.entity_id)
    with_text = np.flatnonzero(~bare)
    ours = training(mixed, tmp_path)
    assert ours.contexts == len(with_text)
    assert np.array_equal(np.sort(np.concatenate(ours.batches(0))), with_text)
    assert isinstance(ours.data, CachedStates)
    found, sums = masked_sums(ours.encoder, ours.data)
    assert set(found) == set(rows.entity_id[with_text])
    one = rows.entity_id[with_text[0]]
    alone = np.flatnonzero(rows.entity_id[with_text] == one)
    states, lengths_B, mask_B, _ = ours.data.gather(with_text[alone])
    with torch.no_grad():
        expected = ours.encoder.last(states, lengths_B, mask_B).double().sum(dim=0).numpy()
    np.testing.assert_allclose(sums[list(found).index(one)], expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_states_change_the_loss_by_rounding_only(rows, tmp_path) -> None:
    curves = []
    for dtype in (torch.float32, torch.bfloat16):
        run = training(rows, tmp_path, dtype)
        curves.append([step.loss for step in run.run()])
    np.testing.assert_allclose(curves[0], curves[1], rtol=5e-3)


def test_narrow_products_change_the_loss_by_rounding_only(rows, tmp_path) -> None:
    curves = []
    for precision in ("float32", "bfloat16"):
        run = training(rows, tmp_path, torch.bfloat16, precision=precision)
        curves.append([step.loss for step in run.run()])
    np.testing.assert_allclose(curves[0], curves[1], rtol=2e-2)
    head = run.module.head
    assert isinstance(head, torch.nn.Sequential)
    assert head[0].weight.dtype == torch.float32


def test_the_first_loss_of_a_hand_computed_case() -> None:
    """Equation 4 with smoothing s over n entities: -(1-s) log p(y) - s/n * sum of log p."""
    from engine.losses.entity_prediction import smoothed_loss

    logits = torch.tensor([[2.0, 0.0, -1.0]])
    log_p = logits - torch.log(torch.exp(logits).sum())
    by_hand = -(0.9 * log_p[0, 1] + 0.1 / 3 * log_p.sum())
    assert float(smoothed_loss(logits, torch.tensor([1]), 0.1)) == pytest.approx(float(by_hand))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gathered_batch_has_the_stored_bits_and_zeros_beyond(rows, tmp_path, dtype) -> None:
    data = cached(TextEncoder.load("embedded"), rows, tmp_path, dtype)
    stored = torch.from_numpy(np.load(next(tmp_path.rglob("*.npy"))))
    stored = stored.view(torch.bfloat16) if dtype == torch.bfloat16 else stored
    chosen = np.array([7, 149, 0, 7])
    states, lengths, _, _ = data.gather(chosen, dtype)
    for row, found, length in zip(chosen, states, lengths, strict=True):
        assert torch.equal(found[:length], stored[rows.offsets[row] : rows.offsets[row + 1]])
        assert not found[length:].any()


def test_a_resumed_run_ends_on_the_same_losses(rows, tmp_path) -> None:
    whole = training(rows, tmp_path)
    for step in whole.run():
        if step.step == 3:
            whole.save(tmp_path / "checkpoint")
    resumed = training(rows, tmp_path, checkpoint=tmp_path / "checkpoint")
    steps = [step.step for step in resumed.run()]
    assert steps[0] == 4
    assert resumed.losses == whole.losses


def test_an_estimated_loss_of_all_entities_is_the_full_one_and_a_sample_is_resumed(rows, tmp_path) -> None:
    whole, every = training(rows, tmp_path), training(rows, tmp_path, entity_loss="sampled")
    for run in (whole, every):
        for _ in run.run():
            pass
    np.testing.assert_allclose(every.losses, whole.losses, rtol=2e-5)
    sample: dict[str, Any] = {"entity_loss": "sampled", "sampled_entities": 3}
    once = training(rows, tmp_path, **sample)
    for step in once.run():
        if step.step == 3:
            once.save(tmp_path / "checkpoint")
    resumed = training(rows, tmp_path, checkpoint=tmp_path / "checkpoint", **sample)
    assert [step.step for step in resumed.run()] == list(range(4, len(once.losses) + 1))
    assert resumed.losses == once.losses
    assert once.losses != whole.losses


def test_a_checkpoint_of_other_settings_is_refused(rows, tmp_path) -> None:
    run = training(rows, tmp_path)
    next(iter(run.run()))
    run.save(tmp_path / "checkpoint")
    with pytest.raises(FormatError, match=r"epochs.*--restart"):
        training(rows, tmp_path, checkpoint=tmp_path / "checkpoint", epochs=3)


def test_a_checkpoint_of_another_version_is_refused(rows, tmp_path) -> None:
    """Its optimiser's states had numbers for names, which say nothing once groups have another order."""
    run = training(rows, tmp_path)
    next(iter(run.run()))
    run.save(tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / TENSORS
    kept = {name: t for name, t in load_file(file).items() if not name.startswith("optimizer.")}
    save_file(kept | {"optimizer.0.step": torch.ones(())}, file)
    with pytest.raises(FormatError, match=r"of another version.*'0'.*--restart"):
        training(rows, tmp_path, checkpoint=tmp_path / "checkpoint")


def test_biases_and_norms_do_not_decay() -> None:
    encoder = TextEncoder.load("embedded")
    encoder.last.requires_grad_(True)
    decayed, plain = parameter_groups(encoder.last, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert plain["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(encoder.last.parameters()))


def test_sums_per_entity_are_those_of_single_sentences(rows, tmp_path) -> None:
    encoder = TextEncoder.load("embedded")
    data = cached(encoder, rows, tmp_path, torch.float32)
    ids, sums = masked_sums(encoder, data)
    assert list(ids) == sorted(set(rows.entity_id))
    entity = int(rows.entity_id[0])
    expected = np.zeros(encoder.dim)
    with torch.no_grad():
        for row in np.flatnonzero(rows.entity_id == entity):
            tokens, lengths = rows.padded_ids(np.array([row]))
            expected += encoder.states(tokens, lengths)[0, rows.mask_index[row]].double().numpy()
    np.testing.assert_allclose(sums[list(ids).index(entity)], expected, rtol=1e-3, atol=1e-4)


def test_states_that_are_known_are_copied_and_the_others_computed(rows, tmp_path) -> None:
    encoder, half = TextEncoder.load("embedded"), np.arange(0, len(rows), 2)
    whole = cached(encoder, rows, tmp_path, torch.bfloat16)
    states = np.load(tmp_path / "part-00000.npy")
    # Told from computed ones by their bits.
    known = {rows.tokens_of(r): states[rows.offsets[r] : rows.offsets[r + 1]] ^ 1 for r in half}
    target = tmp_path / "again.npy"
    fill_part(encoder, rows, target, torch.bfloat16, torch.device("cpu"), known)
    again = np.load(target)
    for row in range(len(rows)):
        own = slice(rows.offsets[row], rows.offsets[row + 1])
        if row % 2 == 0:
            assert np.array_equal(again[own], states[own] ^ 1)
        else:
            a, b = (torch.from_numpy(one[own]).view(torch.bfloat16).float() for one in (again, states))
            # Of another batch, and so padded to another length.
            torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)
    assert len(whole.lengths) == len(rows)


def test_states_that_do_not_fit_the_disk_are_an_error_before_the_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write into a map of space that is not there kills the process."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    encoder, rows = SimpleNamespace(dim=4), SimpleNamespace(offsets=np.array([0, 5]))
    with (
        pytest.raises(StorageError, match=r"/a\.npy: No space left on device; free space"),
        (Store.open(tmp_path) / "a.npy").writing() as path,
    ):
        fill_part(encoder, rows, path, torch.float32, torch.device("cpu"))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
