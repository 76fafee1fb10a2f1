"""Say what linking found: for people, and a row an entity for programs."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.corpus.linking.found import Links, PartSummary
from engine.corpus.linking.lexicon import entities_of
from engine.corpus.linking.matcher import Verdict
from engine.corpus.readers.base import Entity
from engine.evaluation.report import markdown_table
from jobs.steps.link_drawing import Drawn
from jobs.steps.linking import LinkResult

SHOWN = 20
"""Rows of a table for people."""

_TITLES = {
    Verdict.AMBIGUOUS: "Ambiguous: several entities are spelt so",
    Verdict.IN_LONGER_NAME: "Inside a longer name of the table",
    Verdict.IN_UNLISTED_NAME: "Beside a capitalised word: part of a name that the table lacks",
    Verdict.IN_COMPOUND: "Joined to another word by a hyphen",
    Verdict.OTHER_CASE: "In another case than the name's",
}


@dataclass(frozen=True)
class LinkReport:
    """What was found of a table in texts.

    Args:
        found: parts and lexicon.
        drawn: mentions.
        entities: the table.
    """

    found: LinkResult
    drawn: Drawn
    entities: Sequence[Entity]

    def total(self, name: str) -> int:
        """Return the sum of a count over the parts."""
        return sum(int(getattr(part, name)) for part in self.parts)

    @property
    def parts(self) -> list[PartSummary]:
        """The summaries of all parts."""
        return list(self.found.summaries.values())

    @cached_property
    def places(self) -> dict[Verdict, Counter[int]]:
        """How often places had a verdict, by verdict and key."""
        counts = {verdict: Counter[int]() for verdict in Verdict}
        for part in self.parts:
            for verdict, found in counts.items():
                found.update(part.places.get(verdict.name.lower(), {}))
        return counts

    @cached_property
    def links(self) -> Links:
        """The links of all parts, where these mark the mentions."""
        titles = Counter[str]()
        for part in self.parts:
            titles.update(part.links.titles)
        number, elsewhere = (
            sum(getattr(part.links, name) for part in self.parts) for name in ("number", "elsewhere")
        )
        return Links(number=number, elsewhere=elsewhere, titles=dict(titles))

    def _by_entity(self, verdict: Verdict) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the same by entity, int64 [N]; of a key that several have, it counts for each."""
        found = np.zeros(len(self.entities), np.int64)
        for key, n in self.places[verdict].items():
            for entity in entities_of(self.found.lexicon.spellings[key]):
                found[entity] += n
        return found

    @property
    def reasons(self) -> Counter[str]:
        """Refused rows and sentences of the texts, by reason."""
        counts = Counter[str]()
        for part in self.parts:
            counts.update(part.reasons)
        return counts

    @property
    def never_found(self) -> int:
        """Entities without a mention."""
        return int((self.drawn.drawn == 0).sum())

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row an entity."""
        lexicon, common = self.found.lexicon, Counter[int]()
        linked = self.places[Verdict.LINKED]
        for key in self.drawn.too_common:
            for entity in entities_of(lexicon.spellings[key]):
                common[entity] += linked[key]
        others = {v.name.lower(): self._by_entity(v) for v in Verdict if v is not Verdict.LINKED}
        return [
            {
                "entity": one.name,
                "mentions": int(self.drawn.found[i]),
                "drawn": int(self.drawn.drawn[i]),
                "too_common": common[i],
                **{name: int(counts[i]) for name, counts in others.items()},
            }
            for i, one in enumerate(self.entities)
        ]

    def write_csv(self, path: Path) -> None:
        """Write a row an entity."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def markdown(self, settings: Mapping[str, Any]) -> str:
        """Return the report for people."""
        sentences, drawn = self.total("sentences"), self.drawn
        overall: list[tuple[str, int]] = [
            ("texts", self.total("texts")),
            ("sentences", sentences),
            ("sentences with a mention", self.total("sentences_with_mentions")),
            ("mentions", int(drawn.found.sum())),
            ("of these the same sentence again", drawn.duplicates),
            ("ambiguous ones given to an entity by their words", drawn.decided),
            ("drawn", drawn.mentions),
            ("rows and sentences refused", self.total("refused")),
            ("entities", len(self.entities)),
            ("entities without a mention", self.never_found),
        ]
        links = self.links
        if links.number:
            overall[3:3] = [("links", links.number), ("of these to no entity", links.elsewhere)]
        lines = ["# Linking", "", *markdown_table(["", "number"], [[a, f"{n:,}"] for a, n in overall]), ""]
        lines += ["Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".", ""]
        lines += [*self._never_found(), *self._too_common(), *self._elsewhere()]
        for verdict, title in _TITLES.items():
            lines += self._examples(verdict, title)
        return "\n".join(lines).rstrip() + "\n"

    def _never_found(self) -> list[str]:
        missing = [row for row in self.rows if not row["drawn"]]
        if not missing:
            return []
        names = [name for name in missing[0] if name not in ("entity", "mentions", "drawn")]
        missing.sort(key=lambda row: (-sum(row[name] for name in names), row["entity"]))
        rows = [[row["entity"], *(str(row[name]) for name in names)] for row in missing[:SHOWN]]
        header = ["entity", *(name.replace("_", " ") for name in names)]
        return [
            f"## Entities without a mention: {len(missing):,}",
            "",
            "And what became of the places that are spelt like them. All are in report.csv.",
            "",
            *markdown_table(header, rows),
            "",
        ]

    def _too_common(self) -> list[str]:
        linked, lexicon = self.places[Verdict.LINKED], self.found.lexicon
        keys = sorted(self.drawn.too_common, key=lambda key: -linked[key])
        if not keys:
            return []
        rows = [[lexicon.keys[key], str(linked[key])] for key in keys[:SHOWN]]
        title = f"## Ordinary words that are too common: {len(keys):,}"
        return [title, "", *markdown_table(["word", "places"], rows), ""]

    def _elsewhere(self) -> list[str]:
        links = self.links
        if not links.elsewhere:
            return []
        titles = sorted(links.titles.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]
        return [
            f"## Links to no entity of the table: {links.elsewhere:,}",
            "",
            "They are plain text. Titles of entities are their names and aliases, and those of --redirects.",
            "",
            *markdown_table(["title", "links"], [[title, str(n)] for title, n in titles]),
            "",
        ]

    def _examples(self, verdict: Verdict, title: str) -> list[str]:
        counts = self.places[verdict]
        if not counts:
            return []
        examples: dict[int, str] = {}
        for part in self.parts:
            examples = {**part.examples.get(verdict.name.lower(), {}), **examples}
        rows = [
            [self.found.lexicon.keys[key], str(n), examples.get(key, "")]
            for key, n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]
        ]
        total = f"## {title}: {counts.total():,} places"
        return [total, "", *markdown_table(["name", "places", "such as"], rows), ""]
