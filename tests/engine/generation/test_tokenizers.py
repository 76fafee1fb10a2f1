from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from engine.errors import FormatError, UserError
from engine.generation.names import made_one, name_trie
from engine.generation.tokenizers import (
    encode_after,
    fingerprint,
    load_tokenizer,
    train_tokenizer,
)
from engine.models.hub import EMBEDDED, NamedModel
from engine.models.plain_text import token_ids

TEXTS = ["The iron rusts.\n", "The gold shines.\n", "Iron and gold are metals.\n", "<s> is a tag.\n"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter(TEXTS), 280, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


@given(text=st.text(max_size=40) | st.sampled_from(["<s>", "</s>x", " a  b ", "\n\n", "e\u0301 \u00e9"]))
def test_every_text_comes_back(tokenizer: Any, text: str) -> None:
    (ids,) = token_ids(tokenizer, [text])
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids)
    assert all(i < len(tokenizer) for i in ids)


def test_the_same_texts_make_the_same_tokenizer(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    train_tokenizer(iter(TEXTS), 280, tmp_path / "again")
    train_tokenizer(iter(TEXTS[:1]), 280, tmp_path / "other")
    same, other = (load_tokenizer(tmp_path / name) for name in ("again", "other"))
    assert fingerprint(same) == fingerprint(tokenizer) != fingerprint(other)
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert (len(tokenizer), tokenizer.bos_token, tokenizer.eos_token) == (280, "<s>", "</s>")


def test_frequent_words_are_one_token(tokenizer: Any) -> None:
    assert len(token_ids(tokenizer, [" gold"])[0]) == 1


def test_names_end_alike_and_come_back_from_their_trie(tokenizer: Any) -> None:
    names = ["iron", "gold", "gold coin", "Ø"]
    trie = name_trie(tokenizer, names)
    assert trie.entity_ids.tolist() == [0, 1, 2, 3]
    for entity, name in enumerate(names):
        sequence = trie.entity_sequence[entity]
        tokens = trie.tokens[trie.starts[sequence] : trie.starts[sequence + 1]]
        assert tokenizer.decode(tokens) == f" {name}.\n"
    assert token_ids(tokenizer, ["and gold"])[0][-1:] == encode_after(tokenizer, [" gold"], "and")[0]


def test_a_vocabulary_without_room_for_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--vocab-size 257: at least 258"):
        train_tokenizer(TEXTS, 257, tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_names_that_cannot_be_generated_are_shown(tokenizer: Any) -> None:
    names = ["iron", "Ø" * 200, "gold", "x" * 300]
    with pytest.raises(FormatError, match=r"2 of 4 .*entity 1 \('Ø+'…\) has 4\d\d tokens.*import again"):
        name_trie(tokenizer, names)
    assert len(name_trie(tokenizer, ["iron", "gold " * 5], 64)) > 1
    with pytest.raises(FormatError, match=r"entity 1 .* of 64 tokens takes two names of \d+"):
        name_trie(tokenizer, ["iron", "gold " * 30], 64)
    with pytest.raises(FormatError, match=r"drops line breaks.*--tokenizer corpus"):
        name_trie(NamedModel.open(EMBEDDED, "x").fast_tokenizer(), ["iron"])


def test_names_that_a_tokenizer_makes_one_are_found(tokenizer: Any) -> None:
    assert made_one(name_trie(tokenizer, ["Iron", "iron"]), ["Iron", "iron"]) == []
    lower = copy.deepcopy(tokenizer)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    names = ["Iron", "gold", "iron", "GOLD", "tin", "IRON"]
    assert made_one(name_trie(lower, names), names) == [["Iron", "iron", "IRON"], ["gold", "GOLD"]]
