"""The loss of a batch and of each pass against the authors' combination, written out plainly."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from engine.losses.combined import Objectives
from engine.losses.settings import Objective, Schedule
from engine.models.multimodal import EntityPredictionModel, MultimodalEncoder
from engine.models.settings import MultimodalConfig
from tests.support.encoders import random_encoder
from tests.support.plain_objectives import clustering, contrast, distilled

B, N, SMOOTHING = 8, 7, 0.075
CONTEXT = (
    torch.randn(B, 6, 48, generator=torch.Generator().manual_seed(1)),
    torch.tensor([6, 3, 5, 4, 6, 3, 6, 4]),
    torch.tensor([2, 1, 3, 1, 5, 1, 4, 2]),
    torch.randn(B, 3, 5, generator=torch.Generator().manual_seed(2)),
    torch.tensor([True, True, False, True, False, False, True, True]),
)
ENTITIES = torch.arange(B) % N
TOLD = 2 * torch.randn(B, N, generator=torch.Generator().manual_seed(3))
OWNER = torch.zeros(B, dtype=torch.long)


def objectives(**changes: object) -> Objectives:
    text = random_encoder("bert")
    config = MultimodalConfig(
        n_patches=3, vision_dim=5, visual_layers=1, cross_layers=1, dropout=0, identity=False
    )
    predictor = EntityPredictionModel(MultimodalEncoder(text.last, config), N)
    return Objectives(predictor, Schedule.model_validate({"clusters": 3, **changes})).train()


def parts(module: Objectives) -> dict[str, torch.Tensor]:
    """What each objective's loss is, without weights."""
    states, logits = module.predictor(CONTEXT)
    return {
        "cross entropy": F.cross_entropy(logits, ENTITIES, label_smoothing=SMOOTHING),
        "divergence": distilled(TOLD, logits),
        "contrastive": contrast(F.normalize(nn.Sequential.forward(module.projection, states), dim=1))
        if module.projection
        else states.new_zeros(()),
        "clustering": clustering(module.assignment(states)) if module.assignment else states.new_zeros(()),
    }


def test_all_together_weigh_what_the_authors_give_each() -> None:
    module = objectives()
    plain = parts(module)
    prediction = 0.98 * plain["cross entropy"] + 0.02 * plain["divergence"]
    expected = 1.0 * prediction + 0.5 * plain["contrastive"] + 0.2 * plain["clustering"]
    torch.testing.assert_close(module(CONTEXT, ENTITIES, TOLD, OWNER), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("on", "weight", "other"),
    [({"clustering": False}, 0.5, 0.5), ({"contrastive": False}, 0.8, 0.2)],
    ids=["contrast alone", "clustering alone"],
)
def test_beside_one_objective_of_pairs_prediction_weighs_less(
    on: dict[str, bool], weight: float, other: float
) -> None:
    module = objectives(distillation=False, **on)
    plain = parts(module)
    expected = weight * plain["cross entropy"] + other * (plain["contrastive"] + plain["clustering"])
    torch.testing.assert_close(module(CONTEXT, ENTITIES, None, OWNER), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("only", ["contrastive", "clustering", "prediction"])
def test_a_pass_is_of_one_objective_at_its_weight_and_leaves_other_heads_alone(only: Objective) -> None:
    module = objectives(passes="separate")
    plain = parts(module)
    expected = {
        "contrastive": 0.5 * plain["contrastive"],
        "clustering": 0.2 * plain["clustering"],
        "prediction": 0.98 * plain["cross entropy"] + 0.02 * plain["divergence"],
    }[only]
    loss = module(CONTEXT, ENTITIES, TOLD if only == "prediction" else None, OWNER, only)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    without = {name for name, p in module.named_parameters() if p.requires_grad and p.grad is None}
    unused = {id(p) for p in module.unused(only)}
    assert without
    assert without >= {name for name, p in module.named_parameters() if id(p) in unused}
    heads = ("predictor.head.", "projection.", "assignment.")
    assert {name for name in without if name.startswith(heads)} == {
        name for name, p in module.named_parameters() if id(p) in unused
    }


def test_without_prediction_the_sum_keeps_distillation() -> None:
    module = objectives(prediction=False)
    plain = parts(module)
    expected = 0.02 * plain["divergence"] + 0.5 * plain["contrastive"] + 0.2 * plain["clustering"]
    torch.testing.assert_close(module(CONTEXT, ENTITIES, TOLD, OWNER), expected, rtol=1e-4, atol=1e-5)


def test_a_worker_without_rows_of_a_batch_compares_those_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = objectives()
    module.rank, module.world = 1, 2
    states, _ = module.predictor(CONTEXT)

    def all_gather(found: list[torch.Tensor], padded: torch.Tensor) -> None:
        assert not padded.any()
        found[0].copy_(states.detach())

    monkeypatch.setattr(distributed, "all_gather", all_gather)
    plain = parts(module)
    expected = 0.5 * plain["contrastive"] + 0.2 * plain["clustering"]
    loss = module(tuple(one[:0] for one in CONTEXT), ENTITIES[:0], None, OWNER)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert module.projection is not None
    assert all(p.grad is not None for p in module.projection.parameters())
