"""Label mentions by co-expansion: expand the seeds of types, and write mentions of what is found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from engine.corpus.inputs.format import Inputs
from engine.errors import FormatError, QueryError
from engine.query import MAX_TOP_K, Query
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.parts import write_model
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.typing.coexpansion import LabelledEntity, Seeds, Shares, give_types, list_length, negative_seeds
from engine.typing.mentions import Mention
from jobs import console
from jobs.steps.read_sentences import sentence_rows

BATCH = 64
"""Types that are expanded at once."""

MENTIONS, TYPES, ENTITIES, MANIFEST = "train.jsonl", "types.txt", "entities.parquet", "_manifest.json"
"""Files of an output; the first two are found by the commands that train and measure typing models."""

ENTITIES_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("mentions", pa.int32(), nullable=False),
    ]
)
"""A row an entity with a type; :class:`LabelledEntity` says what rank and score are."""


class LabelsManifest(BaseModel):
    """What an output is made from: the same makes the same bytes."""

    bundle: str
    inputs: str
    pipeline: str
    seeds_digest: str
    top: int
    mentions_per_entity: int
    negative_seeds: int
    seed: int


@dataclass(frozen=True)
class Labelled:
    """What was written, in counts."""

    shares: Mapping[str, Shares]
    mentions: Mapping[str, int]
    """Of each type."""
    without_sentence: int
    """Entities that have a type and no mention."""

    def rows(self) -> list[list[str]]:
        """Return a row a type: seeds, other entities, their mentions, what went to others, ties."""
        return [
            [label, *map(str, (s.seeds, s.kept, self.mentions[label], s.to_others, s.ties))]
            for label, s in self.shares.items()
        ]


def expand_types(
    pipeline: Pipeline, bundle: Bundle, seeds: Seeds, about: LabelsManifest
) -> dict[str, list[int]]:
    """Return each type's list of entities, best first.

    Args:
        pipeline: the method. One whose answers depend on each other gets all types at once.
        bundle: to expand over.
        seeds: of each type; those of the others are its negative seeds.
        about: how many of these, of which draw, and how many entities are wanted.

    Raises:
        QueryError: not one type has a list; names the first reason.
    """
    negative = negative_seeds(seeds, about.negative_seeds, about.seed)
    total = sum(map(len, seeds.values()))
    queries = [
        # What is no seed of the query may stand in its list, and is left out there.
        Query(label, tuple(ids), negative[label], min(MAX_TOP_K, list_length(about.top) + total))
        for label, ids in seeds.items()
    ]
    expand, lists, notes = pipeline.open(bundle), {}, []
    size = len(queries) if pipeline.batch_dependent else BATCH
    with console.meter("expand, types", len(queries)) as meter:
        for start in range(0, len(queries), size):
            for one in expand(queries[start : start + size]):
                lists[one.query.id] = one.ranking.ids.tolist()
                notes += [(one.query.id, note) for note in one.degraded]
                meter.add()
    if not any(lists.values()):
        why = f"; the first: {notes[0][1]}" if notes else ""
        raise QueryError(f"none of the {len(queries)} types has a list{why}")
    for label, note in notes:
        console.say(f"type {label!r}: {note}")
    return lists


def drawn_mentions(
    workspace: Workspace, inputs: Inputs, entities: Iterable[int], at_most: int, seed: int
) -> dict[int, list[tuple[int, Mention]]]:
    """Return mentions of entities, with their numbers in the corpus, ascending.

    Args:
        workspace: with the corpus.
        inputs: whose sentences are taken: those that the encoders read.
        entities: whose mentions are wanted; one without a sentence is left out.
        at_most: mentions of an entity. Which ones depends on the seed and the entity alone.
        seed: of the draw.
    """
    wanted = pa.array(sorted(entities), pa.int32())
    found: dict[int, list[tuple[int, Mention]]] = {}
    first = 0
    for source, rows in zip(workspace.mentions(), sentence_rows(workspace, inputs), strict=True):
        with source.open_input() as stream:
            table = pq.read_table(stream, columns=["entity_id", "sentence", "start", "end"])
        numbers = pa.array(first + rows)
        first += len(table)
        table = table.take(pa.array(rows)).append_column("number", numbers)
        for row in table.filter(pc.is_in(table["entity_id"], wanted)).to_pylist():
            mention = Mention.at(row["sentence"], row["start"], row["end"])
            found.setdefault(row["entity_id"], []).append((row["number"], mention))
    for entity, some in found.items():
        order = np.random.default_rng([seed, entity]).permutation(len(some))[:at_most]
        found[entity] = [some[place] for place in np.sort(order)]
    return found


def check_output(output: Store, about: LabelsManifest, overwrite: bool) -> None:
    """Refuse a folder that holds something else: it is replaced as a whole.

    Raises:
        FormatError: it does.
    """
    content = (output / MANIFEST).read_if_there()
    ours = () if content is None else (MENTIONS, TYPES, ENTITIES, MANIFEST)
    if others := [file.name for file in output.files() if file.name not in ours]:
        raise FormatError(f"--output {output.uri}: holds other files ({others[0]}); name a folder of its own")
    if content is not None and content != about.model_dump_json(indent=1).encode() + b"\n" and not overwrite:
        raise FormatError(
            f"--output {output.uri}: holds mentions that were labelled from other seeds, another bundle or "
            "by other settings; name another --output, or give --overwrite"
        )


def write_labels(
    output: Store,
    about: LabelsManifest,
    given: Sequence[LabelledEntity],
    mentions: Mapping[int, Sequence[tuple[int, Mention]]],
    names: Sequence[str],
    labels: Sequence[str],
) -> None:
    """Write an output whole: mentions, the list of types, which entity got which type, the manifest.

    Args:
        output: the folder.
        about: the manifest.
        given: entities with their types; their mentions are written in this order.
        mentions: of each entity, with their numbers in the corpus.
        names: of all entities, by id.
        labels: all types.
    """
    staged = output.staging()
    lines = [
        json.dumps(
            {
                "id": f"{one.entity}-{number}",
                "left": mention.left,
                "mention": mention.text,
                "right": mention.right,
                "types": [one.type],
            },
            ensure_ascii=False,
        )
        for one in given
        for number, mention in mentions.get(one.entity, ())
    ]
    (staged / MENTIONS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (staged / TYPES).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    _write_entities(staged / ENTITIES, given, mentions, names)
    write_model(Store.open(staged / MANIFEST), about)
    output.publish_folder(staged, last=MANIFEST)


def _write_entities(
    file: Path,
    given: Sequence[LabelledEntity],
    mentions: Mapping[int, Sequence[tuple[int, Mention]]],
    names: Sequence[str],
) -> None:
    rows = [
        {
            "entity_id": one.entity,
            "name": names[one.entity],
            "type": one.type,
            "rank": one.rank,
            "score": one.score,
            "mentions": len(mentions.get(one.entity, ())),
        }
        for one in given
    ]
    pq.write_table(pa.Table.from_pylist(rows, ENTITIES_SCHEMA), file)


def label_mentions(
    workspace: Workspace,
    bundle: Bundle,
    pipeline: Pipeline,
    inputs: Inputs,
    seeds: Seeds,
    about: LabelsManifest,
    output: Store,
) -> Labelled:
    """Expand types, give every entity to one at most, and write mentions of these.

    Args:
        workspace: with the corpus.
        bundle: of that corpus.
        pipeline: the method.
        inputs: whose sentences are taken.
        seeds: of each type.
        about: what is asked for.
        output: the folder; checked already.

    Raises:
        QueryError: no type has a list, or no entity with a type has a sentence.
    """
    lists = expand_types(pipeline, bundle, seeds, about)
    given, shares = give_types(lists, seeds, about.top)
    entities = {one.entity for one in given}
    mentions = drawn_mentions(workspace, inputs, entities, about.mentions_per_entity, about.seed)
    if not mentions:
        raise QueryError("no sentence mentions an entity that got a type: there is nothing to train on")
    write_labels(output, about, given, mentions, bundle.vocabulary.names, list(seeds))
    counts = dict.fromkeys(seeds, 0)
    for one in given:
        counts[one.type] += len(mentions.get(one.entity, ()))
    return Labelled(shares, counts, len(entities - mentions.keys()))
