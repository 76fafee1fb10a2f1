"""Run every distinct image of a corpus once through a frozen vision backbone, and store its patch features.

A first pass reads and hashes what the mentions name; a pool of actors then decodes and encodes the contents
that have no features yet, part by part. A part is there whole or not at all, so a run that was stopped goes
on where it was, and a corpus that has grown costs only what is new.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from cluster.commandline import command
from cluster.options import CommandSettings, declared
from cluster.session import session
from engine.corpus.positions import StoredMentionPosition
from engine.corpus.readers.base import RefusedRecord
from engine.errors import UserError
from engine.images.features import (
    CURRENT,
    INDEX,
    INDEX_SCHEMA,
    MANIFEST,
    ImageManifest,
    ImageSettings,
    finished_parts,
)
from engine.images.fetch import ImageHasher
from engine.images.worker import ImageMaker
from engine.models.vision import Patches, VisionBackbone
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.workers.executor import pooled

EXAMPLES = """
  python -m jobs.image_features --workspace work --model microsoft/resnet-50
  python -m jobs.image_features --workspace work --model microsoft/resnet-50 --patches crop
  python -m jobs.image_features --workspace s3://bucket/work --model s3://bucket/models/clip --grid 4
"""

PART_IMAGES = 512
"""Images of a part at most: the unit of work and of recovery."""

ADDRESSES_A_TASK = 2048

QUARANTINE = "images.jsonl"


class Image(NamedTuple):
    """What is behind an address: sha256 of its content, "" where it cannot be read, and why it is refused."""

    sha256: str
    refusal: Refusal | None

    @property
    def reason(self) -> str:
        """The refusal's detail; "" where there is none."""
        return self.refusal.detail if self.refusal else ""


@dataclass(frozen=True)
class Outcome:
    """What a run did, in distinct contents; ``manifest`` counts addresses."""

    key: str
    manifest: ImageManifest
    distinct: int
    made: int
    kept: int


class Making(BaseModel):
    """How features are made: the actors' arguments and the size of their pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="The backbone: a model folder, local or s3://, or a hub name. ResNet, MobileNet, ViT, "
        "CLIP."
    )
    patches: Patches = declared(ImageSettings, "patches")
    grid: int = declared(ImageSettings, "grid")
    batch_size: int = Field(default=32, ge=1, description="Images that are decoded and encoded at a time.")
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Actors.  [default: the cluster's GPUs, or its CPUs where there are none]",
    )


def make_image_features(workspace: Workspace, making: Making, force: bool = False) -> Outcome:
    """Make the features of a workspace's images; contents that have theirs already are kept.

    Args:
        workspace: holds the corpus, receives ``images/<key>`` and ``corpus/quarantine/images.jsonl``.
        making: the backbone, the patches, the pool.
        force: make everything again.

    Raises:
        StorageError: there is no corpus, or a bucket cannot be used.
        UserError: no mention has an image, or the backbone cannot be loaded.
    """
    mentioned = _mentioned(workspace)
    if not mentioned:
        raise UserError(
            f"{workspace.corpus.uri}: no mention has an image; import a corpus whose records name one "
            "(the field `image`: a path or an s3:// address)"
        )
    backbone = VisionBackbone.load(making.model, making.patches, making.grid, "--model")
    settings = ImageSettings(backbone=backbone.fingerprint(), patches=backbone.patches, grid=making.grid)
    key = settings.key(making.model)
    folder = workspace.images(key)
    if force:
        folder.delete()
    addresses = list(mentioned)
    with session():
        images = _hashed(workspace, addresses, making.workers)
        by_content = _by_content(addresses, images)
        there = {sha for table in finished_parts(folder).values() for sha in table["sha256"].to_pylist()}
        missing = [sha for sha in by_content if sha not in there]
        kept = len(by_content) - len(missing)
        if kept:
            console.say(f"{folder.uri}: {kept} of {len(by_content)} images are there already and are kept")
        _make(workspace, making, settings, key, {sha: by_content[sha] for sha in missing})
    parts = finished_parts(folder)
    images = _with_reasons(images, list(parts.values()))
    refused = {a: i for a, i in zip(addresses, images, strict=True) if i.refusal}
    _write_quarantine(workspace, mentioned, refused)
    manifest = ImageManifest(
        settings=settings,
        model=making.model,
        n_patches=backbone.n_patches,
        dim=backbone.dim,
        parts={part: len(table) for part, table in parts.items()},
        images=len(addresses),
        refused=len(refused),
    )
    _publish(workspace, folder, addresses, images, manifest)
    return Outcome(key, manifest, len(by_content), len(missing), kept)


def _mentioned(workspace: Workspace) -> dict[str, StoredMentionPosition]:
    """Return every distinct address and where it is first named, in the corpus' order."""
    found: dict[str, StoredMentionPosition] = {}
    for part in workspace.mentions():
        with part.open_input() as stream:
            table = pq.read_table(stream, columns=["entity_id", "image"])
        pairs = zip(table["entity_id"].to_pylist(), table["image"].to_pylist(), strict=True)
        for row, (entity_id, image) in enumerate(pairs):
            if image is not None and image not in found:
                found[image] = StoredMentionPosition(part.name, row, entity_id)
    return found


