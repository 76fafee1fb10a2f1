"""Check and normalise text, and compare it without regard to case so that every offset is kept.

Names and sentences are stored in Unicode normal form C, so that one spelling has one form.
"""

from __future__ import annotations

import re
import unicodedata

from engine.refusals import Code, Refusal

MAX_SENTENCE_CHARACTERS = 10_000
"""Limit on the characters of a sentence; an import may set another."""

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_LAYOUT = re.compile("[\t\n\r\u2028\u2029]")
# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: a name there has no word boundaries.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)

_EMPTY = Refusal(Code.TEXT_EMPTY, "empty")


def nfc(text: str) -> str:
    """Return ``text`` in Unicode normal form C."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """Return ``text`` without case, character for character: offsets stay what they were.

    ``str.casefold`` may change the length ("ß", "İ"); here a character whose lower case is longer stays.
    """
    low = text.lower()
    if text.isascii():
        return low
    if len(low) != len(text):
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return low.replace("ς", "σ")


def is_spaceless(character: str) -> bool:
    """Return whether the character belongs to a script that is written without spaces between words."""
    return not character.isascii() and _SPACELESS.match(character) is not None


def is_mark(character: str) -> bool:
    """Return whether the character is a combining mark, which belongs to the letter before it."""
    return not character.isascii() and unicodedata.category(character)[0] == "M"


def in_word(character: str) -> bool:
    r"""Return whether the character continues a word: what ``\w`` matches, and combining marks."""
    return character.isalnum() or character == "_" or is_mark(character)


def fault_of_text(text: str, limit: int) -> Refusal | None:
    """Return why ``text`` cannot be used, or None.

    Args:
        text: a sentence or a description.
        limit: characters that it may have.
    """
    if len(text) > limit:
        return Refusal(Code.TEXT_TOO_LONG, f"longer than {limit} characters")
    if text.isprintable() and "\ufffd" not in text:
        return None if text and not text.isspace() else _EMPTY
    found = _FORBIDDEN.search(text)
    if found is None:
        return _EMPTY if text.isspace() else None
    code = ord(found.group())
    if code == 0xFFFD:
        return Refusal(Code.NOT_UTF8, "holds U+FFFD: its bytes were not valid UTF-8")
    if 0xD800 <= code <= 0xDFFF:
        return Refusal(Code.TEXT_SURROGATE, f"holds half of a surrogate pair, U+{code:04X}")
    return Refusal(Code.TEXT_CONTROL_CHARACTER, f"holds a control character, U+{code:04X}")


def fault_of_name(name: str, limit: int) -> Refusal | None:
    """Return why ``name`` cannot name an entity, or None (see :func:`fault_of_text`)."""
    fault = fault_of_text(name, limit)
    if fault is None and _LAYOUT.search(name):
        return Refusal(Code.TEXT_LINE_BREAK, "holds a tab or a line break")
    return fault
