"""Find where a sentence mentions its entity: one span of characters, or a refusal that gives the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from engine.errors import QueryError
from engine.query import NewEntity
from engine.refusals import Code, Refusal
from engine.text.spelling import difference, fold, match_key, near_miss, skeleton, squeeze
from engine.text.words import in_word, is_mark, is_spaceless, is_whole, mentions_in

EXACT, FOLDED, ALIAS, SUBSTRING, GIVEN = "exact", "other case", "alias", "inside a word", "given"
OTHER_SIGNS, NO_SENTENCE = "other signs", "an image alone"
HOWS = (EXACT, FOLDED, ALIAS, SUBSTRING, OTHER_SIGNS, GIVEN, NO_SENTENCE)
"""Ways in which a mention is found, most trusted first; the manifest counts them."""

Span = tuple[int, int, str]
Rule = Literal["best", "first"]
"""Rules by which one of several places is the mention (:class:`MentionFinder`)."""

VERSION = 2
"""Version of the rules by which mentions are found. In the first the name's place was the mention also inside
a longer alias."""

_Longer = dict[tuple[int, int], frozenset[str]]

_NOT_FOUND = Refusal(Code.MENTION_NOT_FOUND, "does not hold its entity's name")
_FIRST_MARK = "\u0300"
_WORDS = re.compile(r"\w+|[^\w ]")
_SPACELESS_REACH = 32
"""Longest name, in characters, of which all parts are looked up in scripts without spaces."""


class MentionFinder:
    """A finder of an entity's mention in a sentence.

    In this order: the name as a whole word, the same in any case, an alias as a whole word (likewise), the
    name anywhere, an alias anywhere; then all this again with look-alike signs made plain and invisible ones
    passed over (:func:`engine.text.spelling.squeeze`). A place inside a longer name of the vocabulary
    ("Guinea" in "Guinea-Bissau") is no mention, with whatever signs the longer one is spelt. Where the place
    is inside a longer spelling of the same entity ("the Republic of Guinea"), that whole one is the mention.

    That is ours, the rule "best". RetExpan's program, the rule "first", takes the first place where the name
    stands as a whole word in any case, else the first where it stands at all, also inside a longer name, and
    knows no aliases; where it finds nothing, the search goes on as above.

    Args:
        names: of the entities.
        aliases: of each entity.
        rule: which of several places is the mention.
        version: of the rules, :data:`VERSION` or an earlier one, which a corpus began with.
    """

    def __init__(
        self,
        names: Sequence[str],
        aliases: Sequence[Sequence[str]],
        rule: Rule = "best",
        version: int = VERSION,
    ) -> None:
        self._names, self._aliases, self._rule = names, aliases, rule
        self._longer = _longer_names(names, aliases)
        self._longest = version >= 2
        self._within_alias = {
            i
            for i, own in enumerate(aliases)
            if self._longest and any(fold(match_key(names[i])) in fold(match_key(alias)) for alias in own)
        }

    def find(self, entity_id: int, sentence: str) -> Span | Refusal:
        """Return (start, end, how) of the mention, end exclusive, or why there is none."""
        name = self._names[entity_id]
        if self._rule == "first" and (span := first_mention(name, sentence)):
            return span
        at = sentence.find(name)
        end = at + len(name)
        whole = at >= 0 and is_whole(sentence, at, end)
        alone = entity_id not in self._within_alias
        if whole and alone and (name not in self._longer or not self._around(name, _Text(sentence), at)):
            return at, end, EXACT
        text = _Text(sentence)
        found = self._search(name, self._aliases[entity_id], text)
        if isinstance(found, Refusal):
            found = self._search_plain(entity_id, text) or found
        return self._not_found(entity_id, sentence) if found is _NOT_FOUND else found

    def _search_plain(self, entity_id: int, text: _Text) -> Span | Refusal | None:
        """Search with plain signs; None where that finds no more."""
        name, aliases = self._names[entity_id], self._aliases[entity_id]
        plain_name, *plain_aliases = map(match_key, (name, *aliases))
        if text.squeezed is None and (plain_name, *plain_aliases) == (name, *aliases):
            return None
        plain = _Text(text.squeezed.text) if text.squeezed else text
        found = self._search(plain_name, plain_aliases, plain, (name, *aliases))
        if isinstance(found, Refusal):
            return None if found is _NOT_FOUND else found
        start, end, _ = found
        return *(text.squeezed.span(start, end) if text.squeezed else (start, end)), OTHER_SIGNS

    def _not_found(self, entity_id: int, sentence: str) -> Refusal:
        """Return the refusal, with what in the sentence looks like the name."""
        spellings = (self._names[entity_id], *self._aliases[entity_id])
        missed = next(filter(None, (near_miss(spelling, sentence) for spelling in spellings)), "")
        return Refusal(Code.MENTION_NOT_FOUND, "; ".join(filter(None, (_NOT_FOUND.detail, missed))))

    def _around(self, spelling: str, text: _Text, start: int) -> str:
        """Return the longer name of another entity around a place of a spelling; empty if there is none."""
        longer = self._longer.get(spelling)
        if longer is None:
            return ""
        if text.squeezed is None:
            return _inside(longer, text.given, text.folded, start)
        plain = text.squeezed.text
        return _inside(longer, plain, fold(plain), text.squeezed.place(start))

    def _search(
        self, name: str, aliases: Sequence[str], text: _Text, stored: Sequence[str] = ()
    ) -> Span | Refusal:
        """Search a text for spellings; ``stored`` are those that the longer ones are known of."""
        sentence, folded = text.given, text.folded
        tries = [(name, sentence, True, EXACT), (fold(name), folded, True, FOLDED)]
        for alias in aliases:
            tries += [(alias, sentence, True, ALIAS), (fold(alias), folded, True, ALIAS)]
        tries += [(name, sentence, False, SUBSTRING), (fold(name), folded, False, SUBSTRING)]
        tries += [(alias, sentence, False, SUBSTRING) for alias in aliases]
        own, *others = stored or (name, *aliases)
        spellings = [own, own, *(a for a in others for _ in range(2)), own, own, *others]
        inside = ""
        for (wanted, where, whole, how), spelling in zip(tries, spellings, strict=True):
            for start in _places(wanted, where):
                end = start + len(wanted)
                if whole and not is_whole(sentence, start, end):
                    continue
                if end < len(sentence) and is_mark(sentence[end]):
                    continue
                within = self._around(spelling, text, start)
                if not within:
                    held = sentence[start:end]
                    if whole and (wider := self._wider(name, aliases, text, start, end, stored)):
                        return *wider, ALIAS
                    other = how is FOLDED and held.casefold() != name.casefold()
                    return start, end, OTHER_SIGNS if other else how
                inside = inside or within
        if inside:
            return Refusal(Code.MENTION_IN_LONGER_NAME, f"occurs only inside the longer name {inside!r}")
        return _NOT_FOUND

    def _wider(
        self,
        name: str,
        aliases: Sequence[str],
        text: _Text,
        start: int,
        end: int,
        stored: Sequence[str],
    ) -> tuple[int, int] | None:
        """Return the place of the entity's longest spelling around a place of one, as whole words, if any."""
        if not self._longest:
            return None
        sentence, folded, held = text.given, text.folded, text.folded[start:end]
        own = zip((name, *aliases), stored or (name, *aliases), strict=True)
        longer = [(fold(one), known) for one, known in own if len(one) > len(held)]
        for wanted, known in sorted(longer, key=lambda one: -len(one[0])):
            for at in _places(wanted, folded[: start + len(wanted)], max(0, end - len(wanted))):
                last = at + len(wanted)
                if last < end or not is_whole(sentence, at, last):
                    continue
                if not (last < len(sentence) and is_mark(sentence[last])) and not self._around(
                    known, text, at
                ):
                    return at, last
        return None

    def check(self, entity_id: int, sentence: str, start: int, end: int) -> Span | Refusal:
        """Return the given offsets if they hold the name or an alias in any case, with look-alike signs."""
        if fault := _fault_of_span(sentence, start, end):
            return fault
        held = sentence[start:end]
        folded = fold(held)
        spellings = (self._names[entity_id], *self._aliases[entity_id])
        if any(folded == fold(s) for s in spellings):
            return start, end, GIVEN
        key, cut = fold(match_key(held)), held[0].isspace() or held[-1].isspace()
        if not cut and key in (fold(match_key(s)) for s in spellings):
            return start, end, GIVEN
        reason = f"start {start} and end {end} hold {held[:80]!r}, neither the name nor an alias"
        alike = next((s for s in spellings if skeleton(s).casefold() == skeleton(key).casefold()), None)
        return Refusal(Code.SPAN_MISMATCH, reason + (f" ({difference(held, alike)})" if alike else ""))

    def narrow(self, entity_id: int, sentence: str, start: int, end: int) -> Span | Refusal:
        """Return the place of the name or an alias, in any case, inside a span that people marked.

        As a whole word if there is one ("Affenpinscher" in "Affenpinscher's"), else anywhere, and of several
        the longest: of "the Republic of Guinea" the alias, not the name inside it. Where none is inside, the
        whole span: the sentence may call the entity by another name. Only a span that does not exist is
        refused.
        """
        if fault := _fault_of_span(sentence, start, end):
            return fault
        folded = fold(sentence[:end])
        spellings = [fold(s) for s in (self._names[entity_id], *self._aliases[entity_id])]
        spellings.sort(key=len, reverse=True)
        for whole in (True, False):
            for spelling in spellings:
                for at in _places(spelling, folded, start):
                    last = at + len(spelling)
                    if whole and not is_whole(sentence, at, last):
                        continue
                    if last == len(sentence) or not is_mark(sentence[last]):
                        return at, last, GIVEN
        within = mentions_in(sentence[start:end], [self._names[entity_id], *self._aliases[entity_id]])
        if within:
            first, last = max(within, key=lambda place: place[1] - place[0])
            return start + first, start + last, GIVEN
        return start, end, GIVEN


