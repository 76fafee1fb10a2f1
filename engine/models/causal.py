"""Run a causal language model's last part alone: from its last hidden states to logits, by its own code.

What follows the hidden states differs by family: a scale (Granite, Cohere), a soft cap (Gemma), a product
before the output layer (MiniCPM3), layers of its own (ModernBERT's decoder). So nothing of it is written
anew here: the model's own class runs, with given hidden states in the place of its body, and with some rows
of its output layer where logits of some tokens are enough.

Shape letters: B rows, D dimensions, V tokens of the vocabulary, n tokens that are asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from engine.models.split import with_modules

Tensor = torch.Tensor


def body_of(model: Any) -> Any:
    """Return a causal language model without its output layer; the model itself if no such part is found."""
    # Some classes name a prefix that they do not have; their body is then called as in most others.
    return model.base_model if model.base_model is not model else getattr(model, "model", model)


class OutputPart:
    """The last part of a causal language model; shares all its weights.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._body = body_of(model)
        head: Any = model.get_output_embeddings()
        self._head = head
        paths = {id(module): path for path, module in model.named_modules()}
        self._body_path, self._head_path = paths[id(self._body)], paths.get(id(head), "")
        self.takes_rows = type(head) is nn.Linear and bool(self._head_path)
        """True if logits of some tokens are made of some rows of the output layer; else all are made."""

    def __call__(self, hidden_BD: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return the logits [B, V] after some hidden states, or [B, n] of the n tokens that are asked for.

        Args:
            hidden_BD: as the model's body returns them.
            tokens: int64 [n]; None: all.
        """
        others: dict[str, nn.Module | None] = {self._body_path: _GivenBody(self._body, hidden_BD[None])}
        if tokens is not None and self.takes_rows:
            others[self._head_path] = _Rows(self._head, tokens)
        logits_BV: Tensor = with_modules(self._model, others)(inputs_embeds=hidden_BD[None]).logits[0]
        return logits_BV if tokens is None or self.takes_rows else logits_BV[:, tokens]


class _GivenOutput:
    """What a body returns: hidden states, and nothing else, whatever a family's class asks for."""

    def __init__(self, states_1BD: Tensor) -> None:
        self.last_hidden_state = states_1BD

    def __getitem__(self, place: int | slice) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        """Return None for the caches, attentions and router logits of the families."""


class _GivenBody(nn.Module):
    """A module in place of a model's body, which returns given states, however it is called."""

    def __init__(self, body: nn.Module, states_1BD: Tensor) -> None:
        super().__init__()
        # A tuple, as what replaces a module must not hold it as a part of its own.
        self._replaced, self._states = (body,), states_1BD

    @property
    def decoder(self) -> _GivenBody:
        """The module itself: OPT's class calls the decoder of its body."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Return what the body has: some classes look up a number there."""
        return getattr(self.__dict__["_replaced"][0], name)

    def forward(self, *positional: Any, **others: Any) -> _GivenOutput:
        """Return the states."""
        return _GivenOutput(self._states)


class _Rows(nn.Module):
    """Some rows of an output layer."""

    def __init__(self, head: nn.Linear, tokens: Tensor) -> None:
        super().__init__()
        self._weight_nD = head.weight[tokens]
        self._bias_n = None if head.bias is None else head.bias[tokens]

    @property
    def weight(self) -> Tensor:
        """The rows, [n, D]: some classes look at their output layer's type."""
        return self._weight_nD

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits of these rows, [..., n]."""
        return functional.linear(states, self._weight_nD, self._bias_n)
