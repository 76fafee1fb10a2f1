"""Make queries with known answers from the attributes of a corpus' entities."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.errors import FormatError, UserError
from engine.queries.making.annotations import read_agreement
from engine.queries.making.definitions import PAPER_SHARES, FineClass, UltraFineClass, ultra_fine_classes
from engine.queries.making.queries import SeedNumbers, draw_queries
from engine.queries.making.statistics import overlap, summary
from engine.storage.bundle import Bundle
from engine.storage.local_files import short_name
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import DATA
from jobs.steps.query_making import fine_classes, random_of, similarity_map, statistics_page
from jobs.steps.query_vocabulary import QueryVocabulary, query_vocabulary, vocabulary_lines

EXAMPLES = """
  seedset make-queries --workspace work --output made
  seedset evaluate --workspace work --queries made/query --method default

  seedset make-queries --workspace work --output made --class-attribute kind \\
      --attribute region --attribute era
  seedset make-queries --workspace work --output made --per-class 0 --most-attributes 1 \\
      --annotations labels.csv

  seedset make-queries --workspace pool --output made --hard-negatives 5
  seedset import --workspace work --source sentences.jsonl --entities made/vocabulary.jsonl
"""

QUERIES, STATISTICS, PAGE, MAP = "query", "statistics.json", "report.md", "similarity.png"
VOCABULARY = "vocabulary.jsonl"
"""What an output holds."""


class MakeQueriesSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with the corpus.")
    output: str = Field(description="Write queries and statistics into this folder or s3:// prefix.")
    class_attribute: str = Field(
        default="class",
        description="Attribute whose values are the fine classes; where no entity has it, all are one class.",
    )
    fine_class: list[str] = Field(
        default=[], description="Make queries of this fine class alone; repeat it for more."
    )
    attribute: list[str] = Field(
        default=[], description="Define classes by this attribute; repeat it for more.  [default: all]"
    )
    most_attributes: int = Field(
        default=3, ge=1, le=3, description="Define a side of a class by this many attributes at most."
    )
    per_class: int = Field(
        default=26, ge=0, description="Draw so many ultra-fine classes of a fine class; 0: take all."
    )
    queries: int = Field(default=3, ge=1, description="Draw so many queries of an ultra-fine class.")
    least: int = Field(
        default=6,
        ge=4,
        description="Take classes with so many positive and negative entities at least, and as many that are "
        "positive and not negative.",
    )
    seeds_least: int = Field(default=3, ge=1, description="Draw so many seeds of a kind at least.")
    seeds_most: int = Field(default=5, ge=1, description="Draw so many seeds of a kind at most.")
    hard_negatives: int = Field(
        default=0,
        ge=0,
        description="Write a table of the classes' entities and, for each of them, so many of no class whose "
        "texts are most like its own (BM25).",
    )
    annotations: str | None = Field(
        default=None,
        description="Tell the agreement (Fleiss' kappa) of the annotators of this table: entity, attribute, "
        "annotator, value.",
    )
    seed: int = Field(default=13, description="Seed of the draws: the same input gives the same bytes.")
    overwrite: bool = Field(default=False, description="Replace the queries that are there.")


@command(EXAMPLES, headings={"class_attribute": DATA, "fine_class": DATA, "attribute": DATA})
def main(settings: MakeQueriesSettings) -> None:
    """Make a benchmark of one's own, as UltraWiki was made (§4.1): classes by attributes, queries, truth.

    An ultra-fine class is what has some values of a fine class' attributes (positive), and not others
    (negative).
    """
    started = time.monotonic()
    if not settings.seeds_least <= settings.seeds_most < settings.least:
        given = f"--seeds-least {settings.seeds_least}, --seeds-most {settings.seeds_most}"
        raise UserError(
            f"{given}, --least {settings.least}: each must be less than the next; the first two may be equal"
        )
    workspace, output = Workspace.open(settings.workspace), Store.open(settings.output)
    if (output / QUERIES).exists() and not settings.overwrite:
        raise FormatError(f"{output.uri}: has queries already; name another --output, or give --overwrite")
    names, fine = fine_classes(workspace, settings.class_attribute, settings.fine_class, settings.attribute)
    made = {one.name: _made(one, settings) for one in fine}
    if not any(made.values()):
        raise UserError(
            f"{workspace.root.uri}: no two conditions of a fine class have {settings.least} entities each; "
            "give --least, or entities more attributes"
        )
    for one in fine:
        if not made[one.name]:
            console.say(f"{one.name}: no ultra-fine class: too few entities of any two conditions")
    files = {name: _queries(name, some, settings, names) for name, some in made.items() if some}
    classes = [one for some in made.values() for one in some]
    queries = [query for some in files.values() for query in some]
    statistics = summary(fine, classes, queries) | {"overlap": overlap(classes)}
    if settings.annotations:
        statistics["agreement"] = read_agreement(settings.annotations)
    vocabulary = _vocabulary(workspace, [one for one in fine if made[one.name]], names, settings)
    if vocabulary:
        statistics["vocabulary"] = vocabulary.statistics
    _write(output, files, statistics)
    _write_vocabulary(output, workspace, vocabulary)
    drawn = similarity_map(_bundle(workspace, names), classes)
    if drawn:
        (output / MAP).write_bytes(drawn)
    console.say(f"statistics: {output.uri}/{PAGE}")
    console.result(
        fine_classes=len(fine),
        ultra_fine_classes=len(classes),
        queries=len(queries),
        seconds=f"{time.monotonic() - started:.1f}",
        output=f"{output.uri}/{QUERIES}",
    )


def _made(fine: FineClass, settings: MakeQueriesSettings) -> list[UltraFineClass]:
    shares = {
        counts: share for counts, share in PAPER_SHARES.items() if max(counts) <= settings.most_attributes
    }
    number = settings.per_class or sys.maxsize
    random = random_of(settings.seed, fine.name)
    return ultra_fine_classes(fine, number, random, settings.least, settings.seeds_least, shares)


def _queries(
    name: str, made: Sequence[UltraFineClass], settings: MakeQueriesSettings, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the queries of a fine class, with their numbers."""
    numbers = SeedNumbers(settings.seeds_least, settings.seeds_most)
    return [
        {"query_id": f"{name}-{group:03}-{place}", "group_id": group, **query}
        for group, one in enumerate(made)
        for place, query in enumerate(draw_queries(one, settings.queries, numbers, settings.seed, names))
    ]


