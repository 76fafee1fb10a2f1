import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.text.words import is_whole, mentions_in, words_of


@pytest.mark.parametrize(
    ("text", "names", "held"),
    [
        ("Iron, IRON and irony: iron-clad iron.", ["iron"], ["Iron", "IRON", "iron", "iron"]),
        ("The City of York and York.", ["York", "City of York"], ["City of York", "York"]),
        ("東嶺是一个港口城市。", ["東嶺"], ["東嶺"]),
        ("人口は東京が最多。東京都", ["東京"], ["東京", "東京"]),
        ("iPhone手机", ["iPhone"], ["iPhone"]),
        # A run of katakana is a word: "Thai" is a part of "tyre" and "style".
        ("タイはタイヤでもスタイルでもない", ["タイ"], ["タイ"]),
        ("เรือไปเมืองเหนือในฤดู", ["เมืองเหนือ"], ["เมืองเหนือ"]),
        ("น้ำ นำ", ["น"], []),  # the vowel sign belongs to the letter
        ("ວຽງຈັນເປັນເມືອງ", ["ວຽງຈັນ"], ["ວຽງຈັນ"]),
        ("ភ្នំពេញជាទីក្រុង", ["ភ្នំពេញ"], ["ភ្នំពេញ"]),
        ("कमला और कमल", ["कमल"], ["कमल"]),
        ("दिल्ली के महापौर", ["दिल्ल"], []),
        ("서울은 크다. 신서울은 작다.", ["서울"], ["서울"]),
        ("کتاب‌خانه و کتاب", ["کتاب"], ["کتاب"]),  # the joiner inside a word ends none
        ("x\u0332 and x", ["x"], ["x"]),
        ("The bay, New\u00a0Haven  Bay’s", ["New Haven Bay"], ["New\u00a0Haven  Bay"]),
        ("Har\u00adbour", ["Har"], []),
        ("Har\u00adbour", ["Harbour", "", "\u200b"], ["Har\u00adbour"]),
    ],
)
def test_where_names_are_mentioned(text: str, names: list[str], held: list[str]) -> None:
    assert [text[start:end] for start, end in mentions_in(text, names)] == held


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Iron is 9 of the café’s don't.", ["iron", "is", "of", "the", "café", "don"]),
        ("दिल्ली समुद्र के", ["दिल्ली", "समुद्र", "के"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("港口城市。中", ["港口", "口城", "城市", "中"]),
        ("東京タワーは2020年", ["東京", "タワー", "は", "2020", "年"]),
        ("เมืองดี", ["เมือ", "มือง", "องดี"]),
        ("\u0e01\u0e32", ["\u0e01\u0e32"]),  # too short to be cut
        ("ﾀﾜｰ ＡＢＣ", ["タワー", "abc"]),
        ("Har\u00adbour co\u200bop", ["harbour", "co", "op"]),
        ("किताब‌घर", ["किताबघर"]),
        ("x̄y!", ["x̄y"]),
        ("", []),
    ],
)
def test_words_in_every_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text(st.characters(max_codepoint=0x24F, exclude_characters="\u00ad"), max_size=40))
def test_words_of_european_texts_are_those_of_scikit_learn(text: str) -> None:
    assert words_of(text) == re.findall(r"(?u)\b\w\w+\b", text.lower()) or "\u0307" in text.lower()


@given(st.text(max_size=20), st.text(max_size=20))
@example("maˌməntʃɪˈsɔːrəs", "石")
@example("reserve&dash;which", "石")
@example("ΟΔΟΣ", "İİab")
def test_words_turn_on_no_other_text_beside_them(first: str, second: str) -> None:
    assert words_of(f"{first} {second}") == words_of(first) + words_of(second)


def test_invisible_signs_end_no_word_but_a_zero_width_space_does() -> None:
    assert not is_whole("iron\u2060clad", 0, 4)
    assert is_whole("iron\u200bclad", 0, 4)
    assert is_whole("iron\u00adclad", 0, 9)
