"""Define the stored form of mentions, and the manifest that says a corpus is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from engine.errors import StorageError
from engine.storage.manifests import VersionedManifest, format_fault
from engine.storage.whole import fault_of, fault_of_size
from engine.storage.workspace import Workspace

MENTION_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("image", pa.string()),
    ]
)
"""``corpus/mentions/*.parquet``: start and end count characters of the sentence, end exclusive.

``image`` is an address for :meth:`engine.storage.workspace.Workspace.image`. A context that is an image
alone has the sentence "", start 0 and end 0; no other has an end of 0.
"""

PART_ROWS = 8192
"""Rows of a mentions part at most: the unit of parallel work, of recovery, and of memory."""

MANIFEST = "manifest.json"
_IMPORT_AGAIN = "import the corpus again with --overwrite"
_UNKNOWN: Mapping[str, int] = MappingProxyType({})


class SourceFile(BaseModel):
    """A file that was read."""

    name: str
    size: int
    sha256: str


class Counts(BaseModel):
    """The counts of all imports. Sentences read = mentions + removed + refused + duplicates + known."""

    entities: int = 0
    mentions: int = 0
    sentences_read: int = 0
    refused: int = 0
    duplicates: int = 0
    entities_refused: int = 0
    details_refused: int = 0
    files_broken: int = 0
    entities_without_sentences: int = 0
    images: int = 0
    """Mentions with an image."""
    known: int = 0
    """Sentences that were there already when they were to be added."""
    removed: int = 0
    """Mentions that were removed, as the source had them no more."""
    entities_removed: int = 0
    """Entities that were removed and keep their ids; they count among the entities."""
    details_known: int = 0
    """Entities that were there already with other details, which stayed."""

    @property
    def quarantined(self) -> int:
        """Lines in the quarantine."""
        refused = self.refused + self.duplicates + self.entities_refused
        return refused + self.details_refused + self.files_broken


class CorpusManifest(VersionedManifest):
    """The manifest ``corpus/manifest.json``, written last."""

    anew = "import the corpus again with --overwrite"

    format_version: str = "1.1"
    """1.1 names what made the files."""
    format: str
    source: str
    files: list[SourceFile]
    files_added: int = 0
    """How many of the files, the last ones, the last import read."""
    counts: Counts
    added: Counts = Counts()
    """Of the last import alone; entities are those that were not there before."""
    found: dict[str, int]
    """Mentions by how they were found."""
    mention_rules: int = 1
    """Version of the rules by which they were found; what is added is found by the same ones."""
    reasons: dict[str, int]
    """Refusals by reason (numbers and names taken out)."""
    parts: list[int]
    """Rows of every mentions part, in order."""
    digest: str
    """sha256 of the entity table and the mentions parts: what is made from the same corpus may be kept."""
    part_digests: list[str] = Field(default_factory=list)
    """sha256 of every mentions part: what is made from the same part may be kept. Empty: not known."""
    lineage: str = ""
    """Digest of the corpus that this one grew from by additions, in all of which ids mean the same."""
    listed: bool = True
    """Whether a table names the entities; else the sentences do."""
    unread: list[str] = Field(default_factory=list)
    """Files of records in the source that are not part of the format, and were not read."""

    @property
    def line(self) -> str:
        """What corpora have in common that grew from one: its digest."""
        return self.lineage or self.digest


def corpus_digest(sha256s: dict[str, str]) -> str:
    """Return one digest of a corpus' files, given by name."""
    lines = "".join(f"{name} {sha}\n" for name, sha in sorted(sha256s.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def part_digests(workspace: Workspace) -> list[str]:
    """Return the sha256 of every mentions part, in order; of an older corpus they are read anew."""
    return read_manifest(workspace).part_digests or [part.sha256() for part in workspace.mentions()]


def read_manifest(workspace: Workspace) -> CorpusManifest:
    """Return the manifest of a workspace's corpus.

    Raises:
        StorageError: no corpus has been imported, or its manifest cannot be read.
    """
    workspace.mentions()
    file = workspace.corpus / MANIFEST
    try:
        return CorpusManifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        if fault := format_fault(error):
            raise StorageError(f"{file.uri}: {fault}") from None
        raise StorageError(
            f"{file.uri}: not a corpus manifest ({error.errors()[0]['msg']}); {_IMPORT_AGAIN}"
        ) from None


def check_whole(workspace: Workspace, sizes: Mapping[str, int] = _UNKNOWN) -> CorpusManifest:
    """Check, before work on a corpus begins, that none of its files is missing or cut; return its manifest.

    Args:
        workspace: with a corpus.
        sizes: bytes of mentions parts, by their names, as far as they are known: of these nothing is read.

    Raises:
        StorageError: there is no corpus, or it is not whole.
    """
    manifest, parts = read_manifest(workspace), workspace.mentions()
    if len(parts) != len(manifest.parts):
        raise StorageError(
            f"{workspace.corpus.uri}/mentions: not the parts that corpus/manifest.json lists; import again "
            f"({len(parts)} of {len(manifest.parts)} are there)"
        )
    for file in (workspace.entities, *parts):
        fault = fault_of_size(file, sizes[file.name]) if file.name in sizes else fault_of(file)
        if fault:
            raise StorageError(f"{file.uri}: {fault}; {_IMPORT_AGAIN}")
    return manifest


def is_of_former_corpus(workspace: Workspace, digest: object) -> bool:
    """Return whether something is of another corpus than the one that is there now; of none is told nothing.

    Args:
        workspace: with a corpus, or without.
        digest: of the corpus that it was made from; None or empty: it is not known.
    """
    try:
        return bool(digest) and read_manifest(workspace).digest != digest
    except StorageError:
        return False


def check_same_corpus(workspace: Workspace, digest: str) -> None:
    """Check that the corpus is still the one that a job began with.

    Raises:
        StorageError: another one was imported meanwhile.
    """
    now = read_manifest(Workspace.open(workspace.root.uri)).digest
    if now != digest:
        raise StorageError(
            f"{workspace.root.uri}: another corpus was imported while this command ran, so what it made is "
            "not used; run `seedset preprocess` and then this command again"
        )