def first_mention(name: str, sentence: str) -> Span | None:
    """Return the first place of a name in any case, as a whole word, else anywhere; None if there is none."""
    spelt = re.escape(name)
    found = re.search(rf"\b{spelt}\b", sentence, re.IGNORECASE)
    whole = found is not None
    found = found or re.search(spelt, sentence, re.IGNORECASE)
    if found is None:
        return None
    return *found.span(), (EXACT if found.group() == name else FOLDED) if whole else SUBSTRING


def mentions_of_new(entity: NewEntity, where: str) -> list[Span]:
    """Return where each of its sentences mentions an entity that the vocabulary does not hold.

    Args:
        entity: with its sentences.
        where: the query, for what is said of a mistake.

    Raises:
        QueryError: a sentence does not mention it.
    """
    finder = MentionFinder([entity.name], [[]])
    spans = []
    for number, sentence in enumerate(entity.sentences, 1):
        span = finder.find(0, sentence)
        if isinstance(span, Refusal):
            raise QueryError(
                f"{where}: sentence {number} of the new entity {entity.name!r} {span}; give sentences in "
                "which the name stands as it is given"
            )
        spans.append(span)
    return spans


class _Text:
    """A text to search: as it is given, folded, and squeezed if need be."""

    def __init__(self, given: str) -> None:
        self.given, self.folded, self.squeezed = given, fold(given), squeeze(given)


