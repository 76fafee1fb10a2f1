"""Open the corpus that an import adds to: its entities keep their ids, its mentions stay where they are."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.corpus.image_addresses import FOLDER
from engine.corpus.importing.writer import ENTITIES, write_mentions
from engine.corpus.positions import RowPosition
from engine.corpus.readers.base import Entity
from engine.corpus.schema import CorpusManifest, Counts, SourceFile, check_whole, part_digests
from engine.storage.store import Store, sha256_of
from engine.storage.workspace import Workspace
from engine.vocabulary import REMOVED

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


class KnownMentions:
    """Mentions that are there already, by their keys, and which of them were met again.

    Of ten million mentions it holds 180 MB: two keys of each, sorted, and a mark.

    Args:
        keys: of :func:`mention_key`, two of each: whether people marked it is not known any more.
    """

    def __init__(self, keys: array[int]) -> None:
        self._keys = np.unique(np.frombuffer(keys, np.int64) if len(keys) else np.zeros(0, np.int64))
        self._met = np.zeros(len(self._keys), np.bool_)

    def meet(self, key: int) -> bool:
        """Return whether a mention is there, and note that it was met."""
        place = int(self._keys.searchsorted(key))
        if place == len(self._keys) or self._keys[place] != key:
            return False
        self._met[place] = True
        return True

    def is_met(self, *keys: int) -> bool:
        """Return whether one of a known mention's keys was met."""
        return bool(self._met[self._keys.searchsorted(keys)].any())


@dataclass
class BroughtMentions:
    """What stays of an earlier corpus: rows of its parts, entities with sentences, and images."""

    parts: list[int] = field(default_factory=list)
    removed: int = 0
    mentioned: set[int] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    with_image: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    """Files of the earlier corpus that are not in the new one's folder, and their sha256; "": not known."""

    def add(self, table: pa.Table, removed: int) -> None:
        """Count what stays of a part."""
        self.removed += removed
        if not len(table):
            return
        self.parts.append(len(table))
        told = pc.greater(table["end"], 0)
        self.mentioned |= set(pc.unique(table["entity_id"].filter(told)).to_pylist())
        shown = table["image"].drop_null()
        self.images |= set(shown.to_pylist())
        self.with_image += len(shown)


@dataclass(frozen=True)
class EarlierCorpus:
    """The corpus of a workspace that an import adds to."""

    workspace: Workspace
    manifest: CorpusManifest
    mentions: list[Store]

    @classmethod
    def open(cls, workspace: Workspace) -> EarlierCorpus:
        """Return the corpus of a workspace.

        Raises:
            StorageError: there is none, or it is not whole.
        """
        return cls(workspace, check_whole(workspace), workspace.mentions())

    @cached_property
    def entities(self) -> list[Entity]:
        """The entities, in the order of their ids."""
        file = self.workspace.entities
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
                removed=row.get(REMOVED.name, False),
            )
            for row in rows
        ]

    @property
    def next_part(self) -> int:
        """Number of the next part; those of parts whose mentions were all removed are not used again."""
        return 1 + max(
            (int(part.name[len("part-") : -len(".parquet")]) for part in self.mentions), default=-1
        )

    def known(self) -> tuple[KnownMentions, BroughtMentions]:
        """Return the mentions by their keys, and what there is of them, in one pass over the parts."""
        found, there = array("q"), BroughtMentions()
        for part in self.mentions:
            table = _read(part, [*_COLUMNS, "end"])
            there.add(table, removed=0)
            for keys in _keys_of(table):
                found.extend(keys)
        return KnownMentions(found), there

    def bring(
        self,
        folder: Path,
        there: BroughtMentions,
        kept: KnownMentions | None = None,
        without: Collection[int] = (),
    ) -> BroughtMentions:
        """Bring what stays into the folder of the corpus that is being made.

        Mentions and images never change: they are linked where the disk can, and in a bucket they stay where
        they are.

        Args:
            folder: of that corpus.
            there: what all parts have, from :meth:`known`.
            kept: of which those that were met stay; None: all do.
            without: ids of entities whose mentions go. Where nothing goes, no part is read again.
        """
        reads, gone = kept is not None or bool(without), pa.array(sorted(without), pa.int32())
        found = BroughtMentions() if reads else there
        shares = self.workspace.shares_files
        digests = part_digests(self.workspace) if shares else [""] * len(self.mentions)
        for part, digest in zip(self.mentions, digests, strict=True):
            name = f"mentions/{part.name}"
            removed = 0
            if reads:
                whole = _read(part, None)
                table = whole.filter(pc.invert(pc.is_in(whole["entity_id"], gone))) if without else whole
                if kept is not None:
                    table = table.filter(pa.array([kept.is_met(*keys) for keys in _keys_of(table)]))
                removed = len(whole) - len(table)
                found.add(table, removed)
                if removed and len(table):
                    write_mentions(table, folder / name)
            if not removed and shares:
                found.kept[name] = digest
            elif not removed:
                part.link_or_fetch(folder / name)
        for name, image in self.workspace.corpus_files("images").items():
            target = folder / name
            if shares and (kept is None or f"{FOLDER}/{image.name}" in found.images or target.exists()):
                target.unlink(missing_ok=True)  # its name is of its content
                found.kept[name] = ""
            elif (kept is None or f"{FOLDER}/{image.name}" in found.images) and not target.exists():
                image.link_or_fetch(target)
        return found

    def bring_refused(self, folder: Path) -> None:
        """Copy the refused records into that folder, where more are added to them."""
        for name, refused in self.workspace.corpus_files("quarantine").items():
            refused.fetch(folder / name)

    def keep_unchanged(self, folder: Path) -> dict[str, str]:
        """Take out of the new corpus' folder what the bucket has already, but for mentions and images.

        Returns:
            Those files, by their paths below the corpus, and their sha256; none where nothing is shared.
        """
        if not self.workspace.shares_files:
            return {}
        former = self.workspace.corpus_files("quarantine") | {ENTITIES: self.workspace.entities}
        found = {}
        for name, file in former.items():
            digest = sha256_of(folder / name)
            if file.sha256() == digest:
                (folder / name).unlink()
                found[name] = digest
        return found

    def with_counts(self, new: Counts, brought: BroughtMentions) -> Counts:
        """Return the counts of both imports together; those of entities are of the whole in ``new``."""
        before, whole = self.manifest.counts, ("entities", "entities_removed", "entities_without_sentences")
        added = {
            name: value + getattr(before, name)
            for name, value in new.model_dump().items()
            if name not in whole
        }
        stay = {"mentions": sum(brought.parts) + new.mentions, "images": brought.with_image + new.images}
        return new.model_copy(update=added | stay)

    def with_found(self, new: dict[str, int]) -> dict[str, int]:
        """Return how the mentions of both imports were found."""
        before = self.manifest.found
        return {how: before.get(how, 0) + new.get(how, 0) for how in before | new}

    def with_files(self, new: list[SourceFile]) -> list[SourceFile]:
        """Return the files of both imports, the new ones last; one that was read in both comes once."""
        return [one for one in self.manifest.files if one not in new] + new


def _read(part: Store, columns: list[str] | None) -> pa.Table:
    with part.open_input() as stream:
        return pq.read_table(stream, columns=columns)


def _keys_of(table: pa.Table) -> Iterator[tuple[int, int]]:
    """Yield the two keys of every mention of a part."""
    columns = [table[name].to_pylist() for name in _COLUMNS]
    for entity, sentence, start, image in zip(*columns, strict=True):
        yield mention_key(entity, sentence, image, None), mention_key(entity, sentence, image, start)
