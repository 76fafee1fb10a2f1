"""Tell which entity of a table the title of a wiki's page stands for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.linking.found import Links
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.markup import Link, without_entities
from engine.corpus.linking.matcher import Match, Verdict
from engine.storage.parts import content_key
from engine.text.spelling import match_key

REDIRECT_SCHEMA = pa.schema(
    [pa.field("title", pa.string(), nullable=False), pa.field("entity_id", pa.int32(), nullable=False)]
)
"""Titles of redirects to entities of a table."""


class Target(NamedTuple):
    """What a title stands for.

    Args:
        key: of the spelling in :attr:`Lexicon.keys`.
        entities: that are spelt so, ascending.
    """

    key: int
    entities: tuple[int, ...]


def title_key(title: str) -> str:
    """Return what titles of the same page have in common, as MediaWiki has it.

    The first letter is the same in either case, an underscore is a space, and the section behind ``#`` is no
    part of it. Characters may be written as ``%20`` or ``&amp;``; signs that look alike are alike.
    """
    title = without_entities(title)
    if "%" in title:
        title = unquote(title, errors="replace")
    title = match_key(title.partition("#")[0].replace("_", " ").lstrip(" :"))
    first = title[:1].upper()
    return first + title[1:] if len(first) == 1 else title


class Titles:
    """The titles that stand for entities: their names, then their aliases, then redirects.

    Args:
        lexicon: the table.
        redirects: entities by the title of a redirect, see :func:`redirects_to`.
    """

    def __init__(self, lexicon: Lexicon, redirects: Mapping[str, Sequence[int]]) -> None:
        self._targets: dict[str, Target] = {}
        names: dict[str, Target] = {}
        keys: dict[int, int] = {}
        for key, spellings in enumerate(lexicon.spellings):
            for one in spellings:
                is_name = one.text == match_key(lexicon.names[one.entity])
                _add(names if is_name else self._targets, title_key(one.text), key, one.entity)
                if is_name and redirects:
                    keys[one.entity] = key
        for title, entities in redirects.items():
            if title not in self._targets:
                self._targets[title] = Target(keys[entities[0]], tuple(sorted(entities)))
        self._targets.update(names)

    def find(self, title: str) -> Target | None:
        """Return what a title stands for; None: for no entity of the table."""
        return self._targets.get(title_key(title))

    def matches(self, links: Iterable[Link], counts: Links) -> list[Match]:
        """Return the links of a sentence that lead to entities, and count the others."""
        found = []
        for start, end, title in links:
            counts.number += 1
            if target := self.find(title):
                verdict = Verdict.LINKED if len(target.entities) == 1 else Verdict.AMBIGUOUS
                found.append(Match(start, end, target.key, target.entities, verdict))
            else:
                counts.add_elsewhere(title_key(title))
        return found


def _add(targets: dict[str, Target], title: str, key: int, entity: int) -> None:
    known = targets.get(title)
    if known is None:
        targets[title] = Target(key, (entity,))
    elif entity not in known.entities:
        targets[title] = Target(known.key, tuple(sorted((*known.entities, entity))))


def redirects_to(pairs: Iterable[tuple[str, str]], lexicon: Lexicon) -> dict[str, list[int]]:
    """Return the entities of a table by the title of each redirect to one; what leads elsewhere is left out.

    A redirect to a redirect leads nowhere, as in MediaWiki.

    Args:
        pairs: the title of a redirect, and the one that it leads to.
        lexicon: the table.
    """
    titles = Titles(lexicon, {})
    found: dict[str, list[int]] = {}
    for title, target in pairs:
        meant = titles.find(target)
        known = found.setdefault(title_key(title), []) if meant else []
        known += [one for one in (meant.entities if meant else ()) if one not in known]
    return found


def write_redirects(path: Path, redirects: Mapping[str, Sequence[int]]) -> str:
    """Write redirects as Parquet (:data:`REDIRECT_SCHEMA`); return what changes with them."""
    rows = [(title, entity) for title in sorted(redirects) for entity in redirects[title]]
    columns = zip(*rows, strict=True) if rows else ([], [])
    arrays = [pa.array(one, field.type) for one, field in zip(columns, REDIRECT_SCHEMA, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=REDIRECT_SCHEMA), path)
    return content_key(json.dumps(rows))


def read_redirects(path: Path) -> dict[str, list[int]]:
    """Return the redirects that :func:`write_redirects` wrote."""
    found: dict[str, list[int]] = {}
    for batch in pq.ParquetFile(path).iter_batches():
        for title, entity in zip(*batch.to_pydict().values(), strict=True):
            found.setdefault(title, []).append(entity)
    return found
