"""What a sentence-transformers folder says of texts is obeyed, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.errors import UserError
from engine.models import pooling
from engine.models.hub import EMBEDDED, NamedModel
from engine.models.pooling import TextPooler, TextVectors, pool
from engine.models.sentence_settings import SentenceSettings, read_settings
from engine.models.text import TextEncoder
from tests.support.encoders import write_encoder

TEXTS = ["tin and lead", "Iron", " ", "a longer text of words that say nothing"]
STATES = torch.tensor([[[1.0, 8.0], [3.0, 2.0], [2.0, 2.0]], [[5.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BERT of 16 dimensions without settings."""
    monkeypatch.setattr(pooling, "fast_dtype", lambda device: torch.float32)
    write_encoder(tmp_path)
    return tmp_path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def write_modules(folder: Path, *kinds: str, first: str = "") -> None:
    """Write the list of modules, and a mean for the pooling."""
    places = [first, *(f"{i}_{kind}" for i, kind in enumerate(kinds, 1))]
    modules = zip(places, ("Transformer", *kinds), strict=True)
    write(
        folder,
        "modules.json",
        [
            {"idx": i, "path": p, "type": f"sentence_transformers.models.{k}"}
            for i, (p, k) in enumerate(modules)
        ],
    )
    write(folder, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})


def write_dense(folder: Path, name: str, dim: int = 16, **settings: Any) -> dict[str, torch.Tensor]:
    write(folder, f"{name}/config.json", settings)
    torch.manual_seed(1)
    weights = {"linear.weight": torch.randn(3, dim), "linear.bias": torch.randn(3)}
    save_file(weights, folder / name / "model.safetensors")
    return weights


def settings_of(folder: Path) -> SentenceSettings:
    return read_settings(NamedModel.open(folder, "encoder"))


def vectors(folder: Path, texts: list[str] = TEXTS) -> TextVectors:
    tokenizer = NamedModel.open(folder, "encoder").tokenizer()
    return TextPooler(TextEncoder.load(str(folder)), tokenizer, settings_of(folder))(texts)


def states(folder: Path, text: str) -> torch.Tensor:
    """Return the token states of one text, [L, D], by the plain model."""
    encoder = TextEncoder.load(str(folder))
    ids = NamedModel.open(folder, "encoder").tokenizer()(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found: torch.Tensor = encoder.model(input_ids=ids).last_hidden_state[0]
    return found


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("cls", [1, 8], [5, 1]),
        ("lasttoken", [2, 2], [5, 1]),
        ("max", [3, 8], [5, 1]),
        ("mean", [2, 4], [5, 1]),
        ("mean_sqrt_len_tokens", [6 / 3**0.5, 12 / 3**0.5], [5, 1]),
        ("weightedmean", [(1 + 6 + 6) / 6, (8 + 4 + 6) / 6], [5, 1]),
    ],
)
def test_pooling_takes_the_tokens_that_count(mode: str, first: list[float], second: list[float]) -> None:
    torch.testing.assert_close(pool(mode, STATES, MASK), torch.tensor([first, second]).float())


def test_a_folder_without_settings_is_read_as_the_mean(folder: Path) -> None:
    assert settings_of(folder) == SentenceSettings(max_tokens=128)  # its positions
    found = vectors(folder)
    assert found.cut == 0
    assert not found.vectors_nD[2].any()
    for place in (0, 1, 3):
        expected = states(folder, TEXTS[place]).mean(dim=0)
        np.testing.assert_allclose(found.vectors_nD[place], expected, atol=1e-6)


def test_a_tokenizer_that_pads_on_the_left_makes_the_same_vectors(folder: Path) -> None:
    expected = vectors(folder).vectors_nD
    tokenizer = NamedModel.open(folder, "encoder").tokenizer()
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    np.testing.assert_array_equal(vectors(folder).vectors_nD, expected)


def test_the_embedded_encoder_is_read_as_it_always_was() -> None:
    settings = read_settings(NamedModel.open(EMBEDDED, "encoder"))
    assert settings == SentenceSettings(max_tokens=256, dim=384)


def test_pooling_prompt_length_and_case_are_obeyed(folder: Path) -> None:
    write_modules(folder, "Pooling", "Normalize")
    pooling_settings = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    write(folder, "1_Pooling/config.json", pooling_settings | {"pooling_mode_mean_tokens": False})
    write(folder, "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": True})
    prompts = {"query": "query: ", "document": "", "passage": "Of "}
    write(folder, "config_sentence_transformers.json", {"prompts": prompts})
    found = vectors(folder)
    assert found.vectors_nD.shape == (4, 32)
    assert found.cut == 2  # of the four texts, those of more than four letters
    at = states(folder, "of iron")
    np.testing.assert_allclose(found.vectors_nD[1], torch.cat([at[0], at.amax(dim=0)]), atol=1e-6)


