"""Write the sets that a batch expansion found as files, one a query."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from engine.catalogue.entities import Catalogue
from engine.catalogue.opening import open_catalogue
from engine.errors import QueryError, StorageError, UserError
from engine.queries.set_formats import Format, Member, SetName, check_base_iri, ending, written
from engine.queries.stored import StoredResults, WrittenAnswer
from engine.stages.membership import PROBABILITY, PROPOSED
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary

LONGEST_NAME = 150
"""Characters of a file's name: a longer one ends in a digest of the query's id."""


@dataclass(frozen=True)
class SetExport:
    """What is to be written.

    Attributes:
        format: of the files.
        query: the one whose set is wanted; None: all.
        proposed: only what the method proposes as the set.
        label: name of the sets; "": the query's id.
        base_iri: address below which SKOS names entities.
        bundle: the one that the answers are of; None: as the answers say.
    """

    format: Format
    query: str | None = None
    proposed: bool = False
    label: str = ""
    base_iri: str = ""
    bundle: str | None = None


@dataclass
class SetCounts:
    """Counts of what was written, and the first note of what an answer lacks."""

    sets: int = 0
    entities: int = 0
    empty: int = 0
    degraded: int = 0
    first_note: str = ""


def export_sets(
    workspace: Workspace, answers: Store, output: Store, asked: SetExport, overwrite: bool
) -> SetCounts:
    """Write a file for each query into a folder; one set is in memory at a time.

    Raises:
        FormatError: ``answers`` is no finished output of a batch expansion.
        StorageError: a file is there, and is not to be replaced.
        UserError: the answers are of another bundle, have no such query, or propose no set.
    """
    if asked.format == "skos":
        check_base_iri(asked.base_iri)
    stored = StoredResults.open(answers)
    if asked.bundle not in (None, stored.run.bundle):
        raise UserError(f"{answers.uri}: answers of the bundle {stored.run.bundle}, not of {asked.bundle}")
    bundle = Bundle.open(workspace, stored.run.bundle)
    vocabulary, catalogue, counts = bundle.vocabulary, open_catalogue(bundle), SetCounts()
    for answer in stored.answers(PROBABILITY):
        if asked.query in (None, answer.query_id):
            members = list(_members(answer, asked, vocabulary, catalogue))
            file = output / file_name(answer.query_id, asked.format)
            if not overwrite and file.exists():
                raise StorageError(f"{file.uri}: is there already; give --overwrite, or another --output")
            name = SetName(asked.label or answer.query_id, asked.base_iri)
            file.write_bytes(written(asked.format, members, name))
            _count(counts, answer, len(members))
    if not counts.sets:
        raise QueryError(f"{answers.uri}: no query has the id {asked.query!r}")
    return counts


def file_name(query_id: str, kind: Format) -> str:
    """Return the name of a query's file: no two queries share one, and none leads elsewhere."""
    name = quote(query_id, safe=" ", errors="replace")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(query_id.encode("utf-8", "replace")).hexdigest()[:16]
        name = f"{name[: LONGEST_NAME - 17]}-{digest}"
    return f"{name}{ending(kind)}"


def _members(
    answer: WrittenAnswer, asked: SetExport, vocabulary: Vocabulary, catalogue: Catalogue
) -> Iterator[Member]:
    """Yield the entities of an answer, or what is proposed of it."""
    if asked.proposed and answer.names and PROPOSED not in answer.counts:
        raise UserError(
            f"--proposed: the answer to {answer.query_id!r} proposes no set; expand by `default`, or "
            "leave it out"
        )
    wanted = answer.counts.get(PROPOSED, 0) if asked.proposed else len(answer.names)
    rows = zip(answer.names, answer.scores, answer.evidence, strict=True)
    for place, (name, score, probability) in enumerate(rows):
        if place == wanted:
            return
        entity = vocabulary.resolve(name)
        yield Member(
            name,
            vocabulary.aliases[entity],
            catalogue.description(entity),
            catalogue.attributes_of(entity),
            place + 1,
            _shown(score),
            None if probability is None else _shown(probability),
        )


def _shown(value: float) -> float | None:
    """Return a number with the digits of a float32; None for one that is none."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _count(counts: SetCounts, answer: WrittenAnswer, entities: int) -> None:
    counts.sets += 1
    counts.entities += entities
    counts.empty += not answer.names
    counts.degraded += bool(answer.degraded)
    counts.first_note = counts.first_note or next(iter(answer.degraded), "")
