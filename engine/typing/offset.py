"""Begin an untrained typing model at the labels' mean frequency.

A label holds for one mention in two thousand (UFET), and the sum of the losses of all labels that do not hold
is at first all there is to learn. Scores are products with the state at the mask, so a vector that all labels
share sets the mean score: it is along the mean of these states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from engine.models.mask_states import mask_states
from engine.models.text import TextEncoder
from engine.typing.mentions import TypedMention
from engine.typing.model import TypingModel

SAMPLE = 256
"""Mentions whose states are averaged."""


def fit_offset(model: TypingModel, mentions: Sequence[TypedMention]) -> None:
    """Set the labels' common vector so that the mean score is the logit of a label's mean frequency.

    Args:
        model: as :meth:`TypingModel.begin` made it; changed in place.
        mentions: the first ones are looked at.
    """
    some = mentions[:SAMPLE]
    network, n_labels = model.network, len(model.labels)
    asked = [model.inputs.assemble(one) for one in model.inputs.tokens([one.mention for one in some])]
    encoder = TextEncoder(network.mlm.base_model)
    states_nD = mask_states(
        encoder, [one.ids for one in asked], [one.mask_index for one in asked], compute=torch.float32
    )
    held = sum(len(one.labels) + len(one.added) for one in some)
    share = min(max(held / (len(some) * n_labels), 1e-6), 0.5)
    with torch.no_grad():
        states_BD = network.transformed(torch.from_numpy(states_nD).to(network.tokens_VD.device))
        mean_D = states_BD.mean(0)
        score = float((mean_D @ network.label_vectors().T).mean())
        wanted = math.log(share / (1 - share))
        network.pooling.norm.bias.add_((wanted - score) * mean_D / (mean_D @ mean_D))
    network.requires_grad_(True)
