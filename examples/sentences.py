"""Writes the sentences of an entity from its facts and the phrasings of its class.

The choice is deterministic: every entity has its own random stream, seeded by its name, and
phrasings that were used least so far come first, so no single wording dominates the corpus.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from string import Formatter

from examples.tables import Row, Table, load_table

SEED = 20240229
MIN_WORDS = 6
MAX_WORDS = 45


@dataclass(frozen=True)
class Sentence:
    """One sentence and the place where it names its entity (end exclusive)."""

    entity: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Phrasing:
    """What a phrase module offers, bound to names and types in one place."""

    kinds: Mapping[str, Sequence[str]]
    plan: Mapping[str, int]
    description: str
    slots: Callable[[Row, Table], dict[str, str]]


def load_phrasing(cls: str) -> Phrasing:
    """The phrase module of a class."""
    module = import_module(f"examples.phrases.{cls}")
    return Phrasing(module.KINDS, module.PLAN, module.DESCRIPTION, module.slots)


def needed_slots(template: str) -> set[str]:
    """The names of the slots in a template."""
    return {field for _, field, _, _ in Formatter().parse(template) if field}


def fill(template: str, slots: Mapping[str, str]) -> str:
    """The template with its slots filled, a capital letter at its head and one full stop."""
    text = template.format(**slots).replace("..", ".")
    return text[0].upper() + text[1:]


def find_mention(name: str, text: str) -> tuple[int, int] | None:
    """Where the name stands as a whole word; None unless it stands there exactly once."""
    hits = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    return hits[0] if len(hits) == 1 else None


def full_slots(cls: str, row: Row) -> dict[str, str]:
    """All words that can fill a template for this entity; unknown facts have no slot."""
    slots = {k: v for k, v in load_phrasing(cls).slots(row, load_table(cls)).items() if v}
    for column in ("note", "note2"):
        if row.get(column):
            slots[column] = row[column].format(**slots)
    return slots


def describe(cls: str, row: Row) -> str:
    """One sentence that says what the entity is."""
    return fill(load_phrasing(cls).description, full_slots(cls, row))


class Writer:
    """Writes the sentences of one class, keeping count of the phrasings it has used."""

    def __init__(self, cls: str) -> None:
        self.cls = cls
        self.phrasing = load_phrasing(cls)
        self.used: Counter[str] = Counter()
        self.seen: set[str] = set()

    def templates(self, kind: str, row: Row) -> list[str]:
        """General phrasings of a kind plus those for this entity's own value of it."""
        kinds = self.phrasing.kinds
        own = kinds.get(f"{kind}={row.get(kind, '')}", ())
        return [*kinds.get(kind, ()), *own]

    def accept(self, name: str, text: str) -> Sentence | None:
        """The sentence if it is usable: new, of fair length, naming its entity once."""
        span = find_mention(name, text)
        if span is None or text in self.seen or not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            return None
        self.seen.add(text)
        return Sentence(name, text, *span)

    def write(self, row: Row) -> list[Sentence]:
        """All sentences of one entity, in a shuffled order."""
        rng = random.Random(f"{SEED}:{self.cls}:{row['name']}")
        slots = full_slots(self.cls, row)
        found: list[Sentence] = []
        for kind, wanted in self.phrasing.plan.items():
            usable = [t for t in self.templates(kind, row) if needed_slots(t) <= slots.keys()]
            usable = [t for _, _, t in sorted((self.used[t], rng.random(), t) for t in usable)]
            taken = 0
            for template in usable:
                if taken == wanted:
                    break
                sentence = self.accept(row["name"], fill(template, slots))
                if sentence is not None:
                    self.used[template] += 1
                    found.append(sentence)
                    taken += 1
        rng.shuffle(found)
        return found


def write_class(cls: str) -> list[Sentence]:
    """The sentences of all entities of a class."""
    writer = Writer(cls)
    return [sentence for row in load_table(cls).values() for sentence in writer.write(row)]
