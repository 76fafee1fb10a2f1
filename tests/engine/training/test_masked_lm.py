"""A masked language model of a corpus: what is masked, what is learnt, and that it is the same again."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import BertConfig, BertForMaskedLM

from engine.models.masked_lm import begin_as_identity, with_new_head
from engine.models.text import TextEncoder
from engine.training import masked_lm
from engine.training.masked_lm import (
    MaskedTokens,
    Masking,
    Sentence,
    class_nouns,
    drawn_weights,
    passes_over,
    train,
)
from tests.support.encoders import POSITIONS, draw_weights, letter_tokenizer, write_encoder

ROUND = [Sentence(" ".join("abcde"[(i + j) % 5] for j in range(8)), [(0, 1), (4, 7)]) for i in range(40)]
"""Sentences that go on in a circle: what is masked follows from its neighbours."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("encoder")
    write_encoder(folder, 16)
    return TextEncoder.load(str(folder))


def whole(one: MaskedTokens) -> list[int]:
    """Return a sentence with every mask filled by its token."""
    ids = list(one.ids)
    for place, target in zip(one.places, one.targets, strict=True):
        assert ids[place] == letter_tokenizer().mask_token_id
        ids[place] = target
    return ids


def ids_of(text: str) -> list[int]:
    tokenizer = letter_tokenizer()
    return [tokenizer.cls_token_id, *tokenizer(text)["input_ids"], tokenizer.sep_token_id]


def test_a_share_of_every_sentence_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_lm, "MENTIONS", 0.0)
    long = Sentence(" ".join("fghijklmnopqrstuvwxyz" * 3), [])
    found = Masking(letter_tokenizer(), 0).one_pass([*ROUND, Sentence("", []), long])
    assert len(found) == 41, "an empty sentence has nothing to mask"
    for one, sentence in zip(found, ROUND, strict=False):
        assert whole(one) == ids_of(sentence.text)
        assert len(one.places) == 2
    window, letters = whole(found[-1])[1:-1], ids_of(long.text)[1:-1]
    assert len(window) == masked_lm.MAX_TOKENS - 2
    assert any(letters[i : i + len(window)] == window for i in range(len(letters))), "cut, and in its order"


def test_a_mention_is_one_mask_and_one_of_its_tokens_is_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_lm, "MENTIONS", 1.0)
    tokenizer, masking = letter_tokenizer(), Masking(letter_tokenizer(), 0)
    sentences = [Sentence("a b c d e f", [(4, 7)]), Sentence("a", [(0, 1)]), Sentence("g h", [])]
    asked: Counter[int] = Counter()
    for _ in range(60):
        first, alone, without = masking.one_pass(sentences)
        filled = whole(first)
        assert filled[:3] + filled[4:] == ids_of("a b")[:3] + ids_of("e f")[1:]
        asked[filled[3]] += 1
        assert len(first.places) == 2, "a fourth of the other four tokens besides"
        assert whole(alone) == ids_of("a")
        assert whole(without) == ids_of("g h")
    assert asked.keys() == {tokenizer.get_vocab()[letter] for letter in "cd"}
    assert min(asked.values()) > 10


def test_plurals_are_drawn_more_often_and_signs_more_seldom() -> None:
    tokenizer = copy.deepcopy(letter_tokenizer())
    tokenizer.add_tokens(["cats", "does", "others", "famous", "people", "is"])
    nouns = class_nouns(tokenizer)
    assert {tokenizer.convert_ids_to_tokens(i) for i in np.flatnonzero(nouns).tolist()} == {
        "cats",
        "does",  # a verb, as no tagger tells
        "people",
    }
    vocabulary, weights = tokenizer.get_vocab(), drawn_weights(tokenizer)
    by_token = [weights[vocabulary[token]] for token in ("cats", "others", "a", "##a", "7", "##7", ",")]
    assert by_token == [4, 1, 1, 1, 0.25, 0.25, 0.25]


def test_a_small_corpus_is_passed_more_often() -> None:
    assert [passes_over(n) for n in (0, 1, 399, 2000, 20_000)] == [4000, 4000, 11, 2, 2]


def own_headed(tied: bool) -> BertForMaskedLM:
    """Return a BERT with its head, every weight drawn at random, whose decoder may have rows of its own."""
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=len(letter_tokenizer()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=tied,
    )
    model = BertForMaskedLM(config).eval()
    draw_weights(model)
    return model


