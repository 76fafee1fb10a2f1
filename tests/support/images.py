"""Pictures, a small backbone and a corpus that names them, for tests of the image step."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from engine.corpus.image_addresses import FOLDER
from engine.corpus.importing.images import kind_of
from engine.storage.store import Store
from tests.support.corpora import jsonl, run_import


def image_bytes(colour: str, form: str = "PNG") -> bytes:
    """Return a file with a picture of 40 x 30 pixels, its left half black."""
    drawn = Image.new("RGB", (40, 30), colour)
    drawn.paste("black", (0, 0, 20, 30))
    stream = io.BytesIO()
    drawn.save(stream, form)
    return stream.getvalue()


def backbone(folder: Path, seed: int = 0) -> str:
    """Write a small ResNet for pictures of 64 pixels (a map of 8 x 8 cells) and return its folder."""
    torch.manual_seed(seed)
    ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1])).save_pretrained(folder)
    given = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return str(folder)


def stored(content: bytes) -> str:
    """Return the address that an import gives to a picture that comes as bytes."""
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.{kind_of(content)}"


def import_images(workspace: str | Path, raw: Path, images: Mapping[str, bytes | None]) -> list[str]:
    """Import a corpus with a sentence for each image and one without, and return the stored addresses.

    Args:
        workspace: its address.
        raw: the source's folder; relative addresses lie below it.
        images: by address the file's content; None: no file is written. The content of an address that
            :func:`stored` names comes as bytes.
    """
    records: list[dict[str, str]] = []
    for i, (address, content) in enumerate(images.items()):
        record = {"entity": "iron", "sentence": f"Iron, number {i}."}
        if content is not None and address == stored(content):
            record["image_bytes"] = base64.b64encode(content).decode()
        else:
            record["image"] = address
            if content is not None:
                Store.open(address if "://" in address else raw / address).write_bytes(content)
        records.append(record)
    records.append({"entity": "gold", "sentence": "Gold has no image."})
    jsonl(raw / "sentences.jsonl", records)
    got = run_import(workspace, raw, "jsonl", overwrite=True)
    return [m["image"] for m in got.mentions[: len(images)]]
