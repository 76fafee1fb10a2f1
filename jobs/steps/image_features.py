"""Make the patch features of a corpus' images: hash all contents, encode those without features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.positions import StoredMentionPosition
from engine.corpus.readers.base import RefusedRecord
from engine.corpus.schema import check_whole, read_manifest
from engine.errors import UserError
from engine.images.features import INDEX, INDEX_SCHEMA, ImageManifest, feature_parts, part_id
from engine.images.fetch import HashedImage, ImageFiles, ImageHasher, check_seen
from engine.images.settings import ImageSettings
from engine.images.worker import Contents, ImageWorker
from engine.models.vision import VisionBackbone
from engine.refusals import Code, Refusal
from engine.storage.manifests import made_by_after, makers_in
from engine.storage.parts import MANIFEST, write_model, write_pointer
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.versions import OF_FEATURES, versions_of
from jobs import console
from jobs.settings import Making
from jobs.workers.executor import Executor, given_or_auto, make_parts

PART_IMAGES = 512
"""Images of a part at most: the unit of work and of recovery."""


ADDRESSES_A_TASK = 2048


QUARANTINE = "images.jsonl"


@dataclass(frozen=True)
class FeatureRunResult:
    """The result of a run, in distinct contents; ``manifest`` counts addresses."""

    key: str
    manifest: ImageManifest
    distinct: int
    made: int
    kept: int


@dataclass(frozen=True)
class Features:
    """All parts of a folder by id, each with its contents; and how many of the contents asked for were made
    now, and kept."""

    parts: dict[str, pa.Table]
    made: int
    kept: int


def make_image_features(
    workspace: Workspace, making: Making, force: bool = False, executor: Executor | None = None
) -> FeatureRunResult:
    """Make the features of a workspace's images; contents that have theirs already are kept.

    Args:
        workspace: holds the corpus, receives ``images/<key>`` and ``corpus/quarantine/images.jsonl``.
        making: the backbone and the patches.
        force: make everything again.
        executor: where images are read, decoded and encoded; None: an :class:`AutoExecutor`.

    Raises:
        StorageError: there is no corpus, or a bucket cannot be used.
        UserError: no mention has an image, none of the images can be used, or the backbone cannot be loaded.
    """
    mentioned = _mentioned(workspace)
    backbone = VisionBackbone.load(making.model, making.patches, making.grid, "--model")
    settings = ImageSettings(backbone=backbone.fingerprint(), patches=backbone.patches, grid=making.grid)
    folder = workspace.images(settings.key(making.model))
    if force:
        folder.delete()
    makers = makers_in(folder / MANIFEST)
    addresses = list(mentioned)
    with given_or_auto(executor, workspace.root) as executor:
        images = _hash_images(workspace, addresses, executor)
        check_seen(ImageFiles(workspace), _missing(addresses, images))
        by_content = _by_content(addresses, images)
        n_values = backbone.n_patches * backbone.dim
        features = _make_features(workspace, folder, making, settings, by_content, executor, n_values)
    images = _with_reasons(images, list(features.parts.values()))
    refused = {a: i for a, i in zip(addresses, images, strict=True) if i.refusal}
    _write_quarantine(workspace, mentioned, refused)
    if len(refused) == len(addresses):
        raise UserError(
            f"{workspace.corpus.uri}: none of its {len(addresses)} images can be used. The first: "
            f"{addresses[0]}: {images[0].reason}. Put the images where the addresses say (relative ones lie "
            "below the source's folder), or import the corpus again with others"
        )
    manifest = ImageManifest(
        settings=settings,
        model=making.model,
        corpus_digest=read_manifest(workspace).digest,
        n_patches=backbone.n_patches,
        dim=backbone.dim,
        parts={part: len(table) for part, table in features.parts.items()},
        images=len(addresses),
        refused=len(refused),
        made_by=made_by_after(makers, versions_of(OF_FEATURES) if features.made else None),
    )
    _publish(workspace, folder, addresses, images, manifest)
    return FeatureRunResult(folder.name, manifest, len(by_content), features.made, features.kept)


def _mentioned(workspace: Workspace) -> dict[str, StoredMentionPosition]:
    """Return every distinct address and where it is first named, in the corpus' order.

    Raises:
        UserError: no mention has an image, or the corpus is not whole.
    """
    check_whole(workspace)
    found: dict[str, StoredMentionPosition] = {}
    for part in workspace.mentions():
        with part.open_input() as stream:
            table = pq.read_table(stream, columns=["entity_id", "image"])
        pairs = zip(table["entity_id"].to_pylist(), table["image"].to_pylist(), strict=True)
        for row, (entity_id, image) in enumerate(pairs):
            if image is not None and image not in found:
                found[image] = StoredMentionPosition(part.name, row, entity_id)
    if not found:
        raise UserError(
            f"{workspace.corpus.uri}: no mention has an image; import a corpus whose records name one "
            "(the field `image`: a path or an s3:// address)"
        )
    return found


def _hash_images(workspace: Workspace, addresses: Sequence[str], executor: Executor) -> list[HashedImage]:
    """Read, hash and check every address; in the order of the addresses."""
    chunks = [addresses[at : at + ADDRESSES_A_TASK] for at in range(0, len(addresses), ADDRESSES_A_TASK)]
    found: dict[int, list[HashedImage]] = {}
    with console.meter("reading, images", len(addresses)) as meter:
        for place, images in executor.map(ImageHasher, (workspace.root.uri,), chunks):
            found[place] = images
            meter.add(len(images))
    return [image for place in range(len(chunks)) for image in found[place]]


def _missing(addresses: Sequence[str], images: Sequence[HashedImage]) -> list[str]:
    """Return the addresses at which no file was found."""
    pairs = zip(addresses, images, strict=True)
    return [a for a, image in pairs if image.refusal and image.refusal.code == Code.IMAGE_MISSING]


def _by_content(addresses: Sequence[str], images: Sequence[HashedImage]) -> dict[str, str]:
    """Return one address of every distinct content that is not refused, in the corpus' order."""
    found: dict[str, str] = {}
    for address, image in zip(addresses, images, strict=True):
        if not image.refusal:
            found.setdefault(image.sha256, address)
    return found