def _hashed(workspace: Workspace, addresses: Sequence[str], workers: int | None) -> list[Image]:
    """Read, hash and check every address on the cluster; in the order of the addresses."""
    starts = range(0, len(addresses), ADDRESSES_A_TASK)
    items = [{"chunk": at, "images": list(addresses[at : at + ADDRESSES_A_TASK])} for at in starts]
    found: dict[int, list[Image]] = {}
    with console.meter("reading, images", len(addresses)) as meter:
        for row in pooled(items, ImageHasher, (workspace.root.uri,), workers):
            columns = zip(row["sha256"], row["code"], row["reason"], strict=True)
            images = [Image(sha, Refusal(Code(code), why) if code else None) for sha, code, why in columns]
            found[int(row["chunk"])] = images
            meter.add(len(images))
    return [image for at in starts for image in found[at]]


def _by_content(addresses: Sequence[str], images: Sequence[Image]) -> dict[str, str]:
    """Return one address of every distinct content that is not refused, in the corpus' order."""
    found: dict[str, str] = {}
    for address, image in zip(addresses, images, strict=True):
        if not image.refusal:
            found.setdefault(image.sha256, address)
    return found


def _make(
    workspace: Workspace, making: Making, settings: ImageSettings, key: str, missing: Mapping[str, str]
) -> None:
    """Make the features of the given contents, by sha256 an address, on the cluster."""
    sha256s, addresses = list(missing), list(missing.values())
    parts = [slice(at, at + PART_IMAGES) for at in range(0, len(sha256s), PART_IMAGES)]
    items = [{"sha256": sha256s[part], "images": addresses[part]} for part in parts]
    arguments = (workspace.root.uri, making.model, settings, key, making.batch_size)
    with console.meter("features, images", len(missing)) as meter:
        for row in pooled(items, ImageMaker, arguments, making.workers, gpu=True):
            meter.add(int(row["rows"]))


def _with_reasons(images: Sequence[Image], parts: Sequence[pa.Table]) -> list[Image]:
    """Return the images with the reasons of those that turned out broken when they were decoded."""
    broken: dict[str, Refusal] = {}
    for table in parts:
        refused = table.filter(table["reason"].is_valid())
        reasons = (Refusal(Code.IMAGE_BROKEN, reason) for reason in refused["reason"].to_pylist())
        broken |= zip(refused["sha256"].to_pylist(), reasons, strict=True)
    return [image._replace(refusal=image.refusal or broken.get(image.sha256)) for image in images]


def _write_quarantine(
    workspace: Workspace, mentioned: Mapping[str, StoredMentionPosition], refused: Mapping[str, Image]
) -> None:
    """Write a line for every refused image; the file of an earlier run goes."""
    file = workspace.corpus / "quarantine" / QUARANTINE
    if not refused:
        file.delete()
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
    console.say(f"{len(refused)} images cannot be used, their sentences stay without one; see {file.uri}")


def _publish(
    workspace: Workspace,
    folder: Store,
    addresses: Sequence[str],
    images: Sequence[Image],
    manifest: ImageManifest,
) -> None:
    columns = [list(addresses), [i.sha256 or None for i in images], [i.reason or None for i in images]]
    with (folder / INDEX).writing() as path:
        pq.write_table(pa.table(columns, schema=INDEX_SCHEMA), path)
    (folder / MANIFEST).write_bytes(manifest.model_dump_json(indent=1).encode())
    workspace.images(CURRENT).write_bytes(folder.name.encode())


class ImageFeaturesSettings(CommandSettings):
    """What the command is told."""

    workspace: str = Field(description="Folder or s3:// prefix with a corpus whose mentions have images.")
    making: Making
    force: bool = Field(default=False, description="Make everything again, also what is there already.")


@command(EXAMPLES)
def main(settings: ImageFeaturesSettings) -> None:
    """Make patch features of a corpus' images: images/KEY, in parts of 512 distinct images.

    KEY stands for the backbone and the settings; others make another folder beside it. Images are told apart
    by their content: one that a thousand mentions share is read once and encoded once.

    An image that is missing, broken, animated, too large or in colours for print is named, with the reason,
    in corpus/quarantine/images.jsonl; its sentences stay, without an image.

    There is no torchvision here: Pillow decodes and resizes, on the CPU, a thread's work ahead of the
    backbone, and the fast image processors of transformers are not used. Each picture is squeezed to a
    square (not cropped), bicubic; scaling comes out of the model's preprocessor_config.json. Nothing is
    downloaded but the model, if you name one on the hub.
    """
    started = time.monotonic()
    outcome = make_image_features(Workspace.open(settings.workspace), settings.making, settings.force)
    seconds = time.monotonic() - started
    console.result(
        key=outcome.key,
        images=outcome.manifest.images,
        distinct=outcome.distinct,
        made=outcome.made,
        kept=outcome.kept,
        refused=outcome.manifest.refused,
        images_per_second=f"{outcome.made / seconds:.1f}",
        seconds=f"{seconds:.1f}",
    )


if __name__ == "__main__":
    main.run()