@pytest.mark.parametrize("head", ["new", "own", "own, not tied"])
def test_the_loss_is_the_plain_one_at_the_masks(encoder: TextEncoder, head: str) -> None:
    if head == "new":
        model = with_new_head(encoder).eval()
        begin_as_identity(model)
    else:
        model = own_headed(tied=head == "own")
    batch = Masking(letter_tokenizer(), 0).one_pass([*ROUND[:4], Sentence("f g", [])])
    seen_S = torch.arange(5, 80)
    found, size = masked_lm._loss(model, batch, seen_S)
    plain = []
    for one in batch:
        logits_LV = model(torch.tensor([one.ids])).logits[0]
        for place, target in zip(one.places, one.targets, strict=True):
            plain.append(-log_softmax(logits_LV[place, seen_S], 0)[target - 5])
    assert size == len(plain)
    torch.testing.assert_close(found, torch.stack(plain).mean(), atol=2e-2, rtol=0)  # bfloat16 may compute


def test_all_layers_learn_what_is_masked(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_lm, "LEARNING_RATE", 1e-2)
    monkeypatch.setattr(masked_lm, "BATCH_TOKENS", 200)
    masking = Masking(letter_tokenizer(), 0)
    passes = [masking.one_pass(ROUND) for _ in range(40)]
    models, losses = [with_new_head(encoder) for _ in range(2)], []
    steps: list[int] = []
    for model in models:
        losses.append(train(model, passes, seed=0, progress=steps.append))
    assert losses[0] == losses[1]
    assert sum(steps) == 2 * sum(map(len, passes))
    assert losses[0][-1] < 0.7 * losses[0][0]
    before, after = with_new_head(encoder).state_dict(), models[0].state_dict()
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert not any("layer" in name or "word_embeddings" in name or "transform" in name for name in same)
    again = models[1].state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)
    targets = {target for own in passes for one in own for target in one.targets}
    found = models[0](torch.tensor([passes[0][0].ids])).logits.argmax(dim=-1)
    assert set(found.flatten().tolist()) <= targets, "what was never masked is ruled out"
    assert not any(p.requires_grad for p in models[0].parameters())
    assert models[0].config._attn_implementation == encoder.model.config._attn_implementation


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_was_brought_is_gone_on_from(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_lm, "OWN_HEAD_RATE", 0.0)
    passes = [Masking(letter_tokenizer(), 0).one_pass(ROUND)]
    seen = sorted({target for own in passes for one in own for target in one.targets})
    came, still = own_headed(tied), own_headed(tied)
    train(still, passes, seed=0, own_head=True)
    before, after = came.state_dict(), still.state_dict()
    biases = [name for name in before if name in ("cls.predictions.bias", "cls.predictions.decoder.bias")]
    torch.testing.assert_close(
        {name: after[name] for name in before if name not in biases},
        {name: before[name] for name in before if name not in biases},
    )
    decoder = "cls.predictions.decoder.bias"
    torch.testing.assert_close(after[decoder][seen], before[decoder][seen])
    assert (after[decoder][[i for i in range(len(after[decoder])) if i not in seen]] < -20).all()


def test_a_trained_head_learns_on(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for rate in ("LEARNING_RATE", "OWN_HEAD_RATE"):
        monkeypatch.setattr(masked_lm, rate, 1e-2)
    monkeypatch.setattr(masked_lm, "BATCH_TOKENS", 200)
    masking = Masking(letter_tokenizer(), 0)
    passes = [masking.one_pass(ROUND) for _ in range(40)]
    model = with_new_head(encoder)
    losses = train(model, passes, seed=0)
    on = train(model, passes[:10], seed=1, own_head=True)
    assert on[0] < 0.8 * losses[0], "it does not begin anew"
    assert on[-1] < losses[-1]


def test_a_trained_model_is_read_as_it_was_written(encoder: TextEncoder, tmp_path: Path) -> None:
    model, own = with_new_head(encoder), Masking(letter_tokenizer(), 0).one_pass(ROUND)
    train(model, [own], seed=0)
    model.eval().save_pretrained(tmp_path)
    again = BertForMaskedLM.from_pretrained(tmp_path).eval()
    ids_BL = torch.tensor([own[0].ids])
    torch.testing.assert_close(again(ids_BL).logits, model(ids_BL).logits)
