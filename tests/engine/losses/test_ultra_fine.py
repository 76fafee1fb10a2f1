"""The contrast of mined lists against equations 6 and 7, written out as loops."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

from engine.losses.contrastive import Projection
from engine.losses.gather import gathered
from engine.losses.settings import UltraFineSettings
from engine.losses.ultra_fine import NEGATIVE, OUTSIDE, POSITIVE, Samples, ultra_fine_loss

EVERY = UltraFineSettings(normal_negatives=True)


def test_a_case_computed_by_hand() -> None:
    """One list: x and x' of L_pos, y of L_neg, z outside; no other pair of y, so that it is no anchor."""
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    sides = torch.tensor([POSITIVE, POSITIVE, NEGATIVE, OUTSIDE])
    recalled = torch.tensor([[True, True, True, False]])
    samples = Samples(torch.zeros(4, dtype=torch.long), sides, torch.arange(4), recalled)
    first = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(0.0) + math.exp(-2.0)))
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(1.2) + math.exp(-1.6)))
    assert float(ultra_fine_loss(vectors, samples, EVERY)) == pytest.approx((first + second) / 2, rel=1e-6)
    hard = EVERY.model_copy(update={"normal_negatives": False})
    first = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(0.0)))
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(1.2)))
    assert float(ultra_fine_loss(vectors, samples, hard)) == pytest.approx((first + second) / 2, rel=1e-6)
    alone = EVERY.model_copy(update={"list_positives": False})
    assert float(ultra_fine_loss(vectors, samples, alone)) == 0


def drawn(seed: int, n: int = 24) -> tuple[torch.Tensor, Samples, list[set[int]]]:
    """Return samples of 3 lists over 10 entities; some entities are on both sides, and on several lists."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator)

    vectors = F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1)
    lists, sides, entities = draw(3, n), draw(3, n), draw(10, n)
    recalled = [set(draw(10, 4).tolist()) for _ in range(3)]
    for which, side, entity in zip(lists.tolist(), sides.tolist(), entities.tolist(), strict=True):
        if side != OUTSIDE:
            recalled[which].add(entity)
    seen = torch.tensor([[e in recalled[q] for e in entities.tolist()] for q in range(3)])
    return vectors, Samples(lists, sides, entities, seen), recalled


def by_loops(
    vectors: torch.Tensor, samples: Samples, recalled: list[set[int]], s: UltraFineSettings
) -> float:
    lists, sides, entities = (t.tolist() for t in samples[:3])
    anchors = []
    for x, which in enumerate(lists):
        if sides[x] == OUTSIDE:
            continue
        positives, negatives = [], []
        for y in range(len(lists)):
            if entities[y] == entities[x]:
                if y != x:
                    positives.append(y)
                continue
            together = lists[y] == which and sides[y] == sides[x]
            across = lists[y] == which and {sides[x], sides[y]} == {POSITIVE, NEGATIVE}
            if together and s.list_positives:
                positives.append(y)
            if (across and s.hard_negatives) or (entities[y] not in recalled[which] and s.normal_negatives):
                negatives.append(y)
        if positives and negatives:
            like = [math.exp(float(vectors[x] @ v) / s.infonce_temperature) for v in vectors]
            below = sum(like[y] for y in negatives)
            terms = [-math.log(like[y] / (like[y] + below)) for y in positives]
            anchors.append(sum(terms) / len(terms))
    return sum(anchors) / len(anchors) if anchors else 0.0


@pytest.mark.parametrize(
    ("hard", "normal", "together"), [c for c in product((True, False), repeat=3) if c[0] or c[1]]
)
def test_any_batch_has_the_loss_of_the_equations(hard: bool, normal: bool, together: bool) -> None:
    for seed in range(10):
        vectors, samples, recalled = drawn(seed)
        chosen = UltraFineSettings(
            hard_negatives=hard, normal_negatives=normal, list_positives=together, infonce_temperature=0.3
        )
        expected = by_loops(vectors, samples, recalled, chosen)
        assert expected > 0.1
        assert float(ultra_fine_loss(vectors, samples, chosen)) == pytest.approx(expected, rel=1e-9)


def test_a_contrast_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="needs negatives"):
        UltraFineSettings(hard_negatives=False, normal_negatives=False)


@pytest.mark.parametrize(
    "owners", [[0, 1] * 11 + [0], [1] * 5 + [0] * 3 + [1] * 15, [0] * 23], ids=["in turn", "by part", "one"]
)
def test_two_workers_have_the_loss_and_the_gradients_of_one(
    owners: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker computes the loss of all, and the mean of both gradients is that of the joined batch."""
    _, samples, _ = drawn(1, 23)
    torch.manual_seed(0)
    states, projection = torch.randn(23, 6), Projection(6)
    whole = states.clone().requires_grad_()
    loss = ultra_fine_loss(projection(whole), samples, EVERY)
    (expected,) = torch.autograd.grad(loss, whole)
    owner = torch.tensor(owners)
    found = torch.zeros_like(states)
    for rank in range(2):

        def all_gather(parts: list[torch.Tensor], padded: torch.Tensor) -> None:
            for worker, part in enumerate(parts):
                own = states[owner == worker]
                part[: len(own)] = own

        monkeypatch.setattr(distributed, "all_gather", all_gather)
        own = states[owner == rank].clone().requires_grad_()
        joined = gathered(own, owner, rank, 2)
        one = ultra_fine_loss(projection(joined), samples, EVERY)
        assert float(one.detach()) == pytest.approx(float(loss.detach()), rel=1e-6)
        (gradient,) = torch.autograd.grad(one, own)
        found[owner == rank] = gradient / 2
    torch.testing.assert_close(found, expected)
