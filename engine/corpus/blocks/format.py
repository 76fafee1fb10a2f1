"""Plan, pack and read a corpus as blocks of tokens for a language model.

Every distinct sentence is read once, where that is asked for after the description of its entity; the
texts of an entity stay beside each other, so that a block is about something. A few sentences are held out
of training.

``part-<name>.npy`` [blocks, T] holds the training blocks of a mentions part, ``part-<name>.held.npy``
[tokens] the tokens of its held-out sentences, which are packed together on reading, and
``part-<name>.json`` its counts. The name is the digest of what the part is made from.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, model_validator

from engine.corpus.blocks.settings import FIRST_LIST_VIEW, BlockSettings
from engine.corpus.schema import part_digests, read_manifest
from engine.errors import StorageError
from engine.storage.manifests import VersionedManifest
from engine.storage.parts import MANIFEST, PartFolder, content_key, read_each, read_model
from engine.storage.store import Store, machine_cache
from engine.storage.whole import fault_of
from engine.storage.workspace import Workspace
from engine.text.hashes import hashes_of

SUFFIXES = (".npy", ".held.npy", ".json")
AT_MOST_HELD_OUT = 2000
"""Sentences: enough for a perplexity to two digits, cheap to run through the model."""
IGNORED = -100
"""The target of a position whose prediction does not count."""

Tokens = npt.NDArray[np.integer]


class BlockCounts(BaseModel):
    """The counts of one part; written after its two arrays."""

    model_config = ConfigDict(frozen=True)

    sentences: int
    descriptions: int
    held_out: int
    blocks: int
    tokens: int
    """Tokens of the texts that are trained on, without those that begin blocks."""
    padding: int


class BlockManifest(VersionedManifest):
    """The manifest ``inputs/<key>/manifest.json``, written last."""

    anew = "delete the folder, and run `seedset pretrain-lm`"

    format_version: str = "1.1"
    """1.1 names what made the parts."""
    settings: BlockSettings
    corpus_digest: str
    parts: dict[str, BlockCounts]
    """Counts by the part's name, in order: the mentions parts, then maybe the lists of neighbours."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, content: Any) -> Any:
        """Read blocks made before the view of their lists was a choice."""
        settings = content.get("settings") if isinstance(content, dict) else None
        if isinstance(settings, dict):
            content = content | {"settings": {"neighbor_view": FIRST_LIST_VIEW} | settings}
        return content

    def total(self, count: str) -> int:
        """Return the sum of a count over the parts."""
        return sum(getattr(part, count) for part in self.parts.values())


@dataclass(frozen=True)
class PartPlan:
    """The rows and entities to read of a mentions part, as int64 arrays, and its number.

    ``name`` is the part's, of what it is made from (:func:`named_plans`).
    """

    part: int
    rows: npt.NDArray[np.int64]
    """Rows of the part to train on."""
    held: npt.NDArray[np.int64]
    described: npt.NDArray[np.int64]
    """Entities whose description is read here."""
    name: str = ""


def plan_parts(workspace: Workspace, settings: BlockSettings) -> list[PartPlan]:
    """Decide which part reads which sentence and description; the corpus is streamed once.

    Sentences count as equal if their 64-bit hashes are: of a million, two differ and yet agree with a
    probability of one in 10^7.
    """
    hashes, parts, entities = _read_hashes(workspace)
    first = np.unique(hashes, return_index=True)[1]
    no_sentence = hashes_of([""])[0]  # of a context that is an image alone
    distinct = np.sort(first[hashes[first] != no_sentence])
    n_held = min(AT_MOST_HELD_OUT, round(settings.held_out * len(distinct)))
    # By hash, as a corpus that has grown is to hold the same out, and so to make few parts anew.
    mask = np.random.default_rng(settings.seed).integers(0, 2**64, dtype=np.uint64)
    is_held = np.zeros(len(hashes), bool)
    is_held[distinct[np.argsort(hashes[distinct] ^ mask, kind="stable")[:n_held]]] = True
    borders = np.searchsorted(parts, np.arange(len(workspace.mentions()) + 1))
    described = _assign_descriptions(workspace, hashes, parts, entities) if settings.descriptions else {}
    none = np.empty(0, np.int64)
    plans = []
    for part, (begin, end) in enumerate(itertools.pairwise(borders)):
        rows = distinct[(distinct >= begin) & (distinct < end)]
        train, held = rows[~is_held[rows]] - begin, rows[is_held[rows]] - begin
        plans.append(PartPlan(part, train, held, described.get(part, none)))
    return plans


