"""Define what is found in one part of the texts: mentions, and what became of every other place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from engine.corpus.drawing import draw_of
from engine.corpus.linking.matcher import Match, Verdict
from engine.corpus.linking.rules import Ambiguous
from engine.corpus.readers.base import RefusedRecord

FOUND_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("key", pa.int32(), nullable=False),
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("draw", pa.uint64(), nullable=False),
        pa.field("document", pa.string(), nullable=False),
        pa.field("candidates", pa.list_(pa.int32())),
    ]
)
"""A row a mention. ``candidates`` are the entities of an ambiguous one, whose ``entity_id`` is -1; ``draw``:
:func:`mention_draw`."""

UNDECIDED = -1
"""The entity of an ambiguous mention."""

EXAMPLES = 1000
"""Names of each verdict of which a part keeps an example."""

AROUND = 50
"""Characters on either side of a place that an example shows."""


def mention_draw(name: str, sentence: str, start: int, each_place: bool) -> int:
    """Return the number by which a mention is drawn (:func:`engine.corpus.drawing.draw_of`).

    Args:
        name: of the entity.
        sentence: that mentions it.
        start: of the mention.
        each_place: another place of the sentence is another mention.
    """
    return draw_of(name, sentence, str(start)) if each_place else draw_of(name, sentence)


class Links(BaseModel):
    """The links of texts in which these mark mentions."""

    number: int = 0
    elsewhere: int = 0
    """Links that lead to no entity of the table."""
    titles: dict[str, int] = {}
    """Of these by title, the first :data:`EXAMPLES` titles of a part."""

    def add_elsewhere(self, title: str) -> None:
        """Count a link that leads to no entity."""
        self.elsewhere += 1
        if title in self.titles or len(self.titles) < EXAMPLES:
            self.titles[title] = self.titles.get(title, 0) + 1


class PartSummary(BaseModel):
    """What is known of a part beside its mentions."""

    texts: int = 0
    sentences: int = 0
    sentences_with_mentions: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}
    """Refusals by reason."""
    places: dict[str, dict[int, int]] = {}
    """Places by verdict (its name in lower case) and key."""
    examples: dict[str, dict[int, str]] = {}
    """A place with the text around it, by verdict and key, of some keys."""
    links: Links = Links()


def _excerpt(sentence: str, start: int, end: int) -> str:
    before = "…" if start > AROUND else ""
    after = "…" if end + AROUND < len(sentence) else ""
    around = sentence[max(0, start - AROUND) : start], sentence[end : end + AROUND]
    return f"{before}{around[0]}[{sentence[start:end]}]{around[1]}{after}"


class PartCollector:
    """A collector of what is found in the sentences of a part.

    Args:
        names: of the entities.
        ambiguous: what becomes of ambiguous places; "nearest" keeps them, to be decided later.
        each_place: of an entity that a sentence mentions twice, each place is a mention; else the first.
    """

    def __init__(
        self, names: Sequence[str], ambiguous: Ambiguous = "refuse", each_place: bool = False
    ) -> None:
        self._names, self._ambiguous, self._each_place = names, ambiguous, each_place
        self._rows: list[tuple[Any, ...]] = []
        self._sentences = self._with_mentions = 0
        self._places = [Counter[int]() for _ in Verdict]
        self._examples: list[dict[int, str]] = [{} for _ in Verdict]
        self.summary = PartSummary()

    def add(self, sentence: str, matches: list[Match], document: str) -> None:
        """Add what was found in a sentence."""
        mentioned: set[int] = set()
        self._sentences += 1
        for match in matches:
            self._places[match.verdict][match.key] += 1
            examples = self._examples[match.verdict]
            if match.verdict is not Verdict.LINKED and len(examples) < EXAMPLES:
                examples.setdefault(match.key, _excerpt(sentence, match.start, match.end))
            is_ambiguous = match.verdict is Verdict.AMBIGUOUS
            if match.verdict is Verdict.LINKED or (is_ambiguous and self._ambiguous == "all"):
                for entity in match.entities:
                    if self._each_place or entity not in mentioned:
                        mentioned.add(entity)
                        draw = mention_draw(self._names[entity], sentence, match.start, self._each_place)
                        self._row(match, entity, draw, sentence, document)
            elif is_ambiguous and self._ambiguous == "nearest":
                self._row(match, UNDECIDED, 0, sentence, document)
        self._with_mentions += bool(mentioned)

    def _row(self, match: Match, entity: int, draw: int, sentence: str, document: str) -> None:
        candidates = list(match.entities) if entity == UNDECIDED else None
        self._rows.append((entity, match.key, sentence, match.start, match.end, draw, document, candidates))

    @property
    def rows(self) -> int:
        """How many mentions it holds."""
        return len(self._rows)

    def take(self) -> pa.Table:
        """Return the mentions, and hold them no more."""
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in FOUND_SCHEMA)
        self._rows = []
        arrays = [pa.array(one, field.type) for one, field in zip(columns, FOUND_SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=FOUND_SCHEMA)

    def refuse(self, record: RefusedRecord) -> None:
        """Count a refused record."""
        code = record.refusal.code.value
        self.summary.refused += 1
        self.summary.reasons[code] = self.summary.reasons.get(code, 0) + 1

    def finished(self) -> PartSummary:
        """Return the summary, with the places."""
        self.summary.sentences, self.summary.sentences_with_mentions = self._sentences, self._with_mentions
        for verdict in Verdict:
            name = verdict.name.lower()
            self.summary.places[name] = dict(self._places[verdict])
            self.summary.examples[name] = self._examples[verdict]
        return self.summary
