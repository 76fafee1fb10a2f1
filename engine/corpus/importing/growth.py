"""Open the corpus that an import adds to: its entities keep their ids, its mentions stay where they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.corpus.image_addresses import FOLDER
from engine.corpus.importing.known import KnownMentions
from engine.corpus.importing.part_keys import SUFFIX, PartKeys, read_keys, write_keys
from engine.corpus.importing.writer import ENTITIES, write_mentions
from engine.corpus.positions import RowPosition
from engine.corpus.readers.base import Entity
from engine.corpus.schema import CorpusManifest, Counts, SourceFile, check_whole, part_digests, read_manifest
from engine.storage.corpora import file_of
from engine.storage.store import Store, sha256_of
from engine.storage.workspace import Workspace
from engine.vocabulary import REMOVED


@dataclass
class BroughtMentions:
    """What stays of an earlier corpus: rows of its parts, entities with sentences, and images."""

    parts: list[int] = field(default_factory=list)
    removed: int = 0
    mentioned: set[int] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    """Addresses of images, where mentions go for other reasons than their entity's."""
    images_removed: int = 0
    """Mentions with an image that go."""
    kept: dict[str, str] = field(default_factory=dict)
    """Files of the earlier corpus that are not in the new one's folder, and their sha256; "": not known."""

    def add(self, whole: pa.Table, stays: pa.Table) -> None:
        """Count what stays of a part that was read."""
        self.removed += len(whole) - len(stays)
        shown = stays["image"].drop_null()
        self.images_removed += len(whole) - whole["image"].null_count - len(shown)
        if not len(stays):
            return
        self.parts.append(len(stays))
        self.mentioned |= set(pc.unique(stays["entity_id"].filter(pc.greater(stays["end"], 0))).to_pylist())
        self.images |= set(shown.to_pylist())


@dataclass(frozen=True)
class EarlierCorpus:
    """The corpus of a workspace that an import adds to."""

    workspace: Workspace
    manifest: CorpusManifest
    mentions: list[Store]
    keys: list[PartKeys | None]
    """Of each part of mentions; None: it has none, as one of an earlier version."""

    @classmethod
    def open(cls, workspace: Workspace) -> EarlierCorpus:
        """Return the corpus of a workspace.

        Raises:
            StorageError: there is none, or it is not whole.
        """
        parts, files = workspace.mentions(), workspace.corpus_files("mentions", SUFFIX)
        digests = read_manifest(workspace).part_digests
        keys: list[PartKeys | None] = [None] * len(parts)
        if len(digests) == len(parts):
            for place, part in enumerate(parts):
                if file := files.get(_keys_name(part)):
                    keys[place] = read_keys(file, digests[place])
        sizes = {part.name: one.part_bytes for part, one in zip(parts, keys, strict=True) if one}
        return cls(workspace, check_whole(workspace, sizes), parts, keys)

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

    def known(self) -> KnownMentions:
        """Return what there is, by the keys of the parts, which go into it; those that have none are read."""
        found = KnownMentions(self.mentions, self.keys)
        self.keys.clear()  # 13 bytes of each mention
        return found

    def bring(
        self, folder: Path, known: KnownMentions, only_met: bool = False, without: Collection[int] = ()
    ) -> BroughtMentions:
        """Bring what stays into the folder of the corpus that is being made.

        Mentions and images never change: they are linked where the disk can, and in a bucket they stay where
        they are. Parts of which nothing goes are not read.

        Args:
            folder: of that corpus.
            known: from :meth:`known`.
            only_met: what was not met goes.
            without: ids of entities whose mentions go.
        """
        found = BroughtMentions()
        shares = self.workspace.shares_files
        digests = part_digests(self.workspace) if shares or known.made else [""] * len(self.mentions)
        for place, part in enumerate(self.mentions):
            removed = 0
            if only_met or (without and known.has_any(place, without)):
                whole = _read(part)
                stays = _staying(whole, known.met(place) if only_met else None, without)
                found.add(whole, stays)
                removed = len(whole) - len(stays)
                if removed and len(stays):
                    write_mentions(stays, folder / "mentions" / part.name)
            else:
                found.parts.append(known.rows[place])
            if not removed:
                self._keep_part(part, folder, found.kept, digests[place], known.made.get(place))
        if not only_met:
            found.mentioned = known.mentioned - set(without)
        self._bring_images(folder, found.images if only_met else None, found.kept)
        return found

    def _keep_part(
        self, part: Store, folder: Path, kept: dict[str, str], digest: str, made: PartKeys | None
    ) -> None:
        """Let a part stay as it is, with its keys, or with those that were made now.

        Args:
            part: of mentions.
            folder: of the new corpus.
            kept: is told of what stays where it is.
            digest: sha256 of the part; "": not needed.
            made: its keys, if it had none.
        """
        name, keys = f"mentions/{part.name}", _keys_name(part)
        shares = self.workspace.shares_files
        if shares:
            kept[name] = digest
        else:
            part.link_or_fetch(folder / name)
        if made is not None:
            (folder / "mentions").mkdir(exist_ok=True)
            write_keys(made, digest, part.size(), folder / keys)
        elif shares:
            kept[keys] = ""
        else:
            file_of(self.workspace.corpus, keys).link_or_fetch(folder / keys)

    def _bring_images(self, folder: Path, used: Collection[str] | None, kept: dict[str, str]) -> None:
        """Let images stay.

        Args:
            folder: of the new corpus.
            used: their addresses; None: all.
            kept: is told of what stays where it is.
        """
        shares = self.workspace.shares_files
        for name, image in self.workspace.corpus_files("images").items():
            target = folder / name
            stays = used is None or f"{FOLDER}/{image.name}" in used
            if shares and (stays or target.exists()):
                target.unlink(missing_ok=True)  # its name is of its content
                kept[name] = ""
            elif stays and not target.exists():
                image.link_or_fetch(target)

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
        added["mentions"], added["images"] = (
            sum(brought.parts) + new.mentions,
            added["images"] - brought.images_removed,
        )
        return new.model_copy(update=added)

    def with_found(self, new: dict[str, int]) -> dict[str, int]:
        """Return how the mentions of both imports were found."""
        before = self.manifest.found
        return {how: before.get(how, 0) + new.get(how, 0) for how in before | new}

    def with_files(self, new: list[SourceFile]) -> list[SourceFile]:
        """Return the files of both imports, the new ones last; one that was read in both comes once."""
        return [one for one in self.manifest.files if one not in new] + new


def _keys_name(part: Store) -> str:
    """Return the path of a part's keys below the corpus."""
    return f"mentions/{part.name.removesuffix('.parquet')}{SUFFIX}"


def _read(part: Store) -> pa.Table:
    with part.open_input() as stream:
        return pq.read_table(stream)


def _staying(whole: pa.Table, met: npt.NDArray[np.bool_] | None, without: Collection[int]) -> pa.Table:
    """Return the mentions of a part that stay: those that were met, but for some entities'."""
    gone = pc.is_in(whole["entity_id"], pa.array(sorted(without), pa.int32()))
    stays = pc.invert(gone) if met is None else pc.and_(pc.invert(gone), pa.array(met))
    return whole.filter(stays)