def named_plans(workspace: Workspace, plans: Sequence[PartPlan]) -> dict[str, PartPlan]:
    """Return plans by the names of their parts: digests of the texts that are read, and in which order."""
    texts = read_descriptions(workspace)
    digests = part_digests(workspace)
    named = {}
    for plan in plans:
        descriptions = json.dumps([texts[entity] for entity in plan.described], ensure_ascii=False)
        arrays = (plan.rows.tobytes(), plan.held.tobytes(), plan.described.tobytes())
        # The number too: two parts with the same sentences are two parts.
        name = content_key(digests[plan.part], str(plan.part), *arrays, descriptions)
        named[name] = replace(plan, name=name)
    return named


def _read_hashes(workspace: Workspace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every mention its sentence's hash, its part and its entity."""
    hashes: list[np.ndarray] = [np.empty(0, np.uint64)]
    parts: list[np.ndarray] = [np.empty(0, np.int64)]
    entities: list[np.ndarray] = [np.empty(0, np.int64)]
    for number, part in enumerate(workspace.mentions()):
        with part.open_input() as stream:
            table = pq.read_table(stream, columns=["entity_id", "sentence"])
        hashes.append(hashes_of(table["sentence"].to_pylist()))
        parts.append(np.full(len(table), number))
        entities.append(table["entity_id"].to_numpy().astype(np.int64))
    return np.concatenate(hashes), np.concatenate(parts), np.concatenate(entities)


def _assign_descriptions(
    workspace: Workspace, hashes: np.ndarray, parts: np.ndarray, entities: np.ndarray
) -> dict[int, npt.NDArray[np.int64]]:
    """Return the entities whose description each part reads: where they come first, else in the last part.

    Left out are descriptions that are a sentence, or another entity's description, word for word.
    """
    texts = read_descriptions(workspace)
    filled = np.array([e for e, text in enumerate(texts) if text], np.int64)
    their = hashes_of([texts[e] for e in filled])
    once = np.sort(np.unique(their, return_index=True)[1])
    filled = filled[once[~np.isin(their[once], hashes)]]
    home = np.full(len(texts), parts[-1] if len(parts) else 0)
    seen, first = np.unique(entities, return_index=True)
    home[seen] = parts[first]
    return {int(part): filled[home[filled] == part] for part in np.unique(home)}


def read_descriptions(workspace: Workspace) -> list[str]:
    """Return each entity's description, or an empty text."""
    with workspace.entities.open_input() as stream:
        column = pq.read_table(stream, columns=["description"])["description"]
    return [text or "" for text in column.to_pylist()]


def part_texts(
    workspace: Workspace, plan: PartPlan, descriptions: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the texts of a part in reading order, those to train on and those held out.

    Entities come in the order of their ids, each with its description, if the plan has one, first.
    """
    with workspace.mentions()[plan.part].open_input() as stream:
        table = pq.read_table(stream, columns=["entity_id", "sentence"])
    sentences = table["sentence"].to_pylist()
    entities = np.concatenate([plan.described, table["entity_id"].to_numpy()[plan.rows]])
    texts = [descriptions[e] for e in plan.described] + [sentences[row] for row in plan.rows]
    order = np.argsort(entities, kind="stable")  # stable: descriptions stay in front
    return [f"{texts[i]}\n" for i in order], [f"{sentences[row]}\n" for row in plan.held]


def corpus_texts(workspace: Workspace, settings: BlockSettings) -> Iterator[str]:
    """Yield every text that is trained on: what a tokenizer is made for."""
    descriptions = read_descriptions(workspace)
    for plan in plan_parts(workspace, settings):
        yield from part_texts(workspace, plan, descriptions)[0]


def pack(tokens: Tokens, settings: BlockSettings, begin: int | None) -> Tokens:
    """Return tokens cut into blocks [n, T]; the last one is filled up with :func:`pad_of`.

    Args:
        tokens: of texts one after another.
        settings: size of a block, and type.
        begin: the token that begins a block, if the tokenizer has one.
    """
    room = settings.block - (begin is not None)
    n = -(-len(tokens) // room)
    filled = np.full(n * room, pad_of(settings.dtype), settings.dtype)
    filled[: len(tokens)] = tokens
    blocks = filled.reshape(n, room)
    if begin is None:
        return blocks
    return np.concatenate([np.full((n, 1), begin, settings.dtype), blocks], axis=1)


def pad_of(dtype: np.dtype) -> int:
    """Return what stands in stored blocks where there is no token: no vocabulary has this id."""
    return int(np.iinfo(dtype).max)


class TokenBlocks:
    """Blocks of tokens, gathered batch by batch.

    Args:
        parts: arrays [n, T], memory-mapped or not. Only the last block of a part is filled up.
    """

    def __init__(self, parts: Sequence[Tokens]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._first = np.cumsum([0, *map(len, self._parts)])
        self.width = self._parts[0].shape[1] if self._parts else 0
        """Tokens of a block; 0 without any."""
        self._targets = np.full(len(self), self.width - 1, np.int64)
        for end, part in zip(self._first[1:], self._parts, strict=True):
            self._targets[end - 1] = (part[-1] != pad_of(part.dtype)).sum() - 1

    def __len__(self) -> int:
        return int(self._first[-1])

    def count_targets(self, rows: npt.NDArray[np.int64]) -> int:
        """Return how many tokens of some blocks are predicted."""
        return int(self._targets[rows].sum())

    def gather(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input tokens and the token after each (:data:`IGNORED`: none), int64 [B, T]."""
        parts = np.searchsorted(self._first, rows, side="right") - 1
        found = np.stack(
            [self._parts[p][row - self._first[p]] for p, row in zip(parts, rows, strict=True)]
        ).astype(np.int64)
        filled = found == pad_of(self._parts[0].dtype)
        targets = np.full_like(found, IGNORED)
        targets[:, :-1] = np.where(filled[:, 1:], IGNORED, found[:, 1:])
        return torch.from_numpy(np.where(filled, 0, found)), torch.from_numpy(targets)

    def nothing(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the least that a model can run on, without a target."""
        ids = torch.zeros(1, 2, dtype=torch.long)
        return ids, torch.full_like(ids, IGNORED)


@dataclass(frozen=True)
class Blocks:
    """Finished blocks: their key, their manifest, and the folder of their parts."""

    key: str
    manifest: BlockManifest
    folder: Store

    def open(self, begin: int | None) -> tuple[TokenBlocks, TokenBlocks]:
        """Map the blocks on this machine (from a bucket: copied here first): training and held-out ones."""
        parts = PartFolder(self.folder, SUFFIXES, _read_counts)
        train = [_read(parts.file(name, ".npy")) for name in self.manifest.parts]
        held = np.concatenate([_read(parts.file(name, ".held.npy")) for name in self.manifest.parts])
        return TokenBlocks(train), TokenBlocks([pack(held, self.manifest.settings, begin)])


def _read(file: Store) -> Tokens:
    array: Tokens = np.load(file.local_copy(machine_cache()), mmap_mode="r", allow_pickle=False)
    return array


def block_parts(workspace: Workspace, settings: BlockSettings) -> PartFolder[BlockCounts]:
    """Return the folder of parts that all blocks of the same tokenizer and size share."""
    return PartFolder(workspace.inputs(settings.parts_key()), SUFFIXES, _read_counts, fault_of)


def _read_counts(file: Store) -> BlockCounts:
    return BlockCounts.model_validate_json(file.read_bytes())


def block_manifests(workspace: Workspace, parts_key: str) -> Iterator[BlockManifest]:
    """Yield the manifests of all blocks whose parts lie in the folder of this key."""
    for manifest in read_each(workspace.inputs(), BlockManifest):
        if manifest.settings.parts_key() == parts_key:
            yield manifest


def write_part(
    parts: PartFolder[BlockCounts], name: str, blocks: Tokens, held: Tokens, counts: BlockCounts
) -> None:
    """Write a part, each file whole or not at all, the counts last."""
    for suffix, array in ((".npy", blocks), (".held.npy", held)):
        with parts.writing(name, suffix) as path, Path(path).open("wb") as file:
            np.save(file, array, allow_pickle=False)
    with parts.writing(name, ".json") as path:
        path.write_text(counts.model_dump_json(), encoding="utf-8")


def open_blocks(workspace: Workspace, key: str) -> Blocks | None:
    """Return the blocks of a key, or None if they are not there, or not whole.

    Raises:
        StorageError: they were made from another corpus than the one that is there now.
    """
    file = workspace.inputs(key) / MANIFEST
    if not file.exists():
        return None
    manifest = read_model(file, BlockManifest, "delete the folder")
    if manifest.corpus_digest != read_manifest(workspace).digest:
        raise StorageError(
            f"{workspace.inputs(key).uri}: made from another corpus than the one that is there now"
        )
    parts = block_parts(workspace, manifest.settings)
    whole = parts.finished(manifest.parts)
    return Blocks(key, manifest, parts.folder) if whole.keys() == manifest.parts.keys() else None