def _make_features(
    workspace: Workspace,
    folder: Store,
    making: Making,
    settings: ImageSettings,
    by_content: Mapping[str, str],
    executor: Executor,
    n_values: int,
) -> Features:
    """Make new parts of the contents (by sha256 an address) that no part holds yet."""
    files = feature_parts(folder)
    parts = files.finished()
    there = {sha for table in parts.values() for sha in table["sha256"].to_pylist()}
    missing = [sha for sha in by_content if sha not in there]
    kept = len(by_content) - len(missing)
    if kept:
        console.say(f"{folder.uri}: {kept} of {len(by_content)} images are there already and are kept")
    chunks = [missing[at : at + PART_IMAGES] for at in range(0, len(missing), PART_IMAGES)]
    made = make_parts(
        files,
        {part_id(chunk): Contents(chunk, [by_content[sha] for sha in chunk]) for chunk in chunks},
        ImageWorker,
        (workspace.root.uri, making.model, settings, folder.name, making.batch_size),
        executor,
        label="features, images",
        size=lambda contents: len(contents.sha256s),
        gpu=True,
        stored=lambda contents: len(contents.sha256s) * n_values * np.dtype(np.float16).itemsize,
    )
    # In the order in which a later run finds them: what that one publishes is the same.
    return Features(dict(sorted((parts | made.parts).items())), len(missing), kept)


def _with_reasons(images: Sequence[HashedImage], parts: Sequence[pa.Table]) -> list[HashedImage]:
    """Return the images with the reasons of those that turned out broken when they were decoded."""
    broken: dict[str, Refusal] = {}
    for table in parts:
        refused = table.filter(table["reason"].is_valid())
        reasons = (Refusal(Code.IMAGE_BROKEN, reason) for reason in refused["reason"].to_pylist())
        broken |= zip(refused["sha256"].to_pylist(), reasons, strict=True)
    return [image._replace(refusal=image.refusal or broken.get(image.sha256)) for image in images]


def _write_quarantine(
    workspace: Workspace, mentioned: Mapping[str, StoredMentionPosition], refused: Mapping[str, HashedImage]
) -> None:
    """Write a line for every refused image; the file of an earlier run goes."""
    file = workspace.corpus / "quarantine" / QUARANTINE
    if not refused:
        file.delete()
        if f"quarantine/{QUARANTINE}" in workspace.corpus_files("quarantine"):
            file.write_bytes(b"")  # in the place of one that lies in a former corpus' folder
        return
    lines = [
        RefusedRecord(address, mentioned[address], image.refusal, image.sha256, of="detail").as_json()
        for address, image in refused.items()
        if image.refusal
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_bytes(text.encode())
    for address, image in list(refused.items())[:3]:
        console.say(f"  {address}: {image.reason}")
    console.say(
        f"{len(refused)} of {len(mentioned)} images cannot be used, their sentences stay without one; see "
        f"{file.uri}"
    )


def _publish(
    workspace: Workspace,
    folder: Store,
    addresses: Sequence[str],
    images: Sequence[HashedImage],
    manifest: ImageManifest,
) -> None:
    columns = [list(addresses), [i.sha256 or None for i in images], [i.reason or None for i in images]]
    with (folder / INDEX).writing() as path:
        pq.write_table(pa.table(columns, schema=INDEX_SCHEMA), path)
    write_model(folder / MANIFEST, manifest)
    write_pointer(workspace.root / "images", folder.name)
