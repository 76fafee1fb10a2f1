from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from engine.errors import FormatError
from engine.training import lm
from engine.training.layout import Layout
from engine.training.lm import LOSS_ROWS, LmTraining, heldout_sample, summed_loss
from engine.training.optimizer import parameter_groups
from engine.training.order import epoch_batches
from engine.training.partitioned import full_weights
from engine.training.schedule import warmup_cosine
from engine.training.settings import LmSettings, named_settings
from tests.support.language_models import Family, tiny_model
from tests.support.token_blocks import VOCABULARY, random_blocks

SETTINGS = LmSettings(epochs=2, batch_size=8, learning_rate=3e-3, weight_decay=0.1, precision="float32")
DATA, HELD = random_blocks(), random_blocks(4, seed=1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More than one only get in each other's way at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(model: Any, layout: Layout | None = None, **settings: Any) -> LmTraining:
    run = LmTraining(model, DATA, HELD, SETTINGS.model_copy(update=settings), layout or Layout())
    for _ in run.run():
        pass
    return run


def fresh(family: Family = "llama") -> Any:
    return tiny_model(family, VOCABULARY).model.requires_grad_(True)


def perplexity(model: Any, rows: Any = slice(None)) -> float:
    ids, targets = HELD.gather(np.arange(len(HELD))[rows])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits
    return math.exp(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


def plain_run(model: Any) -> tuple[list[float], list[float]]:
    """Losses and perplexities of the same run as a plain loop: whole batches, torch alone, no dropout."""
    model.eval()
    optimizer = torch.optim.AdamW(parameter_groups(model, SETTINGS.weight_decay), betas=(0.9, 0.999))
    losses: list[float] = []
    perplexities = [perplexity(model)]
    for epoch in range(SETTINGS.epochs):
        for batch in epoch_batches(np.zeros(len(DATA), int), SETTINGS.batch_size, SETTINGS.seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(len(losses), 6, SETTINGS.learning_rate, SETTINGS.warmup)
            ids, targets = DATA.gather(batch)
            loss = F.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
        perplexities.append(perplexity(model))
    return losses, perplexities


@pytest.fixture(scope="module")
def plain() -> tuple[list[float], list[float]]:
    return plain_run(fresh())


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(micro_batch=3),
        Layout(zero_stage=2, micro_batch=3, offload="cpu"),
        Layout(zero_stage=3, activation_checkpointing=True),
        Layout(zero_stage=3, micro_batch=3, offload="cpu"),
    ],
    ids=repr,
)
def test_losses_are_those_of_a_plain_loop_however_the_run_is_laid_out(layout: Layout, plain: Any) -> None:
    run = trained(fresh(), layout)
    np.testing.assert_allclose(run.losses, plain[0], rtol=1e-5)
    np.testing.assert_allclose(run.perplexities, plain[1], rtol=1e-4)
    assert run.losses[-1] < run.losses[0] - 0.1


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_other_families_train_as_in_a_plain_loop(family: Family) -> None:
    """GPT-2's has dropout, tied embeddings and learnt positions; BLOOM's positions are biases."""
    losses, perplexities = plain_run(fresh(family))
    run = trained(fresh(family))
    np.testing.assert_allclose(run.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(run.perplexities, perplexities, rtol=1e-4)


def test_perplexity_of_a_model_as_it_is_needs_no_engine_and_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lm, "HELDOUT_LOGITS", 1)  # a block at a time
    run = trained(fresh(), epochs=0)
    assert run.perplexities == pytest.approx([perplexity(fresh())], rel=1e-6)
    assert run.engine is run.module
    weights = dict(full_weights(run.model))
    assert all(torch.equal(weights[name], p) for name, p in fresh().named_parameters())


@pytest.mark.parametrize("layout", [Layout(), Layout(zero_stage=3)], ids=repr)
def test_perplexity_is_that_of_the_drawn_blocks(layout: Layout) -> None:
    settings = SETTINGS.model_copy(update={"held_out_blocks": 2})
    drawn = heldout_sample(len(HELD), settings)
    assert len(set(drawn)) == 2
    run = trained(fresh(), layout, epochs=0, held_out_blocks=2)
    assert run.perplexities == pytest.approx([perplexity(fresh(), drawn)], rel=1e-6)
    others = {tuple(heldout_sample(50, settings.model_copy(update={"seed": seed}))) for seed in range(5)}
    assert len(others) == 5
    assert named_settings(settings) != named_settings(SETTINGS)


def test_narrow_products_change_the_losses_by_rounding_only(plain: Any) -> None:
    run = trained(fresh(), precision="bfloat16", micro_batch=3)
    np.testing.assert_allclose(run.losses, plain[0], rtol=1e-2)
    assert run.losses != plain[0]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (2, 1), (3, 3), (3, 2)])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    before: int, after: int, plain: Any, tmp_path: Path
) -> None:
    """Also at another ZeRO stage; every block is seen once an epoch over both runs."""
    first = LmTraining(fresh(), DATA, HELD, SETTINGS, Layout.model_validate({"zero_stage": before}))
    seen: list[tuple[int, np.ndarray]] = []
    for step in first.run():
        seen.append((step.epoch, step.rows))
        if step.step == 4:
            first.save(tmp_path)
            break
    layout = Layout.model_validate({"zero_stage": after, "micro_batch": 5})
    second = LmTraining(fresh("llama"), DATA, HELD, SETTINGS, layout, checkpoint=tmp_path)
    assert second.step == 4
    seen += [(step.epoch, step.rows) for step in second.run()]
    np.testing.assert_allclose(second.losses, plain[0], rtol=1e-5)
    np.testing.assert_allclose(second.perplexities, plain[1], rtol=1e-4)
    for epoch in range(SETTINGS.epochs):
        assert sorted(np.concatenate([b for e, b in seen if e == epoch])) == list(range(len(DATA)))


