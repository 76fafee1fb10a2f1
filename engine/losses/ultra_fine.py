"""Compute the loss of ultra-fine contrastive learning: InfoNCE over mined lists (RetExpan, equations 6, 7).

A batch holds samples of several lists. A sample is a sentence under a list: of an entity of L_pos, of L_neg,
or of none of the fine-grained class (outside L_0). Of an anchor x of list l

- positives are the samples of its own entity, under whatever list, and those of list l and its own side
  (equation 6);
- hard negatives are the samples of list l on the other side (equation 7, first set). An entity that is on
  both sides is no negative of itself;
- normal negatives are the samples of entities that list l did not recall (equation 7, second set). Those that
  were drawn for other lists count too, as equation 7 asks of z no more than that it is outside L_0.

Samples outside are anchors of nothing: equation 7 gives them no negatives, and InfoNCE without is 0.

The paper calls the loss "the classical InfoNCE" and prints no formula. Here a positive pair has one term::

    -log( exp(s(x, x') / t) / (exp(s(x, x') / t) + sum over negatives y of x of exp(s(x, y) / t)) )

Other positives of x are not in the denominator. The terms of an anchor are averaged, then the anchors that
have a positive and a negative: so each weighs the same, however many positives it has.

Shape letters: S samples, E dimensions of the projection, Q lists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from engine.losses.settings import UltraFineSettings

Tensor = torch.Tensor

OUTSIDE, POSITIVE, NEGATIVE = 0, 1, 2
"""Sides of a list: in neither of both, in L_pos, in L_neg."""


class Samples(NamedTuple):
    """The labels of a batch.

    Attributes:
        list_S: number of the list that a sample was drawn for, from 0 in a batch.
        side_S: its side there.
        entity_S: its entity.
        recalled_QS: bool, whether a list recalled a sample's entity (L_0, L_pos and L_neg together).
    """

    list_S: Tensor
    side_S: Tensor
    entity_S: Tensor
    recalled_QS: Tensor

    def to(self, device: torch.device) -> Samples:
        """Return the labels on a device."""
        return Samples(*(t.to(device) for t in self))


class Pairs(NamedTuple):
    """Which samples are positives and which are negatives of each anchor, bool [S, S]."""

    positive_SS: Tensor
    negative_SS: Tensor


def pairs_of(samples: Samples, settings: UltraFineSettings) -> Pairs:
    """Return the pairs of equations 6 and 7 in a batch, less the parts that are switched off (table 7)."""
    list_S, side_S, entity_S, recalled_QS = samples
    inside_S = side_S != OUTSIDE
    anchor_SS = inside_S[:, None].expand(-1, len(side_S))
    own_SS = torch.eye(len(side_S), dtype=torch.bool, device=side_S.device)
    same_entity_SS = entity_S[:, None] == entity_S
    same_list_SS = (list_S[:, None] == list_S) & inside_S
    same_side_SS = same_list_SS & (side_S[:, None] == side_S)
    positive_SS = same_entity_SS | same_side_SS if settings.list_positives else same_entity_SS
    negative_SS = torch.zeros_like(own_SS)
    if settings.hard_negatives:
        negative_SS = negative_SS | (same_list_SS & ~same_side_SS)
    if settings.normal_negatives:
        negative_SS = negative_SS | ~recalled_QS[list_S]
    return Pairs(positive_SS & anchor_SS & ~own_SS, negative_SS & anchor_SS & ~same_entity_SS)


def ultra_fine_loss(vectors_SE: Tensor, samples: Samples, settings: UltraFineSettings) -> Tensor:
    """Return the loss of a batch, a scalar; 0 where no sample has both a positive and a negative.

    Args:
        vectors_SE: unit vectors of the projection.
        samples: their labels.
        settings: temperature, and which pairs there are.
    """
    positive_SS, negative_SS = pairs_of(samples, settings)
    similar_SS = vectors_SE @ vectors_SE.T / settings.infonce_temperature
    least = torch.finfo(similar_SS.dtype).min
    negative_S = similar_SS.masked_fill(~negative_SS, least).logsumexp(dim=1)
    terms_SS = torch.nn.functional.softplus(negative_S[:, None] - similar_SS)
    counts_S = positive_SS.sum(dim=1)
    loss_S = terms_SS.masked_fill(~positive_SS, 0).sum(dim=1) / counts_S.clamp_min(1)
    anchor_S = (counts_S > 0) & negative_SS.any(dim=1)
    return loss_S.masked_fill(~anchor_S, 0).sum() / anchor_S.sum().clamp_min(1)
