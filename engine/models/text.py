"""A BERT-like text encoder in two parts: frozen lower layers, and the last layer at one position.

Only the last layer and the heads learn (RetExpan, appendix B), and only the state at ``[MASK]`` of
that layer is used (equation 2). So the lower layers run once per sentence, and of the last layer only
one query is computed (:mod:`engine.models.attention`).

Shape letters: B sentences, L tokens, D dimensions, F inner dimensions of the layer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from engine.errors import UserError
from engine.models.attention import AttentionAtPosition
from engine.models.hub import NamedModel

Tensor = torch.Tensor

KNOWN_TYPES = ("bert", "roberta", "xlm-roberta", "electra", "camembert")
"""Families whose layers have BERT's parts under BERT's names."""

BARE_TOKENS = 3
"""Tokens of an input without text: begin, mask, end."""


class MaskPositionLayer(nn.Module):
    """The last encoder layer, computed for one position a sentence.

    Holds the layer's own modules, so that training it trains the model's last layer. Dropout is left
    out: cached states could have none below this layer either.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer: Any = layer

    @property
    def dim(self) -> int:
        """Dimensions of a state, D."""
        return int(self.layer.output.dense.out_features)

    def forward(self, states_BLD: Tensor, lengths_B: Tensor, position_B: Tensor) -> Tensor:
        """Return the layer's output at ``position_B``, [B, D].

        Args:
            states_BLD: input of the layer; what lies beyond a sentence's length is ignored.
            lengths_B: tokens a sentence.
            position_B: the position that is wanted, usually of the mask token.
        """
        return layer_at_position(
            self.layer, states_BLD, padding_mask(lengths_B, states_BLD.shape[1]), position_B
        )


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
    """Return a layer's output at ``position_B``, [B, D]; nobody attends to what is ``absent_BL``.

    As :func:`run_layer` at that place, but for dropout, which is left out.
    """
    attention, output = layer.attention.self, layer.attention.output
    at_BD = states_BLD[torch.arange(len(states_BLD), device=states_BLD.device), position_B]
    q_BD = attention.query(at_BD) * attention.attention_head_size**-0.5
    weights = attention.key.weight, attention.value.weight
    context_BD = AttentionAtPosition.apply(
        q_BD, *weights, states_BLD, absent_BL, attention.num_attention_heads
    )
    mixed_BD = output.LayerNorm(output.dense(context_BD + attention.value.bias) + at_BD)
    inner_BF = layer.intermediate(mixed_BD)
    return layer.output.LayerNorm(layer.output.dense(inner_BF) + mixed_BD)


class TextEncoder:
    """A loaded encoder: ``lower`` (frozen) and ``last`` (what learns)."""

    def __init__(self, model: PreTrainedModel) -> None:
        _check_type(model.config.model_type, "encoder")
        if model.config.num_hidden_layers < 2:
            raise UserError("the encoder has one layer only; nothing would be frozen")
        self.model = model.eval().requires_grad_(False)
        self._all_layers: Any = cast(Any, model.encoder).layer
        self.last = MaskPositionLayer(self._all_layers[-1])

    @classmethod
    def load(cls, name: str) -> TextEncoder:
        """Load from a folder, local or in a bucket, a hub name, or "embedded" (:class:`NamedModel`).

        Raises:
            UserError: there is no such model, or it is not BERT-like.
        """
        named = NamedModel.open(name, "encoder")
        kind = named.config().model_type
        _check_type(kind, named.label)
        # An ELECTRA never has that layer.
        bare: dict[str, Any] = {} if kind == "electra" else {"add_pooling_layer": False}
        return cls(named.model(AutoModel, torch.float32, **bare))

    @property
    def dim(self) -> int:
        """Dimensions of a state, D."""
        return int(self.model.config.hidden_size)

    def lower_states(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Run all layers but the last, [B, L, D]. Frozen: no gradients."""
        stack = cast(Any, self.model.encoder)
        stack.layer = self._all_layers[:-1]
        try:
            return self._run(ids_BL, lengths_B)
        finally:
            stack.layer = self._all_layers

    def states(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Run every layer, [B, L, D]: the plain forward pass, as the library computes it."""
        return self._run(ids_BL, lengths_B)

    def _run(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        mask_BL = ~padding_mask(lengths_B, ids_BL.shape[1])
        return self.model(input_ids=ids_BL, attention_mask=mask_BL.long()).last_hidden_state

    def lower_fingerprint(self) -> str:
        """Return a digest of the frozen weights: what cached states depend on besides their input."""
        digest = hashlib.sha256()
        last = f"encoder.layer.{len(self._all_layers) - 1}."
        for name, tensor in sorted(self.model.state_dict().items()):
            if not name.startswith(last):
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


def _check_type(kind: str, label: str) -> None:
    if kind not in KNOWN_TYPES:
        raise UserError(
            f"{label} of type {kind!r}: only {', '.join(KNOWN_TYPES)} are known; name a BERT-like model"
        )


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    cpu = torch.backends.cpu.get_cpu_capability()
    has_bf16 = cpu.startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