def _fault_of_span(sentence: str, start: int, end: int) -> Refusal | None:
    if not 0 <= start < end <= len(sentence):
        reason = f"start {start} and end {end} are no span of its {len(sentence)} characters"
        return Refusal(Code.SPAN_OUT_OF_RANGE, reason)
    if sentence[start:end].isspace():
        return Refusal(Code.SPAN_BLANK, f"start {start} and end {end} hold no text")
    return None


def _places(wanted: str, text: str, start: int = 0) -> Iterator[int]:
    at = text.find(wanted, start)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def _inside(longer: _Longer, sentence: str, folded: str, start: int) -> str:
    """Return the longer name around the place, as it stands in the sentence; empty if there is none."""
    for (offset, length), spellings in longer.items():
        first, last = start - offset, start - offset + length
        if first < 0 or folded[first:last] not in spellings:
            continue
        whole = is_whole(sentence, first, last)
        if whole or is_spaceless(sentence[last - 1]) or is_spaceless(sentence[first]):
            return sentence[first:last]
    return ""


def _longer_names(names: Sequence[str], aliases: Sequence[Sequence[str]]) -> dict[str, _Longer]:
    """Return, for each spelling inside other entities' longer ones, these by (offset, length), case folded.

    Every part of every spelling between two word boundaries is looked up among the spellings: the time is
    linear in the number of spellings for names of bounded length.
    """
    stored = [(s, i) for i, name in enumerate(names) for s in (name, *aliases[i])]
    spellings = [(match_key(spelling), owner) for spelling, owner in stored]
    known: dict[str, list[tuple[str, int]]] = {}
    for (plain, owner), (spelling, _) in zip(spellings, stored, strict=True):
        known.setdefault(fold(plain), []).append((spelling, owner))
    longest = max(map(len, known), default=0)
    found: dict[str, dict[tuple[int, int], set[str]]] = {}
    for spelling, owner in spellings:
        folded = fold(spelling)
        for start, end in _parts(spelling, longest):
            for short, short_owner in known.get(folded[start:end], ()):
                if short_owner != owner:
                    places = found.setdefault(short, {})
                    places.setdefault((start, len(spelling)), set()).add(folded)
    return {s: {k: frozenset(v) for k, v in places.items()} for s, places in found.items()}


def _parts(name: str, longest: int) -> Iterator[tuple[int, int]]:
    """Yield the proper parts of a name that begin and end at word boundaries."""
    size = len(name)
    if max(name, default="") < _FIRST_MARK:  # most names: no combining marks, no script without spaces
        if name.isalnum():
            return
        words = [m.span() for m in _WORDS.finditer(name)]
        starts, ends = [a for a, _ in words], [b for _, b in words]
    else:
        loose = size <= _SPACELESS_REACH and any(map(is_spaceless, name))
        starts = [0, *(i for i in range(1, size) if loose or not in_word(name[i - 1]))]
        ends = [*(j for j in range(1, size) if loose or not in_word(name[j])), size]
    for start in starts:
        for end in ends:
            if start < end <= start + longest and end - start < size:
                yield start, end
