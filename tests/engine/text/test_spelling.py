import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from engine.text import spelling
from engine.text.spelling import (
    SpellingTable,
    clean_name,
    difference,
    fold,
    is_blank,
    look_key,
    match_key,
    near_miss,
    nfc,
    squeeze,
    tell_apart,
)


@pytest.mark.parametrize(
    ("given_as", "stored"),
    [
        ("New Haven", "New Haven"),
        ("  New \u00a0\u2003Haven\u3000", "New Haven"),
        ("\ufeffSoft Har\u00adbour\u200b\u200e", "Soft Harbour"),
        ("Cafe\u0301", "Café"),
        ("Foo\u200d", "Foo"),
        ("O’Tool–Ｒock", "O’Tool–Ｒock"),  # visible signs are the source's
        ("کتاب\u200cخانه", "کتاب\u200cخانه"),
        ("അവന്\u200d", "അവന്\u200d"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("a\tb", "a\tb"),  # refused afterwards, by name
        *(
            (blank, "")
            for blank in ("", " ", "\u200b", "\u00a0\u2060", "\u3164", "\u2800", "\ufe0f", "\u00ad\u200d")
        ),
    ],
)
def test_names_as_they_are_stored(given_as: str, stored: str) -> None:
    assert clean_name(given_as) == stored
    assert clean_name(stored) == stored
    assert is_blank(given_as) == (stored == "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("New Haven", "New\u202fHaven"),
        ("New Haven", "New\n \u200bHaven"),
        ("O'Tool", "O\u2019Tool"),
        ("O'Tool", "O&#8217;Tool"),
        ("Saint-Lune", "Saint\u2011Lune"),
        ("Saint-Lune", "Saint\u2212Lune"),
        ("Harbour", "Har&shy;bour"),
        ("Harbour", "\u202bHar\u2063bour\u202c"),
        ("ABC 12", "ＡＢＣ　１２"),
        ("ガラス", "ｶﾞﾗｽ"),
        ("office", "o\ufb03ce"),
        ("AT&T", "AT&amp;T"),
        ("AT&T", "AT&amp;amp;T"),
        ("a < b", "a&nbsp;&lt;&nbsp;b"),
        ('"Heroes"', "“Heroes”"),
        ("Café", "Cafe\u200b\u0301"),
        ("Tom...", "Tom…"),
        ("ジャン·リュック", "ジャン・リュック"),
        ("ジャン·リュック", "ｼﾞｬﾝ･ﾘｭｯｸ"),
        ("کتابخانه", "کتاب\u200cخانه"),
    ],
)
def test_look_alike_spellings_have_one_key(one: str, other: str) -> None:
    assert match_key(one) == match_key(other) == one
    assert look_key(one.upper()) == look_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("Malmö", "Malmo"), ("m²", "m2"), ("Camp", "\u0421amp"), ("A&B;", "AB"), ("a b", "ab")]
)
def test_other_letters_are_other_spellings(one: str, other: str) -> None:
    assert look_key(one) != look_key(other)


@given(st.text(max_size=30), st.data())
def test_keys_are_their_own_and_places_are_kept(text: str, data: st.DataObject) -> None:
    text = nfc(text)
    assert len(fold(text)) == len(text)
    squeezed = squeeze(text)
    if squeezed is None:
        assert match_key(text) == text.strip()
        return
    assert len(squeezed.text) == len(squeezed.starts) == len(squeezed.ends)
    if squeezed.text:
        start = data.draw(st.integers(0, len(squeezed.text) - 1))
        first, last = squeezed.span(start, start + 1)
        assert 0 <= first < last <= len(text)
        assert squeezed.starts == sorted(squeezed.starts)


signs = st.sampled_from(
    ["a", "B", "é", " ", "\u00a0", "-", "\u2013", "'", "\u2019", "\u200b", "\u00ad", "中", "&amp;"]
)


@given(st.lists(signs, max_size=12).map("".join))
def test_cleaning_changes_no_key(text: str) -> None:
    assert match_key(clean_name(text)) == match_key(text)
    assert match_key(match_key(text)) == match_key(text)


def test_what_is_invisible_is_what_unicode_says() -> None:
    ignorable = regex.compile(r"[\p{Default_Ignorable_Code_Point}\u2800]")
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    ours = spelling._SPECIAL
    for sign in filter(ignorable.match, every):
        assert unicodedata.category(sign) == "Cn" or (ours.match(sign) and is_blank(sign)), hex(ord(sign))


def test_spellings_lead_to_one_thing_or_none() -> None:
    known: SpellingTable[int] = SpellingTable()
    for name, value in (("Saint-Lune", 0), ("Saint–Lune", 1), ("O’Tool", 2), ("iron", 3)):
        known.add(name, value)
    known.add("iron", 9)
    assert [known.find(name) for name in ("Saint-Lune", "Saint–Lune", "O'Tool", "iron")] == [0, 1, 2, 3]
    assert known.find("Saint\u2010Lune") is None
    assert known.alike("Saint\u2010Lune") == ["Saint-Lune", "Saint–Lune"]
    assert known.find("Iron") is None
    assert ("iron" in known, len(known)) == (True, 4)


def test_the_sign_that_makes_the_difference_is_named() -> None:
    assert difference("New\u00a0Haven", "New Haven") == "U+00A0 at 3 in place of U+0020"
    assert difference("Har\u00adbour", "Harbour") == "U+00AD at 3"
    assert difference("Harbour", "Har\u00adbour") == "without U+00AD at 3"
    assert difference("a-b-c-d-e", "a–b–c–d–e").endswith("U+002D at 5 in place of U+2013 and 1 more")
    assert tell_apart("Iran", ["Iraq", "Iran"]) == ["'Iraq'", "'Iran'"]
    assert tell_apart("\u0421amp", ["Camp"]) == ["'Camp' (given: U+0421 at 0 in place of U+0043)"]
    told = tell_apart("Saint-Lun", ["Saint-Lune", "Saint–Lune"])
    assert told == [
        "'Saint-Lune' (U+002D at 5 in place of U+2013)",
        "'Saint–Lune' (U+2013 at 5 in place of U+002D)",
    ]


def test_a_near_miss_is_told() -> None:
    assert near_miss("Malmö", "In MALMO they") == "it holds 'MALMO' with U+004F at 4 in place of U+00F6"
    assert near_miss("Malmo", "In Malmö’s") == "it holds 'Malmö' with U+00F6 at 4 in place of U+006F"
    assert near_miss("Camp", "The \u0421amp is") == "it holds '\u0421amp' with U+0421 at 0 in place of U+0043"
    assert near_miss("Camp", "nothing of it – at all") == ""
