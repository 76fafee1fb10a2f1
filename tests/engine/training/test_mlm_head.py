"""The head of a masked language model: what is masked, what is learnt, and that it is the same again."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from engine.models.text import TextEncoder
from engine.training import mlm_head
from engine.training.mlm_head import class_nouns, mask_tokens, states_at_masks, train_head
from tests.support.encoders import letter_tokenizer, write_encoder

TOKENS = [[10 + (i + j) % 5 for j in range(6)] for i in range(40)]
"""Sentences that go on in a circle: what is masked follows from its neighbours."""
ANY = np.ones(len(letter_tokenizer()), bool)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("encoder")
    write_encoder(folder, 16)
    return TextEncoder.load(str(folder))


def with_head(encoder: TextEncoder) -> BertForMaskedLM:
    torch.manual_seed(0)
    model = BertForMaskedLM(encoder.model.config)
    model.bert.load_state_dict(encoder.model.state_dict())
    return model.eval()


def test_a_share_of_every_sentence_is_masked() -> None:
    tokenizer = letter_tokenizer()
    found = mask_tokens(tokenizer, [*TOKENS, [], [9] * 100], ANY, seed=0)
    assert len(found) == 41
    for one, tokens in zip(found, [*TOKENS, [9] * 100], strict=True):
        whole = list(one.ids)
        for place, target in zip(one.places, one.targets, strict=True):
            assert whole[place] == tokenizer.mask_token_id
            whole[place] = target
        assert whole == [tokenizer.cls_token_id, *tokens[: mlm_head.MAX_TOKENS - 2], tokenizer.sep_token_id]
    assert [len(one.places) for one in found] == [1] * 40 + [9]


def test_masks_are_class_nouns_that_are_whole_words() -> None:
    tokenizer = copy.deepcopy(letter_tokenizer())
    tokenizer.add_tokens(["cats", "does", "others", "famous", "people", "is"])
    nouns = class_nouns(tokenizer)
    assert {tokenizer.convert_ids_to_tokens(i) for i in np.flatnonzero(nouns).tolist()} == {
        "cats",
        "does",  # a verb, as no tagger tells
        "people",
    }
    vocabulary = tokenizer.get_vocab()
    cats, others, people, rest, a = (vocabulary[t] for t in ("cats", "others", "people", "##x", "a"))
    sentences = [[a, others], [cats, rest, a], [a, cats, a], [people, cats, rest]]
    found = mask_tokens(tokenizer, sentences, nouns, seed=0)
    assert [(one.places, one.targets) for one in found] == [([2], [cats]), ([1], [people])]


def test_states_are_the_encoders_own_at_the_masks(encoder: TextEncoder) -> None:
    sentences = mask_tokens(letter_tokenizer(), [[5, 6, 7], *TOKENS[:3], [8] * 20], ANY, seed=1)
    states, targets = states_at_masks(encoder, sentences)
    plain = {}
    for one in sentences:
        with torch.no_grad():
            whole = encoder.states(torch.tensor([one.ids]), torch.tensor([len(one.ids)]))[0]
        for place, target in zip(one.places, one.targets, strict=True):
            plain[tuple(np.round(whole[place].numpy(), 3).tolist())] = target
    found = {tuple(np.round(s.numpy(), 3).tolist()): int(t) for s, t in zip(states, targets, strict=True)}
    assert found == plain


def test_the_head_learns_what_is_masked_and_the_encoder_stays(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlm_head, "EPOCHS", 40)
    monkeypatch.setattr(mlm_head, "LEARNING_RATE", 1e-2)
    states, targets = states_at_masks(encoder, mask_tokens(letter_tokenizer(), TOKENS, ANY, seed=0))
    models, losses = [with_head(encoder) for _ in range(2)], []
    for model in models:
        losses.append(train_head(model, states, targets, seed=0))
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.9 * losses[0][0]
    before, after = with_head(encoder).state_dict(), models[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("cls.") and "decoder.weight" not in name}
    again = models[1].state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)
    with torch.no_grad():
        found = models[0].cls(states).argmax(dim=1)
    assert set(found.tolist()) <= set(targets.tolist()), "what was never masked is ruled out"


def test_a_trained_head_is_read_as_it_was_written(encoder: TextEncoder, tmp_path: Path) -> None:
    states, targets = states_at_masks(encoder, mask_tokens(letter_tokenizer(), TOKENS, ANY, seed=0))
    model = with_head(encoder)
    train_head(model, states, targets, seed=0)
    model.save_pretrained(tmp_path)
    again = BertForMaskedLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again.cls(states), model.cls(states))
