"""What cannot be split over processes is refused by name before a weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.models.hub import NamedModel
from engine.models.tensor_parallel import check_tensor_parallel
from tests.support.causal_families import tiny_config


def named(folder: Path, kind: str, **changed: Any) -> NamedModel:
    config = tiny_config(kind)
    for name, value in changed.items():
        setattr(config, name, value)
    config.save_pretrained(folder)
    return NamedModel.open(folder, "language model")


@pytest.mark.parametrize(
    ("kind", "changed", "processes", "said"),
    [
        ("llama", {}, 4, "has 2 key-value heads, which is no multiple of that; it can be split over 2$"),
        ("llama", {"num_key_value_heads": 1}, 2, "it cannot be split$"),
        ("llama", {"num_key_value_heads": 4}, 3, "has 4 attention heads, .* it can be split over 2, 4$"),
        ("gpt2", {}, 2, "no plan to split a model of type 'gpt2'; name a dense Llama"),
        ("mixtral", {}, 2, "a plan with experts"),
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, 2, "a quantised model"),
    ],
)
def test_what_cannot_be_split_is_named(
    tmp_path: Path, kind: str, changed: dict[str, Any], processes: int, said: str
) -> None:
    with pytest.raises(UserError, match=f"tensor_parallel {processes}.*{said}"):
        check_tensor_parallel(named(tmp_path, kind, **changed), processes)


def test_an_adapter_is_merged_first(tmp_path: Path) -> None:
    model = named(tmp_path, "llama")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"with an adapter.*--keep-adapter"):
        check_tensor_parallel(model, 2)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gemma2", "phi3", "gpt_neox"])
def test_what_can_be_split_is_taken(tmp_path: Path, kind: str) -> None:
    check_tensor_parallel(named(tmp_path, kind), 2)
