"""The model's input: the question behind the mention, twins, and what is cut where."""

from __future__ import annotations

import pytest

from engine.errors import UserError
from engine.typing import inputs
from engine.typing.inputs import InputMaker
from engine.typing.mentions import Mention
from tests.support.encoders import letter_tokenizer

TOKENIZER = letter_tokenizer()


def shown(ids: list[int]) -> str:
    return " ".join(TOKENIZER.convert_ids_to_tokens(ids)).replace(" ##", "")


def test_the_question_stands_behind_the_mention() -> None:
    maker = InputMaker(TOKENIZER)
    (parts,) = maker.tokens([Mention("a bc", "de", "f g")])
    typed = maker.assemble(parts)
    assert shown(typed.ids) == "[CLS] a bc [ de ] ( Type : [MASK] ) f g [SEP]"
    assert typed.ids[typed.mask_index] == TOKENIZER.mask_token_id
    assert shown([typed.ids[place] for place in typed.text_places]) == "a bc de f g"
    left, right = maker.assemble(parts, "Left"), maker.assemble(parts, "Right")
    assert shown(left.ids) == "[CLS] a bc [ de ] ( Left : [MASK] ) f g [SEP]"
    assert shown(right.ids) == "[CLS] a bc [ de ] ( Right : [MASK] ) f g [SEP]"
    assert parts.left_word is not None
    assert parts.right_word is not None
    assert TOKENIZER.convert_ids_to_tokens([parts.left_word, parts.right_word]) == ["##c", "f"]


def test_a_text_that_spells_the_mask_makes_none() -> None:
    maker = InputMaker(TOKENIZER)
    typed = maker.assemble(maker.tokens([Mention("x [MASK] y", "m", "[SEP]")])[0])
    assert typed.ids.count(TOKENIZER.mask_token_id) == 1
    assert typed.ids.count(TOKENIZER.sep_token_id) == 1


def test_mentions_that_are_tokenised_in_turns_have_the_tokens_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker = InputMaker(TOKENIZER)
    mentions = [Mention("a b"[:n], "c d e", "f" * n) for n in range(5)]
    whole = maker.tokens(mentions)
    monkeypatch.setattr(inputs, "AT_ONCE", 2)
    assert maker.tokens(mentions) == whole
    assert len(whole) == len(mentions)
    assert maker.tokens([]) == []


def tokens_of(left: int, mention: int, right: int, limit: int) -> tuple[int, int, int, str]:
    """Return how many tokens of each part are kept of texts of single letters, and the left one."""
    text = "abcdefghijklmnopqrstuvwxyz"
    given = Mention(" ".join(text[:left]), " ".join("m" * mention), " ".join("r" * right))
    maker = InputMaker(TOKENIZER, limit)
    (parts,) = maker.tokens([given])
    for slot in ("Type", "Left", "Right"):
        assert len(maker.assemble(parts, slot).ids) <= limit
    return len(parts.left), len(parts.mention), len(parts.right), shown(parts.left.tolist())


def test_the_right_context_is_cut_first_then_the_far_end_of_the_left_one() -> None:
    # Tokens of one letter: begin, end, "[", "]", "(", "R i g h t", ":", mask, ")" are 13.
    room = 12
    assert tokens_of(3, 2, 7, room + 13) == (3, 2, 7, "a b c")
    assert tokens_of(3, 2, 9, room + 13) == (3, 2, 7, "a b c")
    assert tokens_of(10, 2, 9, room + 13) == (10, 2, 0, "a b c d e f g h i j")
    assert tokens_of(14, 2, 9, room + 13) == (10, 2, 0, "e f g h i j k l m n")
    assert tokens_of(14, 20, 9, room + 13) == (0, 12, 0, "")


def test_a_limit_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="--max-tokens 13: the question takes 13 tokens by itself; give 14"):
        InputMaker(TOKENIZER, 13)
