"""Adapters of language models (LoRA, Hu et al. 2022), by the library peft: read them, and merge them.

A folder with an adapter holds the two small matrices of each layer that was adapted, the tokenizer, and the
name and fingerprint of the model that they belong to. That one is read from where it is, and the adapter
merged into it: what runs is a plain model, at a plain model's speed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import UserError
from engine.models.fingerprint import check_unchanged
from engine.models.hub import ADAPTER, NamedModel

BASE = "base_model.json"
"""File of an adapter's folder that says which model it belongs to."""


class Base(BaseModel):
    """The model that an adapter belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A folder or a hub name."""
    fingerprint: str
    """Of its files (:func:`engine.models.fingerprint.model_fingerprint`)."""

    def write(self, folder: Path) -> None:
        """Write it into an adapter's folder."""
        (folder / BASE).write_text(self.model_dump_json(), encoding="utf-8")


def language_model(named: NamedModel, kind: Any, dtype: torch.dtype) -> Any:
    """Return a model, or an adapter's base with the adapter merged into it.

    Args:
        named: a folder of either, or a hub name of a model.
        kind: class of transformers that reads models.
        dtype: of the weights.

    Raises:
        UserError: it cannot be loaded; or the adapter's base is not there, or not the one it was made for.
    """
    if named.find(ADAPTER) is None:
        return named.model(kind, dtype)
    base, role = _base_of(named), f"the base of the adapter {named.name}:"
    check_unchanged(base.name, base.fingerprint, role)
    model = NamedModel.open(base.name, role).model(kind, dtype)
    from peft import PeftModel

    try:
        merged = PeftModel.from_pretrained(model, named.path).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{named.label}: its adapter cannot be merged ({reason}); train it again") from None
    return merged


def _base_of(named: NamedModel) -> Base:
    path = named.find(BASE)
    try:
        if path is None:
            raise UserError(
                f"{named.label}: an adapter without {BASE}, which says what model it belongs to; take one "
                "that `seedset pretrain-lm --lora --keep-adapter` made, or merge it and save the model"
            )
        return Base.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{named.label}: its {BASE} cannot be read; train the adapter again") from None
