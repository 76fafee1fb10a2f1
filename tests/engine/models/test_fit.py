"""Model, tokenizer and length fit each other, or an error says what does not and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from engine.corpus.inputs.masking import fitting_tokenizer
from engine.errors import UserError
from engine.models.fit import unknown_tokens
from engine.models.hub import EMBEDDED, NamedModel
from tests.support.encoders import SPECIAL, letter_tokenizer, write_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_encoder(tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def write_tokenizer(folder: Path, core: Tokenizer, **special: str) -> None:
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)


def take_another_family(folder: Path) -> None:
    change_config(folder, model_type="gpt2")


def take_layers(folder: Path) -> None:
    change_config(folder, num_hidden_layers=1)


def take_embeddings(folder: Path) -> None:
    change_config(folder, vocab_size=100)


def take_positions(folder: Path) -> None:
    change_config(folder, max_position_embeddings=63)


def begin_positions_later(folder: Path) -> None:
    change_config(folder, model_type="roberta", max_position_embeddings=65, pad_token_id=1)


def take_padding(folder: Path) -> None:
    rest = {name: token for name, token in SPECIAL.items() if name != "pad_token"}
    write_tokenizer(folder, letter_tokenizer().backend_tokenizer, **rest)


def take_mask(folder: Path) -> None:
    rest = {name: token for name, token in SPECIAL.items() if name != "mask_token"}
    write_tokenizer(folder, letter_tokenizer().backend_tokenizer, **rest)


def take_vocabulary(folder: Path) -> None:
    write_tokenizer(folder, Tokenizer(models.WordPiece({}, unk_token="[UNK]")), **SPECIAL)


def take_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def leave_pieces_alone(folder: Path) -> None:
    take_tokenizer(folder)
    (folder / "tokenizer_config.json").unlink()
    change_config(folder, model_type="deberta-v2")
    (folder / "spm.model").write_bytes(b"pieces")


def add_a_module(folder: Path) -> None:
    modules = [{"idx": 0, "path": "", "type": "Transformer"}, {"idx": 1, "path": "1", "type": "CNN"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (take_another_family, "a model of type 'gpt2'.*BERT-like.*modernbert"),
        (take_layers, "one layer only.*deeper"),
        (
            take_embeddings,
            r"its tokenizer makes tokens up to number \d+, and it has embeddings for 100.*resize_token_emb",
        ),
        (take_positions, "inputs of 64 tokens, and it has positions for 63; give --max-length 63 or less"),
        (begin_positions_later, "inputs of 64 tokens, and it has positions for 63"),
        (take_padding, "its tokenizer has no padding token.*pad_token = .*save_pretrained"),
        (take_mask, "its tokenizer has no mask token"),
        (take_vocabulary, "its tokenizer has no vocabulary, nothing but 5 special tokens.*save_pretrained"),
        (take_tokenizer, "no tokenizer can be loaded"),
        (leave_pieces_alone, "no tokenizer.*spm.model and no tokenizer.json.*sentencepiece is installed"),
        (add_a_module, "modules.json.*no Pooling"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, spoil: Callable[[Path], None], reason: str) -> None:
    fitting_tokenizer(folder, 64)
    spoil(folder)
    with pytest.raises(UserError, match=f"^--model {folder}: {reason}") as raised:
        fitting_tokenizer(folder, 64)
    assert "\n" not in str(raised.value)


def test_what_fits_to_the_last_place_passes(folder: Path) -> None:
    change_config(folder, max_position_embeddings=64, vocab_size=len(letter_tokenizer()))
    assert len(fitting_tokenizer(folder, 64)) == len(letter_tokenizer())
    fitting_tokenizer(EMBEDDED, 512)


def test_unknown_tokens_are_counted(folder: Path) -> None:
    tokenizer = NamedModel.open(folder, "encoder").tokenizer()
    texts = ["iron", "железо", "tin \u4e2d \u6587"]
    assert unknown_tokens(tokenizer, tokenizer(texts)["input_ids"]) == [0, 1, 2]
    tokenizer.unk_token = None
    assert unknown_tokens(tokenizer, tokenizer(texts)["input_ids"]) == [0, 0, 0]
