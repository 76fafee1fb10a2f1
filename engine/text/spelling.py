"""Normalise spellings: what is stored, what is looked up, and what is searched, by one set of rules.

=============  ======================================================================================
``nfc``        sentences and descriptions as they are stored: composed, nothing else is changed
``clean_name`` names as they are stored: composed, one plain space between words, no invisible signs
``match_key``  what two spellings have in common that differ only in look-alike signs
``look_key``   the same without case: what a look-up goes by where the exact spelling is unknown
``fold``       a text for searching, without case, character for character
``squeeze``    the same for signs that are not one for one, with the places in the text as it was
=============  ======================================================================================

Look-alike signs are spaces of every width, hyphens and dashes, apostrophes and quotation marks, full and
half width forms, ligatures, and HTML's entities (``&amp;``). Invisible ones (soft hyphen, zero width space,
marks of direction, byte order mark) are passed over. Joiners and variation selectors spell words in Persian,
Indic scripts and emoji: they are stored, and passed over in comparisons. Letters with other accents,
superscripts and letters of another script are other letters.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

import regex

T = TypeVar("T")

_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_BREAKS = "\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029"
# Braille's blank is no ignorable code point and no space, and as little to be seen as either.
# (Written out, since the standard library's searches are several times as fast as those by a property.)
_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_JOINERS = "\u200c\u200d"
_SELECTORS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef"
)

_VISIBLE = re.compile(rf"[^\s{_UNSEEN}]")
_REMOVED = regex.compile(
    rf"(?V1)[[{_UNSEEN}]--[{_JOINERS}{_SELECTORS}]]+"
    # No letter of these scripts is joined to the next: a joiner there came with copying.
    rf"|(?<=^|[\p{{Latin}}\p{{Greek}}\p{{Cyrillic}}\p{{Han}}\p{{Hiragana}}\p{{Katakana}}\p{{Hangul}}\p{{Nd}}\p{{P}}\s])"
    rf"[{_JOINERS}]+|(?<=^|\s)[{_SELECTORS}]+"
)
_UNCLEAN = re.compile(rf"[{_UNSEEN}{_SPACES}]|  ")
_UNSEEN_RUN = re.compile(f"[{_UNSEEN}]+")
_SPACE_RUN = re.compile(rf"[ {_SPACES}]+")
_COMPATIBLE = "\u2025\u2026\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufdff\ufe70-\ufefc\uff01-\uffee"
_SPECIAL = re.compile(
    r"&(?:amp;)*(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
    rf"|[ {_SPACES}{_BREAKS}][ {_SPACES}{_BREAKS}{_UNSEEN}]+"
    # What stands between a letter and its accent keeps them from being composed.
    rf"|\w[{_UNSEEN}]+[\u0300-\u036f]+|[{_UNSEEN}]+"
    # A half width kana and its voicing are one sign in full width.
    rf"|[\uff66-\uff9d][\uff9e\uff9f]|[{_COMPATIBLE}]"
)

_ALIKE: dict[int, str] = {
    **dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([9, 10, 11, 12, 13, 0x85, 0x2028, 0x2029], " "),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2043, 0x2212, 0x2D7, 0xFE58, 0xFE63], "-"),
    **dict.fromkeys([0x60, 0xB4, 0x2B9, 0x2BB, 0x2BC, 0x2BD, 0x2C8, 0x55A, 0xA78C], "'"),
    **dict.fromkeys([0x2018, 0x2019, 0x201B, 0x2032, 0x2035], "'"),
    **dict.fromkeys([0x201C, 0x201D, 0x201E, 0x201F, 0x2033, 0x2036], '"'),
    **dict.fromkeys([0x2044, 0x2215], "/"),
    **dict.fromkeys([0x2022, 0x2027, 0x2219, 0x22C5, 0x30FB], "·"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
}
_ALIKE[0xFF40] = "'"
_ALIKE_SIGN = re.compile("[" + "".join(map(chr, sorted(_ALIKE))) + "]")

# Letters of other scripts, and Arabic ones, that cannot be told apart in most fonts.
_TWINS = str.maketrans(
    "АВСЕНІЈКМОРЅТХУЗасеіјорѕхуһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧοανιρυكيى",
    "ABCEHIJKMOPSTXY3aceijopsxyhdqwABEZHIKMNOPTYXoavipuکیی",
    "\u0640",
)


_MAY_BE_SPECIAL = re.compile("[&" + "".join(map(chr, sorted(_ALIKE))) + _UNSEEN + _COMPATIBLE + "]")


def nfc(text: str) -> str:
    """Return ``text`` in Unicode normal form C."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)


