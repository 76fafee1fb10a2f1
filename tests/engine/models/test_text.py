from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2Model

from engine.errors import UserError
from engine.models import hub as embedded
from engine.models.text import TextEncoder, fast_dtype
from tests.support.encoders import random_encoder
from tests.support.sentences import random_rows


@pytest.mark.parametrize("kind", ["bert", "roberta", "embedded"])
def test_one_position_of_the_last_layer_equals_the_whole_forward_pass(kind: str) -> None:
    encoder = TextEncoder.load("embedded") if kind == "embedded" else random_encoder(kind)
    rows = random_rows(12, 5)
    ids, lengths = rows.padded_ids(torch.arange(12).numpy())
    mask = torch.from_numpy(rows.mask_index)
    with torch.no_grad():
        whole = encoder.states(ids, lengths)[torch.arange(12), mask]
        one = encoder.last(encoder.lower_states(ids, lengths), lengths, mask)
    torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-4)
    assert whole.std() > 0.1


def test_dropout_falls_where_the_layer_of_bert_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped is fixed here, by the last place: the layer alone and at one position drop alike."""
    encoder = random_encoder("bert")
    encoder.model.set_attn_implementation("eager")
    ids, lengths = random_rows(6, 2).padded_ids(torch.arange(6).numpy())
    mask = lengths - 3
    states = encoder.lower_states(ids, lengths)
    layer = encoder.model.encoder.layer[-1]

    def dropped(values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False):
        kept = torch.arange(values.shape[-1]) % 3 > 0
        return values * kept / (1 - p) if training and p else values

    monkeypatch.setattr(torch.nn.functional, "dropout", dropped)
    absent = torch.arange(ids.shape[1])[None] >= lengths[:, None]
    bias = torch.zeros(absent.shape).masked_fill(absent, torch.finfo(torch.float32).min)
    with torch.no_grad():
        whole = layer.train()(states, bias[:, None, None])[torch.arange(6), mask]
        one = encoder.last(states, lengths, mask, 0.1)
        without = encoder.last(states, lengths, mask)
    torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-4)
    assert (one - without).abs().max() > 0.1


def test_what_lies_beyond_a_sentence_does_not_matter() -> None:
    encoder = random_encoder("bert")
    states = torch.randn(2, 7, 48)
    lengths, position = torch.tensor([4, 7]), torch.tensor([2, 3])
    spoilt = states.clone()
    spoilt[0, 4:] = 1e3
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.last(spoilt, lengths, position), encoder.last(states, lengths, position)
        )


def test_gradients_reach_the_last_layer_alone() -> None:
    encoder = random_encoder("bert")
    encoder.last.requires_grad_(True)
    ids, lengths = random_rows(4, 2).padded_ids(torch.arange(4).numpy())
    encoder.last(encoder.lower_states(ids, lengths), lengths, lengths - 2).sum().backward()
    trained = {n for n, p in encoder.model.named_parameters() if p.grad is not None}
    assert trained
    assert all(name.startswith("encoder.layer.2.") for name in trained)


def test_saving_keeps_the_whole_model(tmp_path: Path) -> None:
    encoder = random_encoder("bert")
    encoder.save(tmp_path)
    again = TextEncoder.load(str(tmp_path))
    for name, tensor in encoder.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor)
    assert again.lower_fingerprint() == encoder.lower_fingerprint()


def test_the_fingerprint_covers_what_is_frozen_and_not_what_learns() -> None:
    encoder = random_encoder("bert")
    before = encoder.lower_fingerprint()
    with torch.no_grad():
        encoder.last.layer.output.dense.weight += 1
    assert encoder.lower_fingerprint() == before
    with torch.no_grad():
        encoder.model.encoder.layer[0].output.dense.weight += 1
    assert encoder.lower_fingerprint() != before


def test_other_kinds_of_models_are_refused() -> None:
    with pytest.raises(UserError, match=r"'gpt2'.*BERT-like"):
        TextEncoder(GPT2Model(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=10)))
    with pytest.raises(UserError, match="one layer"):
        random_encoder("bert", layers=1)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*cannot be loaded"):
        TextEncoder.load(str(tmp_path / "nowhere"))


def test_other_weights_under_the_embedded_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(UserError, match="not the weights"):
        embedded.embedded_model_path.__wrapped__()


def test_the_fast_type_is_one_that_cpus_know() -> None:
    assert fast_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
