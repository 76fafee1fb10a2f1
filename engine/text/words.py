"""Find words in every script: where one may end, and which a text has.

After Unicode's rules for word boundaries (UAX #29): marks belong to the letter before them, and what is
invisible ends no word. Where a script is written without spaces these rules end a word after every sign, and
so do we: what is a word there takes a dictionary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex

from engine.text.spelling import fold, is_blank, match_key, squeeze

# Line breaks of the class SA need a dictionary: Thai, Lao, Khmer, Burmese and their neighbours.
_COMPLEX = r"\p{Line_Break=SA}"
# Katakana is written without spaces too, but a run of it is a word of its own.
_SIGNS = r"\p{Han}\p{Hiragana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}"
_KATAKANA = r"\p{Katakana}\u30fc"

_IS_SPACELESS = regex.compile(f"[{_COMPLEX}{_SIGNS}{_KATAKANA}]")
_IS_KATAKANA = regex.compile(f"[{_KATAKANA}]")
_IS_HANGUL = regex.compile(r"\p{Hangul}")
_MARKS_OF_LETTERS = "\u0e33\u0eb3"
"""Vowel signs of Thai and Lao that are letters by their category, and part of the sign before them."""

_PLAIN_WORDS = re.compile(r"\b\w\w+\b")
# European letters and punctuation: the standard library's words are the same there, in a fourth of the time.
# Left out are signs that :func:`squeeze` writes in another way, or that may begin what it does: else a text's
# words would turn on a letter elsewhere in it.
_NOT_PLAIN = re.compile(
    r"[^\0-%'-\u00ac\u00ae-\u012f\u0131-\u02b8\u02ba\u02be-\u02c7\u02c9-\u02e9\u02ec-\u02ff\u0370-\u0482"
    r"\u048a-\u052f\u1e00-\u1fff\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u22ff]"
)
_WORDS = regex.compile(
    rf"(?V1)(?P<signs>[{_SIGNS}][{_SIGNS}\p{{M}}]*)|(?P<complex>[{_COMPLEX}][{_COMPLEX}\p{{M}}]*)"
    rf"|[{_KATAKANA}]{{2,}}"
    # What \w is in the standard library, and marks; a letter alone is no word, as in scikit-learn.
    rf"|[[\p{{L}}\p{{N}}_]--[{_COMPLEX}{_SIGNS}{_KATAKANA}]][[\p{{L}}\p{{N}}\p{{M}}_]--[{_COMPLEX}{_SIGNS}{_KATAKANA}]]+"
)
_PLAIN_TOKENS = re.compile(r"\w+|[^\w\s]")
_TOKENS = regex.compile(
    rf"(?V1)[{_SIGNS}{_COMPLEX}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}_]--[{_SIGNS}{_COMPLEX}]]+|[^\p{{Z}}\s]"
)
_CLUSTERS = regex.compile(rf"[^\p{{M}}{_MARKS_OF_LETTERS}]?[\p{{M}}{_MARKS_OF_LETTERS}]*")

SIGNS_A_WORD, LETTERS_A_WORD = 2, 3
"""Signs of a piece that stands for a word where none are parted: most Chinese words have two, and two letters
of an alphabet say little."""


def is_spaceless(character: str) -> bool:
    """Return whether the character belongs to a script that is written without spaces between words."""
    return not character.isascii() and _IS_SPACELESS.match(character) is not None


def is_mark(character: str) -> bool:
    """Return whether the character is a combining mark, which belongs to the letter before it."""
    return not character.isascii() and (
        unicodedata.category(character)[0] == "M" or character in _MARKS_OF_LETTERS
    )


def in_word(character: str) -> bool:
    r"""Return whether the character continues a word: what ``\w`` matches, and combining marks."""
    return character.isalnum() or character == "_" or (not character.isascii() and is_mark(character))


def is_whole(text: str, start: int, end: int) -> bool:
    """Return whether neither neighbour of a span continues a word; signs that are invisible are none."""
    # Nearly always spaces or ASCII punctuation, so that is looked at first.
    before, after = text[start - 1] if start else " ", text[end] if end < len(text) else " "
    if in_word(before) or in_word(after):
        return False
    if before.isascii() and after.isascii():
        return True
    before, after = _neighbours(text, start, end)
    return not in_word(before) and not in_word(after)


def is_parted(text: str, start: int, end: int) -> bool:
    """Return whether words may end on both sides of a span, in scripts without spaces too."""
    before, after = _neighbours(text, start, end)
    return not _joined(before, text[start]) and not _joined(text[end - 1], after, suffix=True)


def mentions_in(text: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return where a text mentions one of some names, in any case and with look-alike signs.

    Of places that overlap the first counts, and of those that begin together the longest. A part of a longer
    word is no mention; in scripts without spaces every whole sign may be one.
    """
    squeezed = squeeze(text)
    plain = squeezed.text if squeezed else text
    folded = fold(plain)
    found = []
    for wanted in {fold(match_key(name)) for name in names if not is_blank(name)}:
        at = folded.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            if is_parted(plain, at, end):
                found.append((at, -end))
            at = folded.find(wanted, at + 1)
    kept: list[tuple[int, int]] = []
    for start, minus_end in sorted(found):
        if not kept or start >= kept[-1][1]:
            kept.append((start, -minus_end))
    return [squeezed.span(*span) for span in kept] if squeezed else kept


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, those of one letter left out.

    Where words are not parted, pieces stand for them: every :data:`SIGNS_A_WORD` neighbouring signs of
    Chinese and Japanese, every :data:`LETTERS_A_WORD` letters, with their marks, of Thai, Lao, Khmer and
    Burmese.
    """
    if _NOT_PLAIN.search(text) is None:
        return _PLAIN_WORDS.findall(text.lower())
    text = text.replace("\u200b", " ").lower()  # a zero width space parts words where no other does
    squeezed = squeeze(text)
    found = []
    for word in _WORDS.finditer(squeezed.text if squeezed else text):
        if word.lastgroup is None:
            found.append(word.group())
        else:
            size = SIGNS_A_WORD if word.lastgroup == "signs" else LETTERS_A_WORD
            found += _pieces(word.group(), size)
    return found


def tokens_of(text: str) -> list[str]:
    """Return a text's words and the signs between them (punctuation), in order and in lower case.

    A word of one letter is one too. Where words are not parted, every sign with its marks is a token.
    """
    if _NOT_PLAIN.search(text) is None:
        return _PLAIN_TOKENS.findall(text.lower())
    text = text.replace("\u200b", " ").lower()
    squeezed = squeeze(text)
    found: list[str] = _TOKENS.findall(squeezed.text if squeezed else text)
    return found


def _pieces(run: str, size: int) -> list[str]:
    """Return all pieces of ``size`` neighbouring signs of a run, or the run, where it has no more."""
    signs = [sign for sign in _CLUSTERS.findall(run) if sign]
    return ["".join(signs[at : at + size]) for at in range(max(1, len(signs) - size + 1))]


def _neighbours(text: str, start: int, end: int) -> tuple[str, str]:
    """Return the characters beside a span; a space at an end of the text. Invisible ones are passed over."""
    before, after = start - 1, end
    while before >= 0 and _is_passed_over(text[before]):
        before -= 1
    while after < len(text) and _is_passed_over(text[after]):
        after += 1
    return text[before] if before >= 0 else " ", text[after] if after < len(text) else " "


def _is_passed_over(character: str) -> bool:
    # A zero width space says that a word ends, which is all that it is for.
    if character.isascii() or character == "\u200b":
        return False
    return is_blank(character) and not character.isspace()


def _joined(first: str, second: str, suffix: bool = False) -> bool:
    """Return whether no word can end between two neighbouring characters.

    Args:
        first: a character.
        second: the one after it.
        suffix: whether a word before may have particles after it without a space, as in Korean.
    """
    if is_mark(second):
        return True
    if not (in_word(first) and in_word(second)):
        return False
    if first.isascii() and second.isascii():
        return True
    if _IS_KATAKANA.match(first) and _IS_KATAKANA.match(second):
        return True
    if suffix and _IS_HANGUL.match(first) and _IS_HANGUL.match(second):
        return False
    return not (is_spaceless(first) or is_spaceless(second))