def is_blank(text: str) -> bool:
    """Return whether a text has no visible sign."""
    first = text[:1]
    return not (first.isascii() and first.isalnum()) and _VISIBLE.search(text) is None


def clean_name(text: str) -> str:
    """Return a name as it is stored (see the module); tabs and line breaks inside stay, to be refused."""
    text = text.strip()
    if text.isascii():
        return _SPACE_RUN.sub(" ", text) if "  " in text else text
    text = nfc(text)
    if _UNCLEAN.search(text) is None:
        return text
    return "" if is_blank(text) else _SPACE_RUN.sub(" ", _REMOVED.sub("", text)).strip()


def fold(text: str) -> str:
    """Return ``text`` without case and with plain signs for look-alike ones, character for character.

    Offsets stay what they were: ``str.casefold`` may change the length ("ß", "İ"); here a character whose
    lower case is longer stays.
    """
    low = text.lower()
    if text.isascii():
        return low
    if len(low) != len(text):
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return _with_plain_signs(low.replace("ς", "σ"))


class Squeezed(NamedTuple):
    """A text with plain signs only, and the places of each of its characters in the text as it was."""

    text: str
    starts: list[int]
    ends: list[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where characters [start, end) stand in the text as it was."""
        return self.starts[start], self.ends[end - 1]

    def place(self, at: int) -> int:
        """Return where a character of the text as it was stands here."""
        return max(0, bisect_right(self.starts, at) - 1)


def squeeze(text: str) -> Squeezed | None:
    """Return a text with plain signs only; None where :func:`fold` does as well, which is nearly always.

    White space becomes one space, invisible signs go, entities and ligatures are written out.
    """
    if "  " not in text and _MAY_BE_SPECIAL.search(text) is None:
        return None
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    last = 0
    for found in _SPECIAL.finditer(text):
        plain = _plain(found.group())
        if plain == found.group():
            continue
        begin, end = found.span()
        pieces += text[last:begin], plain
        starts += [*range(last, begin), *([begin] * len(plain))]
        ends += [*range(last + 1, begin + 1), *([end] * len(plain))]
        last = end
    if not pieces and _ALIKE_SIGN.search(text) is None:
        return None
    pieces.append(text[last:])
    starts += range(last, len(text))
    ends += range(last + 1, len(text) + 1)
    return Squeezed(_with_plain_signs("".join(pieces)), starts, ends)


def _with_plain_signs(text: str) -> str:
    return text if _ALIKE_SIGN.search(text) is None else text.translate(_ALIKE)


def _plain(sign: str) -> str:
    """Return what stands for a sign, or a run of signs, that :data:`_SPECIAL` finds."""
    if sign[0] == "&":
        while (plain := html.unescape(sign)) != sign:
            sign = plain
        return _SPECIAL.sub(lambda found: _plain(found.group()), sign) if sign[:1] != "&" else sign
    if sign[0] == " " or sign[0].isspace():
        return " "
    return _with_plain_signs(unicodedata.normalize("NFKC", _UNSEEN_RUN.sub("", sign)))


def match_key(text: str) -> str:
    """Return what a spelling has in common with others that differ only in look-alike signs."""
    text = nfc(text)
    squeezed = squeeze(text)
    return nfc(squeezed.text.strip()) if squeezed else text.strip()


def look_key(text: str) -> str:
    """Return the :func:`match_key` of a spelling without regard to case."""
    return match_key(text).casefold()


class SpellingTable(Generic[T]):
    """What belongs to each of many spellings: by the exact one, else by one that differs in look-alike signs.

    Costs no more memory than a dictionary for names that have plain signs only.
    """

    def __init__(self, values: Mapping[str, T] | None = None) -> None:
        self._exact: dict[str, T] = {}
        self._keyed: dict[str, list[str]] = {}
        for spelling, value in (values or {}).items():
            self.add(spelling, value)

    def __contains__(self, spelling: str) -> bool:
        return spelling in self._exact

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, spelling: str, value: T) -> None:
        """Take a spelling; one that is there already keeps its value."""
        if spelling in self._exact:
            return
        self._exact[spelling] = value
        if (key := match_key(spelling)) != spelling:
            self._keyed.setdefault(key, []).append(spelling)

    def spelt(self, given: str) -> str | None:
        """Return the spelling that is meant; None where there is none, or several that look alike."""
        if given in self._exact:
            return given
        alike = self.alike(given)
        return alike[0] if len(alike) == 1 else None

    def find(self, given: str) -> T | None:
        """Return what belongs to the spelling that is meant (:meth:`spelt`)."""
        value = self._exact.get(given)
        if value is not None:
            return value
        spelt = self.spelt(given)
        return None if spelt is None else self._exact[spelt]

    def alike(self, given: str) -> list[str]:
        """Return the spellings that differ from the given one in look-alike signs at most."""
        key = match_key(given)
        return [*([key] if key in self._exact else []), *self._keyed.get(key, [])]


def skeleton(text: str) -> str:
    """Return a text such that two that cannot be told apart by eye have the same, also across scripts."""
    return match_key(text).translate(_TWINS)


def difference(given: str, meant: str, most: int = 3) -> str:
    """Return in which signs a spelling differs from another: code points, and places in the given one.

    Args:
        given: the one at hand.
        meant: the one that it is compared with.
        most: differences that are named.
    """
    from difflib import SequenceMatcher

    told: list[str] = []
    for kind, a, b, c, d in SequenceMatcher(None, given, meant, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        if kind == "insert":
            told.append(f"without {_codes(meant[c:d])} at {a}")
        else:
            told.append(
                f"{_codes(given[a:b])} at {a}" + (f" in place of {_codes(meant[c:d])}" if c < d else "")
            )
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return ", ".join(told[:most]) + more


def tell_apart(given: str, suggestions: list[str]) -> list[str]:
    """Return suggestions in quotes; where one looks like what was given, or like another, with the sign."""
    shapes = [skeleton(one) for one in (given, *suggestions)]
    told = []
    for place, one in enumerate(suggestions, 1):
        twins = [other for other, shape in enumerate(shapes) if shape == shapes[place] and other != place]
        if not twins or given == one:
            told.append(repr(one))
        elif twins[0] == 0:
            told.append(f"{one!r} (given: {difference(given, one)})")
        else:
            told.append(f"{one!r} ({difference(one, suggestions[twins[0] - 1])})")
    return told


def near_miss(name: str, text: str) -> str:
    """Return how a text spells a name that it does not hold; "" where nothing in it looks like the name.

    Accents, case, look-alike letters of other scripts are passed over: what is left is no mention, but tells
    what to look at.
    """
    bare, places = _bare(text)
    wanted, _ = _bare(match_key(name))
    at = bare.find(wanted) if wanted.strip() else -1
    if at < 0:
        return ""
    start, end = places[at], places[at + len(wanted) - 1] + 1
    while end < len(text) and unicodedata.category(text[end]) == "Mn":
        end += 1
    held = text[start:end]
    if len(held) == len(name):  # case is no difference
        name = "".join(h if fold(h) == fold(n) else n for h, n in zip(held, name, strict=True))
    told = difference(held, name)
    return f"it holds {held!r} with {told}" if told else ""


def _bare(text: str) -> tuple[str, list[int]]:
    """Return the skeleton of a text without case and accents, and each character's place in the text."""
    if text.isascii():
        return text.lower(), list(range(len(text)))
    found: list[str] = []
    places: list[int] = []
    for place, sign in enumerate(text):
        plain = _plain(sign) if _SPECIAL.match(sign) else sign.translate(_ALIKE)
        plain = unicodedata.normalize("NFD", plain).translate(_TWINS).casefold()
        kept = [c for c in plain if unicodedata.category(c) != "Mn"]
        found += kept
        places += [place] * len(kept)
    return "".join(found), places


def _codes(signs: str) -> str:
    """Return the code points of a few signs."""
    shown = " ".join(f"U+{ord(sign):04X}" for sign in signs[:4])
    return shown if len(signs) <= 4 else f"{shown} …"
