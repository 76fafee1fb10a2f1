"""Split a model in two: all layers but the last, and the last alone on what they returned.

Both parts are the model's own class, so that everything around a layer (attention masks, relative
position biases, rotary embeddings) is made by the model's own code from the sentences' lengths. So of a
sentence only the input of the last layer must be kept: D numbers a token, whatever the family. The parts
share every module with the model; nothing is copied, and training the last layer trains the model's.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from engine.models.families import Family

Tensor = torch.Tensor


class GivenStates(nn.Module):
    """A module in place of a model's embeddings: it returns the states that the model was called with."""

    def forward(self, *positional: Any, inputs_embeds: Tensor | None = None, **others: Any) -> Tensor:
        """Return the states, which a model passes on by name or as the second argument."""
        return cast(Tensor, positional[1] if inputs_embeds is None else inputs_embeds)


def all_layers(model: PreTrainedModel, family: Family) -> nn.ModuleList:
    """Return the model's layers."""
    return cast(nn.ModuleList, model.get_submodule(family.layers))


def lower_part(model: PreTrainedModel, family: Family) -> PreTrainedModel:
    """Return the model without its last layer and what follows that."""
    others: dict[str, nn.Module | None] = {family.layers: all_layers(model, family)[:-1]}
    if family.final_norm:
        others[family.final_norm] = nn.Identity()
    return with_modules(model, others)


def upper_part(model: PreTrainedModel, family: Family) -> PreTrainedModel:
    """Return the last layer and what follows it, as a model of one layer that takes ``inputs_embeds``."""
    others: dict[str, nn.Module | None] = {family.layers: all_layers(model, family)[-1:]}
    if family.embeddings:
        others[family.embeddings] = GivenStates()
    if family.after_first:
        others[family.after_first] = None
    return with_modules(model, others)


def with_modules(model: PreTrainedModel, others: dict[str, nn.Module | None]) -> PreTrainedModel:
    """Return a model that has other modules at some paths, and shares all the rest with the one given."""
    made = _own_modules(model)
    for path, module in others.items():
        *above, name = path.split(".")
        parent: nn.Module = made
        for step in above:
            child = _own_modules(parent._modules[step])
            parent._modules[step] = child
            parent = child
        parent._modules[name] = module
    return cast(PreTrainedModel, made)


def _own_modules(module: Any) -> nn.Module:
    """Return a shallow copy of a module whose children can be exchanged."""
    made: nn.Module = copy.copy(module)
    made._modules = dict(module._modules)
    return made
