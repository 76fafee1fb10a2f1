"""Open the corpus that an import adds to: its entities keep their ids, its mentions stay where they are."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq

from engine.corpus.positions import RowPosition
from engine.corpus.readers.base import Entity
from engine.corpus.schema import CorpusManifest, Counts, SourceFile, check_whole
from engine.storage.store import Store
from engine.storage.workspace import Workspace

_COLUMNS = ["entity_id", "sentence", "start", "image"]


def mention_key(entity_id: int, sentence: str, image: str | None, start: int | None) -> int:
    """Return what tells a mention from any other in this process.

    Args:
        entity_id, sentence, image: of the mention.
        start: of one that people marked, as a sentence may be marked in several places; None: of one that
            we found, which is the first place of several.
    """
    key: tuple[Hashable, ...] = (entity_id, sentence, image, start)
    return hash(key)


@dataclass(frozen=True)
class EarlierCorpus:
    """The corpus of a workspace that an import adds to."""

    folder: Store
    manifest: CorpusManifest
    mentions: list[Store]

    @classmethod
    def open(cls, workspace: Workspace) -> EarlierCorpus:
        """Return the corpus of a workspace.

        Raises:
            StorageError: there is none, or it is not whole.
        """
        return cls(workspace.corpus, check_whole(workspace), workspace.mentions())

    @cached_property
    def entities(self) -> list[Entity]:
        """The entities, in the order of their ids."""
        file = self.folder / "entities.parquet"
        with file.open_input() as stream:
            rows = pq.read_table(stream).to_pylist()
        return [
            Entity(
                row["name"],
                row["aliases"] or [],
                row["description"],
                {name: values or [] for name, values in row["attributes"] or ()},
                file.uri,
                RowPosition(row["entity_id"]),
            )
            for row in rows
        ]

    def keys(self, mentioned: bytearray) -> frozenset[int]:
        """Return the keys of all mentions, two of each: whether people marked it is not known any more.

        Args:
            mentioned: gets a 1 at the id of every entity that has a sentence.
        """
        found: list[int] = []
        for part in self.mentions:
            with part.open_input() as stream:
                columns = [pq.read_table(stream, columns=_COLUMNS)[name].to_pylist() for name in _COLUMNS]
            for entity, sentence, start, image in zip(*columns, strict=True):
                mentioned[entity] |= bool(sentence)
                found.append(mention_key(entity, sentence, image, None))
                found.append(mention_key(entity, sentence, image, start))
        return frozenset(found)

    def bring(self, folder: Path) -> None:
        """Bring all that stays as it is into the folder of the corpus that is being made.

        Mentions and images never change and are linked where the disk can; refused records are added to.
        """
        for part in self.mentions:
            part.link_or_fetch(folder / "mentions" / part.name)
        for image in (self.folder / "images").files():
            image.link_or_fetch(folder / "images" / image.name)
        for refused in (self.folder / "quarantine").files():
            refused.fetch(folder / "quarantine" / refused.name)

    def with_counts(self, new: Counts) -> Counts:
        """Return the counts of both imports together; those of entities are of the whole in ``new``."""
        before, whole = self.manifest.counts, ("entities", "entities_without_sentences")
        added = {
            name: value + getattr(before, name)
            for name, value in new.model_dump().items()
            if name not in whole
        }
        return new.model_copy(update=added)

    def with_found(self, new: dict[str, int]) -> dict[str, int]:
        """Return how the mentions of both imports were found."""
        before = self.manifest.found
        return {how: before.get(how, 0) + new.get(how, 0) for how in before | new}

    def with_files(self, new: list[SourceFile]) -> list[SourceFile]:
        """Return the files of both imports, the new ones last; one that was read in both comes once."""
        return [one for one in self.manifest.files if one not in new] + new
