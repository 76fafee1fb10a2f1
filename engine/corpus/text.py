"""Check texts: what cannot be stored as a name, a sentence or a description, and why.

How they are normalised is in :mod:`engine.text.spelling`.
"""

from __future__ import annotations

import re

from engine.refusals import Code, Refusal
from engine.text.spelling import is_blank

MAX_SENTENCE_CHARACTERS = 10_000
"""Limit on the characters of a sentence; an import may set another."""

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_LAYOUT = re.compile("[\t\n\r\u2028\u2029]")

_EMPTY = Refusal(Code.TEXT_EMPTY, "empty")


def fault_of_text(text: str, limit: int) -> Refusal | None:
    """Return why ``text`` cannot be used, or None.

    Args:
        text: a sentence or a description.
        limit: characters that it may have.
    """
    if len(text) > limit:
        return Refusal(Code.TEXT_TOO_LONG, f"longer than {limit} characters")
    if text.isprintable() and "\ufffd" not in text:
        return _EMPTY if is_blank(text) else None
    found = _FORBIDDEN.search(text)
    if found is None:
        return _EMPTY if is_blank(text) else None
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
