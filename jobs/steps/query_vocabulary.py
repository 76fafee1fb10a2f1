"""Make the candidate vocabulary of queries: the entities of their classes, and hard negatives beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from engine.errors import UserError
from engine.memory import memory_limit
from engine.queries.making.definitions import FineClass
from engine.queries.making.hard_negatives import HardNegative, hard_negatives
from engine.storage.store import machine_cache
from engine.storage.workspace import Workspace
from engine.vocabulary import read_removed
from jobs import console

MEMORY_A_BYTE = 12
"""Bytes of memory for each byte of text: the texts twice, and 60 for a word, of six bytes, while the index is
made (:mod:`engine.queries.making.hard_negatives`)."""


class QueryVocabulary(NamedTuple):
    """A candidate vocabulary.

    Args:
        members: entities of the classes, ascending.
        hard_negatives: entities beside them, ascending.
        pool: how many there were to choose from.
    """

    members: list[int]
    hard_negatives: list[HardNegative]
    pool: int

    @property
    def statistics(self) -> dict[str, int]:
        """Its sizes."""
        beside = len(self.hard_negatives)
        return {
            "entities": len(self.members) + beside,
            "of_classes": len(self.members),
            "hard_negatives": beside,
            "pool": self.pool,
        }


def query_vocabulary(
    workspace: Workspace, fine: Sequence[FineClass], names: Sequence[str], number: int
) -> QueryVocabulary:
    """Return the vocabulary of some fine classes: all their entities, and those of none that are near.

    An entity's text is its name and what :func:`engine.corpus.documents.documents` joins: its description
    and its sentences. All texts are in memory (:func:`check_memory`).

    Args:
        workspace: with the corpus.
        fine: the classes that have queries.
        names: of the corpus' entities.
        number: of hard negatives for each entity of a class.

    Raises:
        UserError: every entity is of a class, or this machine's memory does not hold the texts.
    """
    there = set(range(len(names))) - set(
        read_removed(workspace.entities.local_copy(machine_cache())).tolist()
    )
    members = there & {entity for one in fine for entity in one.members}
    pool = there - members
    if not pool:
        raise UserError(
            "--hard-negatives: every entity of the corpus is of a class that queries are made of; import the "
            "corpus with entities of no class, or leave this option out"
        )
    check_memory(workspace)
    # It brings torch, which nothing else here needs.
    from engine.corpus.documents import documents

    texts = [f"{name}\n{text}" for name, text in zip(names, documents(workspace), strict=True)]
    with console.meter("entities of classes", len(members)) as meter:
        found = hard_negatives(texts, members, pool, number, meter.add)
    return QueryVocabulary(sorted(members), found, len(pool))


def check_memory(workspace: Workspace) -> None:
    """Check, before texts are read, that this machine's memory holds them and an index of their words.

    Raises:
        UserError: it does not; says how much they take.
    """
    texts = 0
    for file, column in (
        (workspace.entities, "description"),
        *((m, "sentence") for m in workspace.mentions()),
    ):
        with file.open_input() as stream:
            known = pq.read_metadata(stream)
        place = known.schema.names.index(column)
        groups = range(known.num_row_groups)
        texts += sum(known.row_group(one).column(place).total_uncompressed_size for one in groups)
    needed, there = texts * MEMORY_A_BYTE, memory_limit()
    if needed > there:
        raise UserError(
            f"--hard-negatives: the corpus has {texts / 2**30:.1f} GiB of texts; with an index of all their "
            f"words they take about {needed / 2**30:.0f} GiB of memory, and this machine has "
            f"{there / 2**30:.0f}. Run it on one with more, import a part of the corpus into a workspace of "
            "its own, or leave this option out"
        )


def vocabulary_lines(workspace: Workspace, vocabulary: QueryVocabulary) -> Iterator[str]:
    """Yield the table that `seedset import --entities` reads, JSON lines in the order of the corpus.

    A hard negative has besides ``near``, the entity of a class that it is most like, and ``bm25``, their
    score.
    """
    columns = ["name", "aliases", "description", "attributes"]
    table = pq.read_table(workspace.entities.local_copy(machine_cache()), columns=columns)
    beside = {one.entity: one for one in vocabulary.hard_negatives}
    kept = sorted({*vocabulary.members, *beside})
    names = table["name"]
    for entity, row in zip(kept, table.take(kept).to_pylist(), strict=True):
        line: dict[str, Any] = row | {"attributes": dict(row["attributes"] or ())}
        line = {name: value for name, value in line.items() if value}
        if entity in beside:
            one = beside[entity]
            line |= {"near": names[one.near].as_py(), "bm25": round(one.score, 4)}
        yield json.dumps(line, ensure_ascii=False) + "\n"