def test_a_prompt_can_be_left_out_of_the_pool(folder: Path) -> None:
    write_modules(folder, "Pooling")
    write(folder, "1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False})
    prompts = {"prompts": {"topic": "of ", "query": "q "}, "default_prompt_name": "topic"}
    write(folder, "config_sentence_transformers.json", prompts)
    expected = states(folder, "of iron")[2:].mean(dim=0)
    np.testing.assert_allclose(vectors(folder, ["iron"]).vectors_nD[0], expected, atol=1e-6)


def test_a_projection_is_applied_where_it_stands(folder: Path) -> None:
    write_modules(folder, "Pooling", "Normalize", "Dropout", "Dense", "Normalize")
    weights = write_dense(folder, "4_Dense", activation_function="torch.nn.modules.activation.Tanh")
    mean = states(folder, "iron").mean(dim=0)
    expected = torch.tanh(weights["linear.weight"] @ (mean / mean.norm()) + weights["linear.bias"])
    found = vectors(folder, ["iron", ""]).vectors_nD
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    assert not found[1].any()


def test_without_a_limit_of_its_own_a_text_has_the_models(folder: Path) -> None:
    write_modules(folder, "Pooling")
    assert settings_of(folder).max_tokens == 128
    write(folder, "sentence_bert_config.json", {"max_seq_length": 4096})
    assert settings_of(folder).max_tokens == 128  # the positions that there are


def spoil_module(folder: Path) -> None:
    write_modules(folder, "Pooling", "LSTM")


def spoil_list(folder: Path) -> None:
    write(folder, "modules.json", {"a": 1})


def spoil_json(folder: Path) -> None:
    (folder / "modules.json").write_text("[", encoding="utf-8")


def spoil_pooling(folder: Path) -> None:
    write(folder, "1_Pooling/config.json", {"pooling_mode": ["mean", "median"]})


def spoil_old_pooling(folder: Path) -> None:
    write(folder, "1_Pooling/config.json", {"pooling_mode_median_tokens": True})


def spoil_first(folder: Path) -> None:
    write_modules(folder, "Pooling", first="0_Transformer")


def leave_pooling_out(folder: Path) -> None:
    write_modules(folder, "Dense")


def spoil_prompts(folder: Path) -> None:
    write(folder, "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": "topic"})


def spoil_activation(folder: Path) -> None:
    write_modules(folder, "Pooling", "Dense")
    write_dense(folder, "2_Dense", activation_function="os.system")


def spoil_size(folder: Path) -> None:
    write_modules(folder, "Pooling", "Dense")
    write_dense(folder, "2_Dense", dim=8)


def add_residual(folder: Path) -> None:
    write_modules(folder, "Pooling", "Dense")
    write_dense(folder, "2_Dense", use_residual=True)


def pickle_dense(folder: Path) -> None:
    write_modules(folder, "Pooling", "Dense")
    write(folder, "2_Dense/config.json", {})
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"no")


def cut_dense(folder: Path) -> None:
    pickle_dense(folder)
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"no")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_module, r"modules.json.*LSTM is none of Pooling, Dense"),
        (spoil_list, "modules.json.*not a list"),
        (spoil_json, "modules.json.*cannot be read"),
        (spoil_pooling, "1_Pooling/config.json.*'median' is none of cls"),
        (spoil_old_pooling, "1_Pooling/config.json.*'pooling_mode_median_tokens' is none of cls"),
        (spoil_first, "modules.json.*'0_Transformer'"),
        (leave_pooling_out, "modules.json.*no Pooling"),
        (spoil_prompts, "config_sentence_transformers.json.*'topic'"),
        (spoil_activation, "2_Dense/config.json.*os.system is none of Identity"),
        (spoil_size, "2_Dense/config.json.*takes 8 dimensions, and gets 16"),
        (add_residual, "2_Dense/config.json.*residual"),
        (pickle_dense, r"no 2_Dense/model.safetensors.*pickled.*save it"),
        (cut_dense, "2_Dense/model.safetensors.*no linear.weight"),
    ],
)
def test_what_is_not_known_is_refused(folder: Path, spoil: Callable[[Path], None], reason: str) -> None:
    write_modules(folder, "Pooling")
    spoil(folder)
    with pytest.raises(UserError, match=f"encoder {folder}: {reason}"):
        settings_of(folder)