def test_a_checkpoint_says_nothing_of_shards_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.partitioned.SHARD_BYTES", 40_000)
    run = LmTraining(fresh(), DATA, HELD, SETTINGS, Layout())
    next(iter(run.run()))
    run.save(tmp_path)
    shards = sorted(tmp_path.glob("shard-*.safetensors"))
    largest = max(p.numel() for p in run.model.parameters()) * 4
    assert len(shards) > 3
    assert max(shard.stat().st_size for shard in shards) < 40_000 + largest
    again = LmTraining(fresh("llama"), DATA, HELD, SETTINGS, Layout(), checkpoint=tmp_path)
    assert again.evaluate() == pytest.approx(run.evaluate(), rel=1e-6)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    run = LmTraining(fresh(), DATA, HELD, SETTINGS, Layout())
    next(iter(run.run()))
    run.save(tmp_path)
    other = SETTINGS.model_copy(update={"epochs": 3})
    with pytest.raises(FormatError, match=r"epochs.*--restart"):
        LmTraining(fresh(), DATA, HELD, other, Layout(), checkpoint=tmp_path)


def test_no_epoch_leaves_the_model_as_it_is() -> None:
    model = fresh()
    before = perplexity(model)
    run = trained(model, epochs=0)
    assert run.losses == []
    assert run.perplexities == [pytest.approx(before, rel=1e-5)]


@given(n=st.integers(0, 2 * LOSS_ROWS), wide=st.booleans(), seed=st.integers(0, 99))
def test_the_loss_and_its_gradient_are_those_of_cross_entropy(n: int, wide: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if wide else torch.bfloat16
    logits = (5 * torch.randn(n, 11, generator=random)).to(dtype).requires_grad_(True)
    targets = torch.randint(-3, 11, (n,), generator=random)
    targets[targets < 0] = -100
    plain = F.cross_entropy(logits.float(), targets, reduction="sum")
    (expected,) = torch.autograd.grad(plain / 3, logits)
    ours = summed_loss(logits, targets)
    (gradient,) = torch.autograd.grad(ours / 3, logits)
    assert float(ours.detach()) == pytest.approx(float(plain.detach()), rel=1e-5, abs=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-5 if wide else 1e-2, atol=1e-6 if wide else 1e-3)


def test_norms_and_biases_do_not_decay() -> None:
    model = fresh("gpt2")
    decayed, plain = parameter_groups(model, 0.01)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("ln_" in names[id(p)] or "bias" in names[id(p)] for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
