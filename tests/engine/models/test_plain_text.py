"""What spells a special token is text: names, sentences, prompts and descriptions alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.errors import UserError
from engine.generation.names import name_trie
from engine.generation.tokenizers import encode_after, train_tokenizer
from engine.models.hub import EMBEDDED, NamedModel
from engine.models.plain_text import token_ids, without_controls
from tests.support.language_models import tiny_model, tiny_tokenizer

SPELLINGS = ["<s>", "</s>", "[MASK]", "<|endoftext|>"]
SPECIAL = dict(zip(("bos_token", "eos_token", "mask_token", "pad_token"), SPELLINGS, strict=True))


def bytes_alone() -> Any:
    return tiny_tokenizer()


def pieces_of_special_tokens() -> Any:
    """A unigram model whose vocabulary holds the spellings as likely pieces, as XLM-R's does."""
    signs = [chr(i) for i in range(33, 127)]
    pieces = [*((spelling, 0.0) for spelling in SPELLINGS), ("<unk>", -50.0), ("\u2581", -3.0)]
    core = Tokenizer(models.Unigram([*pieces, *((sign, -5.0) for sign in signs)], 4, False))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **SPECIAL)


def whole_words() -> Any:
    """A vocabulary of words between spaces, in which special tokens stand like others."""
    words = {word: i for i, word in enumerate([*SPELLINGS, "<unk>", "and", "."])}
    core = Tokenizer(models.WordLevel(words, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **SPECIAL)


def embedded() -> Any:
    return NamedModel.open(EMBEDDED, "x").fast_tokenizer()


@pytest.mark.parametrize("make", [bytes_alone, pieces_of_special_tokens, whole_words, embedded])
@pytest.mark.parametrize("text", ["{}", " {}", "a {} b", "{}{}", "x{}y", "{} and {}."])
def test_no_text_makes_a_control_token(make: Callable[[], Any], text: str) -> None:
    tokenizer = make()
    controls = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for spelling in (*SPELLINGS, "[SEP]", "[CLS]"):
        written = text.replace("{}", spelling)
        (ids,) = token_ids(tokenizer, [written])
        assert ids
        assert controls.isdisjoint(ids)
        assert controls.isdisjoint(
            tokenizer(without_controls(tokenizer, [written])[0], add_special_tokens=False).input_ids
        )


def test_a_tokenizer_that_learnt_the_spelling_makes_no_control_token(tmp_path: Any) -> None:
    train_tokenizer(["<s> <s> <s>\n"] * 50, 300, tmp_path)
    tokenizer = NamedModel.open(tmp_path, "x").fast_tokenizer()
    (ids,) = token_ids(tokenizer, ["<s>"])
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.decode(ids) == "<s>"


def test_names_that_spell_special_tokens_are_names() -> None:
    model, names = tiny_model(), ["<s>", "</s>", "s", "<|endoftext|>", "[MASK]"]
    for name, ids in zip(names, model.encode_after([f" {name}.\n" for name in names], "and"), strict=True):
        assert model.tokenizer.decode(ids) == f" {name}.\n"
        assert not {0, 1} & set(ids)
    assert name_trie(model.tokenizer, names).n_sequences == len(names)
    prompt = model.encode("<s>, </s> and")
    assert prompt[0] == model.tokenizer.bos_token_id
    assert not {0, 1} & set(prompt[1:])


def test_texts_without_special_tokens_are_not_changed() -> None:
    texts = ["a < s > b", "[mask", "", "plain"]
    assert without_controls(embedded(), texts) == texts
    assert without_controls(embedded(), ["a [Mask] b"]) == ["a [ Mask] b"]


def test_a_tokenizer_that_joins_words_is_refused() -> None:
    pieces = ["a", "n", "d", " ", "x", "an", "and", " x", "and x"]
    merges = [("a", "n"), ("an", "d"), (" ", "x"), ("and", " x")]
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    with pytest.raises(UserError, match="other tokens of 'and' where ' x' follows"):
        encode_after(tokenizer, [" x"], "and")
