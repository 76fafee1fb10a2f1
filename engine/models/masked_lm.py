"""Open an encoder as a masked language model: with the head that it brings, or with a new one.

An encoder of sentences has lost the head that it was pre-trained with; a BERT without one gets a new one
whose decoder is its word embeddings (:mod:`engine.training.masked_lm` trains it). The head is read in two
parts: the transform of a state, and the decoder whose rows are the tokens' vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers import AutoModelForMaskedLM, BertForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from engine.errors import UserError
from engine.models.hub import NamedModel
from engine.models.split import with_modules
from engine.models.text import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD_OF_BERT = "cls.predictions.transform.dense.weight"


def lacks_head(named: NamedModel) -> bool:
    """Return whether a model is a BERT whose weights hold no head; lie they in several files, no."""
    file = named.find("model.safetensors")
    if named.config().model_type != "bert" or file is None:
        return False
    with safe_open(file, "pt") as weights:
        return HEAD_OF_BERT not in weights.keys()  # noqa: SIM118, no mapping


def with_own_head(named: NamedModel, way_out: str) -> PreTrainedModel:
    """Load an encoder with the head that it brings.

    Args:
        named: which.
        way_out: what to do where it brings none, the end of the error.

    Raises:
        UserError: it brings none.
    """
    try:
        found: PreTrainedModel = named.model(AutoModelForMaskedLM, torch.float32)
    except UserError as error:
        raise UserError(
            f"{error}; a head is made for encoders of the family bert alone: name one whose folder has its "
            f"masked-language-model head{way_out}"
        ) from None
    return found


def with_new_head(encoder: TextEncoder) -> BertForMaskedLM:
    """Return a BERT's encoder, its weights copied, with a head that was drawn at random."""
    model = BertForMaskedLM(encoder.model.config)
    model.bert.load_state_dict(encoder.model.state_dict())
    return model


def begin_as_identity(model: BertForMaskedLM) -> None:
    """Let the head's transform pass states on (as far as its GELU and LayerNorm do)."""
    transform: Any = model.cls.predictions.transform
    with torch.no_grad():
        transform.dense.weight.copy_(torch.eye(transform.dense.weight.shape[0]))
        transform.dense.bias.zero_()


def open_masked_lm(name: str, role: str = "--model") -> PreTrainedModel:
    """Return an encoder with its masked-language-model head, or with a new one that begins as the identity.

    Args:
        name: "embedded", a folder, an ``s3://`` folder or a hub name.
        role: the option that named it, for errors.

    Raises:
        UserError: it has no head, and is of a family whose head is not made here.
    """
    named = NamedModel.open(name, role)
    if not lacks_head(named):
        return with_own_head(named, f" with {role}")
    model = with_new_head(TextEncoder.load(name))
    begin_as_identity(model)
    return model


class GivenOutput(torch.nn.Module):
    """A module in place of an encoder, which returns the states that it was called with."""

    def forward(self, *positional: Any, inputs_embeds: torch.Tensor, **others: Any) -> BaseModelOutput:
        """Return the states as an encoder would."""
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def head_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with its head, whose encoder is skipped: it is given the states."""
    return with_modules(model, {model.base_model_prefix: GivenOutput()})


def transform_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the head without its decoder: given states as ``inputs_embeds``, its logits are [.., D]."""
    decoder = model.get_output_embeddings()
    (path,) = (name for name, module in model.named_modules() if module is decoder)
    prefix: str = model.base_model_prefix
    parts: dict[str, torch.nn.Module | None] = {prefix: GivenOutput(), path: torch.nn.Identity()}
    return with_modules(model, parts)
