from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from engine.corpus.inputs.masking import MentionMasker, fingerprint, load_tokenizer
from engine.errors import UserError
from engine.models.hub import embedded_model_path


@pytest.fixture(scope="module")
def bert() -> PreTrainedTokenizerBase:
    return load_tokenizer(embedded_model_path())


@pytest.fixture(scope="module")
def roberta() -> PreTrainedTokenizerBase:
    """A small byte-level BPE tokenizer whose mask token takes in the space before it, as RoBERTa's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["The bar of iron is heavy, and the iron bar rusts."] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return request.getfixturevalue(request.param)


def whole(tokenizer: PreTrainedTokenizerBase, sentence: str, start: int, end: int) -> list[int]:
    """The ids of the masked sentence tokenised in one piece, between the special tokens."""
    masked = f"{sentence[:start]}{tokenizer.mask_token}{sentence[end:]}"
    ids: list[int] = tokenizer(masked, add_special_tokens=False)["input_ids"]
    return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("The bar of iron is heavy.", "iron"),
        ("iron is heavy.", "iron"),
        ("He took the iron", "iron"),
        ("iron", "iron"),
        ("The (iron) bar, the iron's rust.", "iron"),
        ("Café über alles: naïve 北京 bar.", "北京"),
    ],
)
def test_both_sides_apart_are_the_sentence_in_one_piece(
    tokenizer: PreTrainedTokenizerBase, sentence: str, name: str
) -> None:
    start = sentence.index(name)
    [got] = MentionMasker(tokenizer, 128).encode([sentence], [start], [start + len(name)])
    assert got.input_ids == whole(tokenizer, sentence, start, start + len(name))
    assert got.input_ids[got.mask_index] == tokenizer.mask_token_id
    assert not got.clipped


def test_special_tokens_in_the_text_are_text(tokenizer: PreTrainedTokenizerBase) -> None:
    specials = f"{tokenizer.mask_token} {tokenizer.sep_token}{tokenizer.cls_token}"
    sentence = f"{specials} says iron, {specials}"
    start = sentence.index("iron")
    masker = MentionMasker(tokenizer, 200)
    about = masker.tokens([f"A metal {specials}"])
    [got] = masker.encode([sentence], [start], [start + 4], about)
    for token in (tokenizer.mask_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id):
        assert got.input_ids.count(token) == 1
    assert got.input_ids.index(tokenizer.mask_token_id) == got.mask_index


def test_the_window_is_centred_and_moves_at_the_ends(bert: PreTrainedTokenizerBase) -> None:
    words = [f"w{i}" for i in "abcdefghijklmnopqrstuvwxyz"]
    masker = MentionMasker(bert, 12)

    def window(place: int) -> str:
        text = [*words[:place], "iron", *words[place + 1 :]]
        start = len(" ".join([*text[:place], ""]))
        [got] = masker.encode([" ".join(text)], [start], [start + 4])
        assert len(got.input_ids) == 12
        assert got.clipped
        return " ".join(bert.convert_ids_to_tokens(got.input_ids[1:-1])).replace(" ##", "")

    tokens = [len(bert(w, add_special_tokens=False)["input_ids"]) for w in words]
    assert window(0).startswith("[MASK] wb")
    assert window(25).endswith("wy [MASK]")
    middle = window(13).split("[MASK]")
    assert all(middle)
    assert set(tokens) <= {1, 2}


def test_descriptions_leave_half_of_the_room(bert: PreTrainedTokenizerBase) -> None:
    masker = MentionMasker(bert, 22)
    about = masker.tokens(["metal " * 50, "metal " * 4, ""])
    long, short = "and " * 30 + "iron" + " and" * 30, "an iron bar"
    place = long.index("iron")

    def shape(sentence: str, start: int, description: list[int]) -> tuple[int, int, bool]:
        [got] = masker.encode([sentence], [start], [start + 4], [description])
        told = sum(i == about[0][0] for i in got.input_ids)
        return told, len(got.input_ids) - 2 - told, got.clipped

    assert shape(long, place, about[0]) == (10, 10, True)
    assert shape(long, place, about[1]) == (4, 16, True)
    assert shape(long, place, about[2]) == (0, 20, True)
    assert shape(short, 3, about[0]) == (17, 3, True)
    assert shape(short, 3, about[1]) == (4, 3, False)


WORDS = st.lists(st.sampled_from(["iron", "bar", "irony", "of", "unhappiness,", "the"]), max_size=40)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS, WORDS, WORDS, st.integers(6, 60))
def test_retrieval_augmented_input_is_that_of_the_authors(
    bert: PreTrainedTokenizerBase, about: list[str], left: list[str], right: list[str], limit: int
) -> None:
    """Description, a space, the sentence with one mention masked, in one piece; too long: around the mask."""
    description, before = " ".join(about), "".join(f"{word} " for word in left)
    sentence = f"{before}Iron {' '.join(right)}"
    masked = f"{description} {before}{bert.mask_token} {' '.join(right)}"
    ids = bert(masked)["input_ids"]
    if len(ids) > limit:
        first = max(0, ids.index(bert.mask_token_id) - limit // 2)
        last = min(len(ids), first + limit)
        ids = ids[max(0, last - limit) : last]
    masker = MentionMasker(bert, limit, "input")
    place = len(before)
    [got] = masker.encode([sentence], [place], [place + 4], masker.tokens([description]))
    assert got.input_ids == ids
    assert got.mask_index == ids.index(bert.mask_token_id)
    assert got.clipped == (len(bert(masked)["input_ids"]) > limit)
    # The other window is the same input wherever nothing is cut.
    [ours] = MentionMasker(bert, limit).encode([sentence], [place], [place + 4], masker.tokens([description]))
    assert ours.clipped == got.clipped
    assert ours.clipped or ours == got


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=40), st.integers(4, 24))
def test_the_mask_is_always_inside(
    tokenizer: PreTrainedTokenizerBase, left: str, right: str, about: str, limit: int
) -> None:
    masker = MentionMasker(tokenizer, limit)
    [tokens] = masker.tokens([about])
    [got] = masker.encode([f"{left}iron{right}"], [len(left)], [len(left) + 4], [tokens])
    assert len(got.input_ids) <= limit
    assert got.input_ids.count(tokenizer.mask_token_id) == 1
    assert got.input_ids[got.mask_index] == tokenizer.mask_token_id
    assert (got.input_ids[0], got.input_ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if got.clipped:
        assert len(got.input_ids) == limit  # the room is used before anything is cut


def test_nothing_to_encode(bert: PreTrainedTokenizerBase) -> None:
    assert MentionMasker(bert, 16).encode([], [], []) == []


def test_fingerprints_tell_tokenizers_apart(roberta: PreTrainedTokenizerBase) -> None:
    first, again = (load_tokenizer(embedded_model_path()) for _ in range(2))
    assert fingerprint(first) == fingerprint(again) != fingerprint(roberta)


def test_models_without_what_is_needed(tmp_path: Path, roberta: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="no tokenizer can be loaded from it"):
        load_tokenizer(tmp_path)
    core = Tokenizer(models.BPE({"a": 0}, []))
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>").save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="no mask token"):
        load_tokenizer(tmp_path)
    roberta.save_pretrained(tmp_path / "whole")
    assert fingerprint(load_tokenizer(tmp_path / "whole")) == fingerprint(roberta)
    with pytest.raises(UserError, match="a limit of 3 tokens"):
        MentionMasker(roberta, 3)
    with pytest.raises(UserError, match="a limit of 513 tokens: the model takes 512 at most"):
        MentionMasker(load_tokenizer(embedded_model_path()), 513)


def test_a_description_does_not_tell_the_name(bert: PreTrainedTokenizerBase) -> None:
    masker = MentionMasker(bert, 64)
    texts = ["Iron (Fe) is a metal; IRON rusts, irony does not.", "A C++ book.", "", "No name."]
    spellings = [["iron", "Fe"], ["C++", ""], ["x"], []]
    found = [bert.decode(ids) for ids in masker.encode_descriptions(texts, spellings)]
    assert found == [
        "[MASK] ( [MASK] ) is a metal ; [MASK] rusts, irony does not.",
        "a [MASK] book.",
        "",
        "no name.",
    ]


def test_no_sentence_is_the_mask_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    [alone] = MentionMasker(tokenizer, 16).encode([""], [0], [0])
    ends = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert alone == ([ends[0], tokenizer.mask_token_id, ends[1]], 1, False)


def test_the_own_name_in_a_description_is_masked_in_every_script(bert: PreTrainedTokenizerBase) -> None:
    texts = ["東嶺是港口。", "कमला कमल है", "New\u00a0Haven Bay is new."]
    found = MentionMasker(bert, 64).encode_descriptions(texts, [["東嶺"], ["कमल"], ["New Haven Bay"]])
    assert [ids.count(bert.mask_token_id) for ids in found] == [1, 1, 1]
