"""Describe, draw and read model input on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.corpus.schema import read_manifest
from engine.errors import StorageError
from engine.storage.manifests import VersionedManifest
from engine.storage.parts import MANIFEST, PartFolder, read_each, read_model, read_pointer
from engine.storage.store import Store
from engine.storage.workspace import Workspace

INPUT_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("mask_index", pa.int32(), nullable=False),
    ]
)
"""One file per mentions part. ``row`` is the number of the mention in that part, ``mask_index`` the place of
the mask token in ``input_ids``."""

_FORMAT = 2
"""Part of every key. Rows of the first format were drawn by their places and numbered in the corpus."""

Stats = dict[str, int]
"""rows, tokens, longest, clipped and unknown (tokens) of one part; kept in its Parquet footer, so that a
rerun can add up."""


class InputSettings(BaseModel):
    """The settings that decide what the model input is, apart from the corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: str
    """:func:`engine.corpus.inputs.masking.fingerprint`."""
    max_length: int = Field(
        default=128, ge=8, description="Cut an input to this many tokens, a window around the mask."
    )
    max_sentences: int = Field(
        default=30, ge=1, description="Draw at most this many sentences of each entity at random."
    )
    descriptions: bool = Field(default=False, description="Put the entity's description in front (RA).")
    description_names: Literal["kept", "masked"] = Field(
        default="kept",
        description="Leave an entity's own names in its description, as RetExpan's RA does, or mask them "
        "there too.",
    )
    """Masked is ours: what is left is what entities have in common."""
    window: Literal["sentence", "input"] = Field(
        default="sentence",
        description="Cut what is too long: the sentence around its mask, and the description to half of "
        "the room at least; or cut all of it around the mask, special tokens too, as RetExpan's authors do.",
    )
    seed: int = Field(default=13, ge=0, description="Seed the draw of sentences.")
    images: bool = Field(
        default=False, description="Draw contexts that are an image without a sentence, too."
    )
    """They are the mask token alone."""

    def key(self, corpus_digest: str) -> str:
        """Return the folder name of these settings over a corpus: readable, and different if anything is."""
        content = f"{_FORMAT} {self.model_dump_json()} {corpus_digest}"
        about = ("-RA" if self.descriptions else "") + ("-I" if self.images else "")
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"mask-L{self.max_length}-S{self.max_sentences}{about}-{digest}"

    def parts_key(self) -> str:
        """Return the name of the folder of parts: of what decides how a given sentence is written.

        Which sentences are drawn is not part of it; that is in each part's own name.
        """
        about = f"-RA {self.description_names}" if self.descriptions else ""
        content = f"{_FORMAT} {self.tokenizer} {self.max_length} {self.window}{about}"
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"parts-mask-L{self.max_length}{about[:3]}-{digest}"


class InputManifest(VersionedManifest):
    """The manifest ``inputs/<key>/manifest.json``, written last."""

    anew = "run `seedset preprocess`, and then `seedset train-encoder` for an encoder that was trained on it"

    format_version: str = "2.1"
    """2.1 names what made the parts."""
    settings: InputSettings
    model: str
    corpus_digest: str
    mentions: int
    tokens: int
    longest: int
    """Tokens of the longest input."""
    clipped: int
    """Inputs that do not hold their whole sentence or description."""
    unknown: int = 0
    """Tokens that stand for something that the vocabulary does not have."""
    parts: dict[str, int]
    """Rows of every part by its name, in the order of the mentions parts."""
    sources: list[str] = Field(default_factory=list)
    """sha256 of the mentions part that each was made from. Empty: made by an earlier version."""


@dataclass(frozen=True)
class Inputs:
    """Finished model input: its key, its manifest, and its parts in order."""

    key: str
    manifest: InputManifest
    parts: list[Store]

    @property
    def names(self) -> list[str]:
        """The parts' names, in order."""
        return list(self.manifest.parts)

    @property
    def rows(self) -> list[int]:
        """Rows of every part, in order."""
        return list(self.manifest.parts.values())


def input_parts(workspace: Workspace, settings: InputSettings) -> PartFolder[Stats]:
    """Return the folder of parts that all model input of the same tokenizer and length shares."""
    return PartFolder(workspace.inputs(settings.parts_key()), (".parquet",), _read_stats)


def _read_stats(file: Store) -> Stats:
    with file.open_input() as stream:
        metadata = pq.read_schema(stream).metadata or {}
    counts = {name: int(metadata[name.encode()]) for name in ("rows", "tokens", "longest", "clipped")}
    # Parts made before these were counted have none.
    return counts | {"unknown": int(metadata.get(b"unknown", 0))}


def input_manifests(workspace: Workspace, parts_key: str) -> Iterator[InputManifest]:
    """Yield the manifests of all model input whose parts lie in the folder of this key."""
    for manifest in read_each(workspace.inputs(), InputManifest):
        if manifest.sources and manifest.settings.parts_key() == parts_key:
            yield manifest


def input_manifest(workspace: Workspace, key: str) -> InputManifest | None:
    """Return the manifest of some model input, of whatever corpus; None: it is not there, or not whole."""
    content = (workspace.inputs(key) / MANIFEST).read_if_there()
    try:
        return None if content is None else InputManifest.model_validate_json(content)
    except ValidationError:
        return None


def open_inputs(workspace: Workspace, key: str | None = None) -> Inputs:
    """Return the model input of a workspace.

    Args:
        workspace: where ``seedset preprocess`` ran.
        key: which settings (a folder below ``inputs``); None: what was made last.

    Raises:
        StorageError: none was made, it is not complete, or the corpus has been replaced since.
    """
    way_out = f"run `seedset preprocess --workspace {workspace.root.uri}` first"
    key = key or read_pointer(workspace.inputs())
    if key is None:
        raise StorageError(f"{workspace.root.uri}: no model input here yet; {way_out}")
    folder = workspace.inputs(key)
    if not folder.exists():
        raise StorageError(f"{folder.uri}: no such model input; {way_out}")
    if not (folder / MANIFEST).exists():
        raise StorageError(
            f"{folder.uri}: not complete, its {MANIFEST} is missing; run `seedset preprocess` again with the "
            "same settings, it makes what is missing"
        )
    manifest = read_model(folder / MANIFEST, InputManifest, way_out)
    if workspace.corpus.exists() and manifest.corpus_digest != read_manifest(workspace).digest:
        raise StorageError(
            f"{folder.uri}: made from another corpus than the one that is there now; {way_out}"
        )
    if not manifest.sources:
        raise StorageError(
            f"{folder.uri}: made by an earlier version, which drew other sentences; run `seedset preprocess` "
            "again, and then `seedset train-encoder` for an encoder that was trained on it"
        )
    parts = input_parts(workspace, manifest.settings)
    parts.check_complete(manifest.parts, "run `seedset preprocess` again with the same settings")
    return Inputs(key, manifest, [parts.file(name) for name in manifest.parts])
