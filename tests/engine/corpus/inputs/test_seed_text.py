"""The seed text behind a sentence, by ids computed by hand."""

import pytest
import torch

from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.corpus.inputs.seed_text import SEED_TOKENS, SeedText, seed_room
from engine.errors import UserError
from engine.models.seed_tokens import has_seed_tokens, with_seed_tokens
from engine.models.text import TextEncoder
from tests.support.encoders import letter_tokenizer, write_encoder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    write_encoder(folder)
    return with_seed_tokens(TextEncoder.load(str(folder)), load_tokenizer(folder))


def letters(text):
    """The ids of words in the tokenizer of letters: a first letter as it is, the next ones behind ##."""
    vocabulary = letter_tokenizer().get_vocab()
    return [
        vocabulary[("##" if place else "") + letter]
        for word in text.split()
        for place, letter in enumerate(word)
    ]


def test_each_seed_stands_behind_its_token_positive_ones_first(both):
    _, tokenizer = both
    before = len(letter_tokenizer())
    found = SeedText(tokenizer).ids(["iron", "tin can"], ["zinc"])
    assert found == [
        before,
        *letters("iron"),
        before,
        *letters("tin can"),
        before + 1,
        *letters("zinc"),
    ]


def test_it_follows_the_whole_input_of_a_sentence(both):
    _, tokenizer = both
    (sentence,) = MentionMasker(tokenizer, 16).encode(["so iron is"], [3], [7])
    vocabulary = letter_tokenizer().get_vocab()
    mask, end = vocabulary["[MASK]"], vocabulary["[SEP]"]
    whole = sentence.input_ids + SeedText(tokenizer).ids(["tin"])
    assert whole == [
        vocabulary["[CLS]"], *letters("so"), mask, *letters("is"), end,
        len(letter_tokenizer()), *letters("tin"),
    ]  # fmt: skip
    assert whole[sentence.mask_index] == mask


def test_whole_seeds_are_kept_of_both_kinds_in_turns(both):
    _, tokenizer = both
    text = SeedText(tokenizer, most=10)
    # Turns: "iron" (5 of 10), "zinc" (10 of 10); nothing is left for "tin".
    assert text.ids(["iron", "tin"], ["zinc"]) == SeedText(tokenizer).ids(["iron"], ["zinc"])
    # Turns: "abcdefghij" needs 11; "zinc" (5), "a" (7), "bc" (10): what fits stands in the query's order.
    assert text.ids(["abcdefghij", "a"], ["zinc", "bc"]) == SeedText(tokenizer).ids(["a"], ["zinc", "bc"])


def test_the_authors_limit_holds_and_what_fits_is_all_there(both):
    _, tokenizer = both
    names = [f"{letter}{'b' * 8}" for letter in "abcdefghijklmno"]  # 9 letters and a token each
    assert len(SeedText(tokenizer).ids(names)) == SEED_TOKENS
    assert len(SeedText(tokenizer).ids([*names, "z"], ["y"])) == SEED_TOKENS - 10 + 2 + 2


def test_a_name_that_spells_a_token_makes_none(both):
    _, tokenizer = both
    found = SeedText(tokenizer).ids(["[NEG_SEP]", "[MASK]"])
    special = [token for token in found if token in tokenizer.all_special_ids]
    assert special == [len(letter_tokenizer())] * 2


def test_new_rows_are_the_documented_means_and_others_stay(tmp_path):
    write_encoder(tmp_path)
    plain, tokenizer = TextEncoder.load(str(tmp_path)), load_tokenizer(tmp_path)
    rows = plain.model.get_input_embeddings().weight.clone()
    encoder, _ = with_seed_tokens(plain, tokenizer)
    weight = encoder.model.get_input_embeddings().weight
    end = rows[tokenizer.sep_token_id]
    expected = [(end + rows[letters(word)].mean(dim=0)) / 2 for word in ("positive", "negative")]
    torch.testing.assert_close(weight[len(rows) :], torch.stack(expected))
    torch.testing.assert_close(weight[: len(rows)], rows)
    assert not has_seed_tokens(tokenizer), "the tokenizer that was given was changed"


def test_saved_and_loaded_they_are_the_same(both, tmp_path):
    encoder, tokenizer = both
    encoder.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, loaded = with_seed_tokens(TextEncoder.load(str(tmp_path)), load_tokenizer(tmp_path))
    assert SeedText(loaded).ids(["iron"], ["tin"]) == SeedText(tokenizer).ids(["iron"], ["tin"])
    ids = torch.tensor([[2, *SeedText(loaded).ids(["iron"], ["tin"])]])
    lengths = torch.tensor([ids.shape[1]])
    torch.testing.assert_close(again.states(ids, lengths), encoder.states(ids, lengths))
    # The two parts are the whole, new rows and all.
    at_start = again.last(again.lower_states(ids, lengths), lengths, torch.tensor([0]))
    torch.testing.assert_close(at_start, again.states(ids, lengths)[:, 0])


def test_rows_beyond_the_tokens_are_used_and_never_cut(tmp_path):
    write_encoder(tmp_path)
    plain, tokenizer = TextEncoder.load(str(tmp_path)), load_tokenizer(tmp_path)
    plain.model.resize_token_embeddings(len(tokenizer) + 40, mean_resizing=False)
    encoder, _ = with_seed_tokens(TextEncoder(plain.model), tokenizer)
    assert len(encoder.model.get_input_embeddings().weight) == len(tokenizer) + 40


def test_an_encoder_without_the_tokens_is_refused():
    with pytest.raises(UserError, match=r"no tokens \[POS_SEP\].*--contrast"):
        SeedText(letter_tokenizer())


def test_a_model_without_room_for_seeds_is_refused():
    assert seed_room(512, 128, "m") == SEED_TOKENS
    assert seed_room(160, 128, "m") == 32
    with pytest.raises(UserError, match=r"m: it takes 128 tokens.*--max-length 8"):
        seed_room(128, 128, "m")
