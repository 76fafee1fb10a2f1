"""Say which languages of texts have rules of their own where sentences end.

sentencex lists no languages, and splits texts of one that it does not know by its rules of English, without
a word. Which ones it knows shows in what it does: a text full of English abbreviations is split in another
way by the rules of every other language.
"""

from __future__ import annotations

from functools import cache
from string import ascii_lowercase

import sentencex

from engine.errors import UserError, did_you_mean
from engine.text.closest import ClosestTexts

ENGLISH = "en"

_PROBE = (
    "Mr. Smith met Mrs. Jones vs. Acme Corp. Ltd. on Jan. 5. Gen. Lee saw Col. Sanders, Rep. Fox and Gov. "
    "Hill. Prof. Oak of St. Paul, Sgt. Pepper, Capt. Cook, Rev. Dodd and Hon. Mills came. He wrote cf. "
    "Ibid. No. 5 and pp. 9. approx. Two."
)
_UNKNOWN = "qqq"
"""A code that ISO 639 keeps for private use."""

_ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de "
    "dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id "
    "ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu "
    "lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu "
    "rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr "
    "ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
"""Codes of two letters that stand for a language."""
_LARGE_WIKIS = (
    "als arz ast azb bar bpy ceb ckb lmo min mzn nap nds new oci pms pnb sco scn simple szl war wuu"
)
"""Codes of other languages that have a large Wikipedia."""
_PREFIXES = frozenset(f"{_ISO_639_1} {_LARGE_WIKIS}".split())


def is_wiki_of_language(prefix: str) -> bool:
    """Return whether what stands before the colon of a wiki's link names the wiki of another language."""
    return prefix.partition("-")[0] in _PREFIXES


def has_rules(language: str) -> bool:
    """Return whether a language has rules, its own or a relative's; else those of English are taken."""
    return language.partition("-")[0] == ENGLISH or _split(language) != _split(_UNKNOWN)


def check_language(language: str) -> str:
    """Check the code of a language; return what is to be said of it, "" if nothing is.

    A language that has no rules (Swedish, ``sv``) is taken, and split as English: the marks that end a
    sentence are those of all scripts, and only abbreviations are English ones.

    Raises:
        UserError: the code is none of a language; it names the closest ones.
    """
    if has_rules(language):
        return ""
    if language in _ISO_639_1.split():
        return f"--language {language}: sentencex has no rules of this language; those of English are taken"
    known = _with_rules()
    short = language.replace("_", "-").partition("-")[0].casefold()
    near = ClosestTexts(known).closest(short, 3) if len(short) <= 3 else []  # of a word none is near
    close = [short] if short in known else [known[place] for place in near]
    raise UserError(
        f"--language {language}: no language that sentencex knows{did_you_mean(language, close)} (codes of "
        f"two small letters: {', '.join(known)}; some of three); for a language without rules give {ENGLISH}"
    )


@cache
def _split(language: str) -> tuple[str, ...]:
    return tuple(sentencex.segment(language, _PROBE))


@cache
def _with_rules() -> tuple[str, ...]:
    codes = (first + second for first in ascii_lowercase for second in ascii_lowercase)
    return tuple(code for code in codes if has_rules(code))
