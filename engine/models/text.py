"""Split a text encoder in two: frozen lower layers, and the last layer at one position.

Only the last layer and the heads learn (RetExpan, appendix B), and only the state at ``[MASK]`` of
that layer is used (equation 2). So the lower layers run once per sentence, and of the last layer only
one query is computed where the family's attention is known (:mod:`engine.models.attention`), else the
layer runs whole. The families are listed in :mod:`engine.models.families`.

Shape letters: B sentences, L tokens, D dimensions, F inner dimensions of the layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel

from engine.errors import UserError
from engine.models.attention import AttentionAtPosition, dropped_attention
from engine.models.families import LayerParts, bert_parts, family_of
from engine.models.fingerprint import config_text
from engine.models.hub import NamedModel
from engine.models.split import all_layers, lower_part, upper_part

Tensor = torch.Tensor

BARE_TOKENS = 3
"""Tokens of an input without text: begin, mask, end."""


class MaskPositionLayer(nn.Module):
    """The last encoder layer, read at one position a sentence; here it runs whole.

    Holds the layer's own modules, so that training it trains the model's last layer, and a normalisation
    that follows it, if the family has one. Dropout is left out unless it is asked for, where it can be
    (:attr:`can_drop`): cached states have none below this layer either. The authors of RetExpan train with
    BERT's, in every layer.

    Args:
        layer: the last one.
        final_norm: what follows it, or None.
        upper: both as a model of one layer (:func:`engine.models.split.upper_part`).
        dim: dimensions of a state, D.
    """

    def __init__(
        self, layer: nn.Module, final_norm: nn.Module | None, upper: PreTrainedModel, dim: int
    ) -> None:
        super().__init__()
        self.layer: Any = layer
        if final_norm is not None:
            self.final_norm = final_norm
        # No module of this one: what it holds besides does not learn, and belongs in no checkpoint.
        self._upper = (upper,)
        self.dim = dim

    can_drop = False
    """True if the layer can be computed with dropout."""

    def forward(
        self, states_BLD: Tensor, lengths_B: Tensor, position_B: Tensor, dropout: float = 0.0
    ) -> Tensor:
        """Return the layer's output at ``position_B``, [B, D].

        Args:
            states_BLD: input of the layer; what lies beyond a sentence's length is ignored.
            lengths_B: tokens a sentence.
            position_B: the position that is wanted, usually of the mask token.
            dropout: share of attention weights and outputs that is dropped; 0 unless :attr:`can_drop`.
        """
        assert not dropout
        found_BLD = self.every_position(states_BLD, lengths_B)
        return found_BLD[torch.arange(len(found_BLD), device=found_BLD.device), position_B]

    def every_position(self, states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the layer's output for every token, [B, L, D]."""
        within_BL = ~padding_mask(lengths_B, states_BLD.shape[1])
        (upper,) = self._upper
        return upper(inputs_embeds=states_BLD, attention_mask=within_BL.long()).last_hidden_state

    def train(self, mode: bool = True) -> MaskPositionLayer:
        """Leave dropout off in either mode."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> MaskPositionLayer:
        """Move what the layer needs besides its own weights along with them."""
        self._upper[0]._apply(fn)
        return super()._apply(fn, recurse)


class OnePositionLayer(MaskPositionLayer):
    """The same for a layer whose parts are known: one query is computed, not all."""

    can_drop = True

    def __init__(self, parts: Callable[[Any], LayerParts], layer: nn.Module, *rest: Any) -> None:
        super().__init__(layer, *rest)
        self._parts = parts

    def forward(
        self, states_BLD: Tensor, lengths_B: Tensor, position_B: Tensor, dropout: float = 0.0
    ) -> Tensor:
        """Return the layer's output at ``position_B``, [B, D]."""
        absent_BL = padding_mask(lengths_B, states_BLD.shape[1])
        return parts_at(self._parts(self.layer), states_BLD, absent_BL, position_B, dropout)

    def every_position(self, states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the layer's output for every token, [B, L, D]."""
        return run_layer(self.layer, states_BLD, padding_mask(lengths_B, states_BLD.shape[1]))


def padding_mask(lengths_B: Tensor, L: int) -> Tensor:
    """Return which of L places lie beyond each sentence, bool [B, L]."""
    return torch.arange(L, device=lengths_B.device)[None] >= lengths_B[:, None]


def run_layer(layer: Any, states_BLD: Tensor, absent_BL: Tensor) -> Tensor:
    """Run a BERT-like layer for every token, [B, L, D]; nobody attends to what is ``absent_BL``."""
    least = torch.finfo(states_BLD.dtype).min
    bias_BL = torch.zeros_like(absent_BL, dtype=states_BLD.dtype).masked_fill(absent_BL, least)
    states: Tensor = layer(states_BLD, bias_BL[:, None, None])
    return states


def layer_at_position(layer: Any, states_BLD: Tensor, absent_BL: Tensor, position_B: Tensor) -> Tensor:
    """Return a layer of BERT's output at ``position_B``, [B, D]; nobody attends to what is ``absent_BL``.

    As :func:`run_layer` at that place, but for dropout, which is left out.
    """
    return parts_at(bert_parts(layer), states_BLD, absent_BL, position_B)


def parts_at(
    parts: LayerParts, states_BLD: Tensor, absent_BL: Tensor, position_B: Tensor, dropout: float = 0.0
) -> Tensor:
    """Return the output at ``position_B``, [B, D], of a layer that was taken apart.

    Args:
        parts: of the layer.
        states_BLD: its input.
        absent_BL: bool, the places that nobody attends to.
        position_B: the position that is wanted.
        dropout: share dropped where BERT drops: of the attention weights, and of both outputs before they
            are added to what came in.
    """
    at_BD = states_BLD[torch.arange(len(states_BLD), device=states_BLD.device), position_B]
    head_size = parts.query.out_features // parts.n_heads
    q_BD = parts.query(at_BD) * head_size**-0.5
    given = states_BLD, absent_BL, parts.n_heads
    if dropout:
        context_BD = dropped_attention(q_BD, parts.key, parts.value, *given, dropout)
        mixed_BD = parts.attention_norm(F.dropout(parts.mixing(context_BD), dropout) + at_BD)
        return parts.outer_norm(F.dropout(parts.outer(parts.inner(mixed_BD)), dropout) + mixed_BD)
    context_BD = AttentionAtPosition.apply(q_BD, parts.key.weight, parts.value.weight, *given)
    mixed_BD = parts.attention_norm(parts.mixing(context_BD + parts.value.bias) + at_BD)
    return parts.outer_norm(parts.outer(parts.inner(mixed_BD)) + mixed_BD)


class TextEncoder:
    """A loaded encoder: ``lower`` (frozen) and ``last`` (what learns)."""

    def __init__(self, model: PreTrainedModel) -> None:
        family = family_of(model.config.model_type, "encoder")
        if model.config.num_hidden_layers < 2:
            raise UserError("the encoder has one layer only; nothing would be frozen")
        self.model = model.eval().requires_grad_(False)
        layers = all_layers(model, family)
        norm = model.get_submodule(family.final_norm) if family.final_norm else None
        upper = layers[-1], norm, upper_part(model, family), self.dim
        self.last = OnePositionLayer(family.parts, *upper) if family.parts else MaskPositionLayer(*upper)
        self._lower = lower_part(model, family)
        learns = [f"{family.layers}.{len(layers) - 1}", family.final_norm]
        self._learns = tuple(f"{path}." for path in learns if path)

    @classmethod
    def load(cls, name: str) -> TextEncoder:
        """Load from a folder, local or in a bucket, a hub name, or "embedded" (:class:`NamedModel`).

        Raises:
            UserError: there is no such model, or its family is not known.
        """
        named = NamedModel.open(name, "encoder")
        family = family_of(named.config().model_type, named.label)
        bare: dict[str, Any] = {"add_pooling_layer": False} if family.add_pooling_layer else {}
        return cls(named.model(AutoModel, torch.float32, **bare))

    @property
    def dim(self) -> int:
        """Dimensions of a state, D."""
        return int(self.model.config.hidden_size)

    def lower_states(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Run all layers but the last, [B, L, D]. Frozen: no gradients."""
        return _run(self._lower, ids_BL, lengths_B)

    def states(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Run every layer, [B, L, D]: the plain forward pass, as the library computes it."""
        return _run(self.model, ids_BL, lengths_B)

    def lower_fingerprint(self) -> str:
        """Return a digest of the frozen weights and of the configuration, which says how they are used: what
        cached states depend on besides their input."""
        digest = hashlib.sha256(config_text(self.model.config).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            if not name.startswith(self._learns):
                digest.update(name.encode())
                digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> TextEncoder:
        """Move all weights to a device."""
        self.model.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write the whole model as a Hugging Face folder (safetensors)."""
        self.model.save_pretrained(folder, safe_serialization=True)


def _run(model: PreTrainedModel, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
    mask_BL = ~padding_mask(lengths_B, ids_BL.shape[1])
    return model(input_ids=ids_BL, attention_mask=mask_BL.long()).last_hidden_state


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    cpu = torch.backends.cpu.get_cpu_capability()
    has_bf16 = cpu.startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
