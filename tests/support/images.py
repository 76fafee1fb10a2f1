"""Pictures, a small backbone and a corpus that names them, for tests of the image step."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from engine.storage import Store
from engine.workspace import Workspace
from tests.support.corpora import run_import


def picture(colour: str, form: str = "PNG") -> bytes:
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


def import_images(workspace: str | Path, raw: Path, images: Mapping[str, bytes | None]) -> None:
    """Import a corpus with a sentence for each address and one without; contents go to their addresses.

    Args:
        workspace: its address.
        raw: a folder for the source.
        images: by address, as a mention holds it, the file's content; None: no file is written.
    """
    raw.mkdir(parents=True, exist_ok=True)
    records = [{"entity": "iron", "sentence": f"Iron, number {i}."} for i in range(len(images))]
    records.append({"entity": "gold", "sentence": "Gold has no image."})
    (raw / "sentences.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    run_import(workspace, raw, "jsonl", overwrite=True)
    # Addresses below the workspace come of pictures given as bytes; these have names that tests can say.
    (part,) = Workspace.open(workspace).mentions()
    with part.open_input() as stream:
        table = pq.read_table(stream)
    named = pa.array([*images, None], pa.string())
    with part.writing() as path:
        pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", named), path)
    for address, content in images.items():
        if content is not None:
            store = Store.open(address) if "://" in address else Store.open(workspace) / address
            store.write_bytes(content)