def _vocabulary(
    workspace: Workspace, asked: Sequence[FineClass], names: Sequence[str], settings: MakeQueriesSettings
) -> QueryVocabulary | None:
    """Return the vocabulary of the fine classes that have queries, if one is wanted."""
    if not settings.hard_negatives:
        return None
    return query_vocabulary(workspace, asked, names, settings.hard_negatives)


def _write(output: Store, files: dict[str, list[dict[str, Any]]], statistics: dict[str, Any]) -> None:
    (output / QUERIES).delete()
    for name, queries in files.items():
        file = output / QUERIES / short_name(name.replace("/", "-") + ".json")
        file.write_bytes((json.dumps(queries, indent=1, ensure_ascii=False) + "\n").encode())
    (output / STATISTICS).write_bytes((json.dumps(statistics, indent=1, ensure_ascii=False) + "\n").encode())
    (output / PAGE).write_bytes(statistics_page(statistics).encode())


def _write_vocabulary(output: Store, workspace: Workspace, vocabulary: QueryVocabulary | None) -> None:
    """Write the table of entities, or take away that of earlier queries."""
    file = output / VOCABULARY
    if vocabulary is None:
        file.delete()
        return
    file.write_bytes("".join(vocabulary_lines(workspace, vocabulary)).encode())
    console.say(f"vocabulary: {file.uri}, for seedset import --entities")


def _bundle(workspace: Workspace, names: Sequence[str]) -> Bundle | None:
    """Return the current bundle, if there is one of these entities; its vectors draw the map of figure 4."""
    try:
        bundle = Bundle.open(workspace)
    except UserError:
        return None
    return bundle if bundle.vocabulary.names == list(names) else None


if __name__ == "__main__":
    main.run()
