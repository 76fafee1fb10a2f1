"""Describe the families of text encoders: where each keeps its layers, and how its last one is computed.

A row says what :mod:`engine.models.text` must know to run all layers but the last once a sentence, and the
last one alone on what they returned. Names of modules are those of transformers' own classes. Every row is
proven by a test: the two parts, one after the other, give what the whole model gives.

Shape letters: B sentences, L tokens, D dimensions, F inner dimensions of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


class LayerParts(NamedTuple):
    """The parts of a layer of standard attention whose normalisations follow its sums, as BERT's do."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    n_heads: int
    mixing: nn.Linear
    """The product after attention."""
    attention_norm: nn.LayerNorm
    inner: Callable[[Tensor], Tensor]
    """Feed-forward input of the layer, [B, D] to [B, F], with its activation."""
    outer: nn.Linear
    """Feed-forward output of the layer, [B, F] to [B, D]."""
    outer_norm: nn.LayerNorm


def bert_parts(layer: Any) -> LayerParts:
    """Return the parts of a layer of BERT, or of a family that took over its layer and names."""
    attention, output = layer.attention.self, layer.attention.output
    return LayerParts(
        attention.query,
        attention.key,
        attention.value,
        attention.num_attention_heads,
        output.dense,
        output.LayerNorm,
        layer.intermediate,
        layer.output.dense,
        layer.output.LayerNorm,
    )


def distilbert_parts(layer: Any) -> LayerParts:
    """Return the parts of a layer of DistilBERT: BERT's under other names."""
    attention, feed_forward = layer.attention, layer.ffn
    return LayerParts(
        attention.q_lin,
        attention.k_lin,
        attention.v_lin,
        attention.n_heads,
        attention.out_lin,
        layer.sa_layer_norm,
        lambda states: feed_forward.activation(feed_forward.lin1(states)),
        feed_forward.lin2,
        layer.output_layer_norm,
    )


@dataclass(frozen=True)
class Family:
    """A family of text encoders: where its layers are, and how its last one is computed."""

    layers: str = "encoder.layer"
    """Path of the list of layers in the model."""
    embeddings: str | None = "embeddings"
    """Path of the module that makes the first layer's input; None: nothing but a table of tokens does."""
    final_norm: str | None = None
    """Path of a normalisation after the last layer, where there is one; it learns with that layer."""
    after_first: str | None = None
    """Path of a module that only the first layer's output passes, where there may be one."""
    parts: Callable[[Any], LayerParts] | None = None
    """Function that takes a layer apart, so that one position can be computed; None: it is computed whole."""
    add_pooling_layer: bool = True
    """True if the class takes that argument, and would else add a layer that is not used here."""
    unused_positions: Callable[[Any], int] = lambda config: 0
    """Positions of the table, given the configuration, that no token gets."""


def _up_to_padding(config: Any) -> int:
    """Return the positions that RoBERTa leaves out: its first is one behind the padding token's id."""
    return int(config.pad_token_id) + 1


_BERT = Family(parts=bert_parts)
_ROBERTA = Family(parts=bert_parts, unused_positions=_up_to_padding)
_ROTARY = Family(layers="layers")

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta-v2": Family(after_first="encoder.conv", add_pooling_layer=False),
    "distilbert": Family("transformer.layer", parts=distilbert_parts, add_pooling_layer=False),
    "electra": Family(parts=bert_parts, add_pooling_layer=False),
    "ernie": _BERT,
    "eurobert": Family("layers", None, "norm", add_pooling_layer=False),
    "gte": _ROTARY,
    "modernbert": Family("layers", "embeddings", "final_norm", add_pooling_layer=False),
    "mpnet": Family(unused_positions=lambda config: 2),  # the class itself writes 1 as the padding's id
    "nomic_bert": _ROTARY,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""Families by their ``model_type``. DeBERTa-v3 is a "deberta-v2"; e5, bge and the first gte
models are "bert" or "xlm-roberta"."""

UNSUPPORTED = {
    "albert": "its layers share one set of weights, so none can be frozen below the last",
    "deberta": "the first DeBERTa's attention fails in bfloat16; DeBERTa-v3 works, its type is deberta-v2",
}
"""Types of encoders that look like supported ones, and why they are not."""


def family_of(model_type: str, label: str) -> Family:
    """Return the family of a model.

    Args:
        model_type: of its configuration.
        label: the begin of an error.

    Raises:
        UserError: names the families that work.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    why = f" ({UNSUPPORTED[model_type]})" if model_type in UNSUPPORTED else ""
    raise UserError(
        f"{label}: a model of type {model_type!r} cannot be used as a text encoder{why}; name a BERT-like "
        f"model, which is one of these types: {', '.join(FAMILIES)}"
    )


def position_limit(config: Any) -> int:
    """Return the tokens that an input of a model may have, special ones included.

    That is the number of positions that the model was trained with, for rotary and relative positions too:
    beyond it these can be computed, but mean nothing.

    Args:
        config: of a known family.
    """
    unused = FAMILIES[config.model_type].unused_positions(config)
    return int(config.max_position_embeddings) - unused
