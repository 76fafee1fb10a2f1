"""Write a corpus as a folder that Hugging Face's ``datasets.load_dataset`` reads, and `seedset import` too.

::

    README.md                          the dataset card, which names the two tables; written last
    sentences/train-NNNNN-of-NNNNN.parquet   entity, sentence, start, end, image, annotated
    entities/train-00000-of-00001.parquet    name, aliases, description, attributes
    images/*                           the images that the corpus has as bytes; ``image`` is their path

Of an image elsewhere (a local path, an ``s3://`` address) the address is written as it is. Entities that have
been removed from the corpus are left out. Imported again, the folder gives the same entities and mentions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from engine.corpus import image_addresses
from engine.corpus.importing.mentions import MentionFinder
from engine.corpus.importing.seen import SeenKeys
from engine.corpus.schema import check_same_corpus, check_whole
from engine.errors import BundleError, StorageError
from engine.refusals import Refusal
from engine.storage.bundle import Bundle
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary

CARD, SENTENCES, ENTITIES, IMAGES = "README.md", "sentences", "entities", "images"
"""What an export holds."""

SHARD_ROWS = 1_000_000
"""Rows of a file of sentences, about."""

_TAG = "seedset"
"""A tag of the card, by which an export is known."""

SENTENCE_SCHEMA = pa.schema(
    [
        pa.field("entity", pa.string()),
        pa.field("sentence", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("image", pa.string()),
        pa.field("annotated", pa.bool_()),
    ]
)
"""Of a context that is an image alone, the sentence and the places are null. ``annotated`` is true where the
place is not what an import would find or take by itself, as people marked it."""

ENTITY_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("aliases", pa.list_(pa.string())),
        pa.field("description", pa.string()),
        # The datasets library knows no maps.
        pa.field(
            "attributes",
            pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.list_(pa.string()))])),
        ),
    ]
)


@dataclass
class Exported:
    """The counts of an export."""

    entities: int = 0
    removed: int = 0
    sentences: int = 0
    images: int = 0
    """Files of images that were copied."""
    images_elsewhere: int = 0
    """Rows whose image lies elsewhere and was not copied."""
    files: int = 0
    """Files of sentences."""


@dataclass
class _Export:
    """One export into a staged local folder."""

    workspace: Workspace
    folder: Path
    vocabulary: Vocabulary
    counts: Exported = field(default_factory=Exported)

    def __post_init__(self) -> None:
        self._finder = MentionFinder(self.vocabulary.names, self.vocabulary.aliases)
        self._seen = SeenKeys()

    def write_entities(self) -> None:
        """Write the table of entities, a batch at a time."""
        target = self.folder / ENTITIES / "train-00000-of-00001.parquet"
        target.parent.mkdir()
        first = 0
        with (
            self.workspace.entities.open_input() as stream,
            pq.ParquetWriter(target, ENTITY_SCHEMA) as writer,
        ):
            for batch in pq.ParquetFile(stream).iter_batches(columns=ENTITY_SCHEMA.names):
                rows = [row for i, row in enumerate(batch.to_pylist(), first) if self._is_there(i)]
                first += batch.num_rows
                for row in rows:
                    row["attributes"] = [{"key": k, "value": v} for k, v in row["attributes"] or ()]
                writer.write_table(pa.Table.from_pylist(rows, ENTITY_SCHEMA))
                self.counts.entities += len(rows)
        self.counts.removed = len(self.vocabulary.removed)

    def write_sentences(
        self, parts: Sequence[Store], rows: Sequence[int], progress: Callable[[int], None]
    ) -> None:
        """Write the mentions, a part of the corpus at a time.

        Args:
            parts: of the mentions.
            rows: of each part.
            progress: called with the number of mentions of each part.
        """
        (self.folder / SENTENCES).mkdir()
        shards = _shards(parts, rows)
        for i, shard in enumerate(shards):
            target = self.folder / SENTENCES / f"train-{i:05}-of-{len(shards):05}.parquet"
            with pq.ParquetWriter(target, SENTENCE_SCHEMA) as writer:
                for part in shard:
                    for table in self._tables(part):
                        writer.write_table(table)
                        self.counts.sentences += table.num_rows
                        progress(table.num_rows)
        self.counts.files = len(shards)

    def _tables(self, part: Store) -> Iterator[pa.Table]:
        with part.open_input() as stream:
            for batch in pq.ParquetFile(stream).iter_batches():
                rows = [self._row(**row) for row in batch.to_pylist() if self._is_there(row["entity_id"])]
                yield pa.Table.from_pylist(rows, SENTENCE_SCHEMA)

    def _is_there(self, entity_id: int) -> bool:
        return entity_id < len(self.vocabulary) and entity_id not in self.vocabulary.removed

    def _row(self, entity_id: int, sentence: str, start: int, end: int, image: str | None) -> dict[str, Any]:
        """Return a row of a mention."""
        row = {"entity": self.vocabulary.names[entity_id], "image": self._image(image) if image else None}
        if not end:
            return row
        key = hash((entity_id, sentence, image))
        again = not self._seen.add(key)  # at another place, as only people mark it
        annotated = again or isinstance(self._finder.check(entity_id, sentence, start, end), Refusal)
        return row | {"sentence": sentence, "start": start, "end": end, "annotated": annotated}

    def _image(self, address: str) -> str:
        """Return the address of an image in the export; one of the corpus is copied into it."""
        name = address.removeprefix(f"{image_addresses.FOLDER}/")
        if name == address:
            self.counts.images_elsewhere += 1
            return address
        target = self.folder / IMAGES / name
        if not target.exists():
            self.workspace.image(address).fetch(target)
            self.counts.images += 1
        return f"{IMAGES}/{name}"


def export_corpus(
    workspace: Workspace,
    output: Store,
    bundle: Bundle | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Exported:
    """Write the corpus of a workspace as a Hugging Face data set: whole or not at all.

    A part of the mentions is held at a time, and the entities with a number for each mention. The folder is
    made on this machine first, also where it goes to a bucket; there the card comes last.

    Args:
        workspace: with the corpus.
        output: a folder that is not there yet, local or in a bucket.
        bundle: takes the entities that it has alone; None: all.
        overwrite: replaces an export that is there.
        progress: called with numbers of mentions written.

    Raises:
        StorageError: something is there already; there is no corpus, or not a whole one; another one was
            imported meanwhile.
        BundleError: the bundle is of another corpus.
    """
    _check_free(output, overwrite)
    manifest = check_whole(workspace)
    vocabulary = Vocabulary.read(workspace.entities.local_copy(machine_cache()))
    if bundle is not None:
        vocabulary = _of_bundle(bundle, vocabulary)
    staged = output.staging()
    try:
        export = _Export(workspace, staged, vocabulary)
        export.write_entities()
        export.write_sentences(workspace.mentions(), manifest.parts, progress)
        check_same_corpus(workspace, manifest.digest)
        (staged / CARD).write_text(card(export.counts), encoding="utf-8")
        output.publish_folder(staged, last=CARD)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return export.counts


def _check_free(output: Store, overwrite: bool) -> None:
    """Refuse a place where something is, and to replace what is no export.

    Raises:
        StorageError: names what is there.
    """
    if output.size() >= 0:
        raise StorageError(f"{output.uri}: a file; name a folder that is not there yet as --output")
    if output.is_local:
        there = set(os.listdir(output.path)) if output.exists() else set()
    else:
        there = {file.path[len(output.path) + 1 :].partition("/")[0] for file in output.files()}
    if not there:
        return
    if not overwrite:
        raise StorageError(f"{output.uri}: is there already; name another --output, or give --overwrite")
    others = there - {CARD, SENTENCES, ENTITIES, IMAGES}
    written = (output / CARD).read_if_there() or f"- {_TAG}\n".encode()
    if others or f"- {_TAG}\n".encode() not in written:
        named = ", ".join(sorted(others or {CARD})[:3])
        raise StorageError(
            f"{output.uri}: holds {named}, which no export wrote, and --overwrite replaces exports alone; "
            "name another --output"
        )


def _of_bundle(bundle: Bundle, corpus: Vocabulary) -> Vocabulary:
    """Return the entities of a bundle, without those that were removed from it or from the corpus.

    Raises:
        BundleError: they are not the first ones of the corpus, so that ids mean others.
    """
    own = Vocabulary.read(bundle.path("entities.parquet"))
    if not corpus.grew_from(own):
        raise BundleError(
            f"bundle {bundle.id}: has other entities than the corpus; name one that was made from this "
            "corpus, or leave --bundle out"
        )
    removed = own.removed | {i for i in corpus.removed if i < len(own)}
    return Vocabulary(own.names, corpus.aliases[: len(own)], removed)


def _shards(parts: Sequence[Store], rows: Sequence[int]) -> list[list[Store]]:
    """Return neighbouring parts, of :data:`SHARD_ROWS` rows together; one list at least."""
    found: list[list[Store]] = [[]]
    number = 0
    for part, count in zip(parts, rows, strict=True):
        if number >= SHARD_ROWS:
            found.append([])
            number = 0
        found[-1].append(part)
        number += count
    return found


def card(counts: Exported) -> str:
    """Return the dataset card: front matter that says where the tables are, and what they hold."""
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train-*.parquet"}]}
        for name in (SENTENCES, ENTITIES)
    ]
    configs[0]["default"] = True
    front = yaml.safe_dump({"configs": configs, "tags": [_TAG, "entity-set-expansion"]}, sort_keys=False)
    return f"""---
{front}---

# A corpus for entity set expansion

{counts.entities} entities and {counts.sentences} sentences that mention them, written by `seedset export`.

| table | a row | columns |
| --- | --- | --- |
| `{SENTENCES}` | a sentence and the entity that it mentions | `entity` (its `name`), `sentence`, `start`, \
`end` (characters of the mention, end exclusive), `image` (path in this folder, or address), `annotated` |
| `{ENTITIES}` | an entity | `name`, `aliases`, `description`, `attributes` (pairs of `key` and `value`, \
a list) |

```python
sentences = datasets.load_dataset(FOLDER, "{SENTENCES}", split="train")
entities = datasets.load_dataset(FOLDER, "{ENTITIES}", split="train")
```

`seedset import --workspace NEW --source FOLDER` makes a workspace of it again.
"""
