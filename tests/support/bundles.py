"""Small bundles for tests, made through the same doors as real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.bundle import Bundle, publish
from engine.generation.model import LanguageModel
from engine.generation.names import name_trie
from engine.retrieval.index import VectorIndex, unit
from engine.vocabulary import ENTITY_SCHEMA
from engine.workspace import Workspace
from tests.support.language_models import tiny_model


def write_entities(path: Path, names: Sequence[str], aliases: Mapping[str, list[str]] | None = None) -> None:
    """Write an entity table with these names, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "entity_id": i,
            "name": name,
            "aliases": (aliases or {}).get(name, []),
            "description": None,
            "attributes": [],
        }
        for i, name in enumerate(names)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=ENTITY_SCHEMA), path)


def publish_vectors(
    workspace: Workspace,
    names: Sequence[str],
    views: Mapping[str, np.ndarray],
    hubness: Mapping[str, np.ndarray] | None = None,
    model: LanguageModel | None = None,
) -> Bundle:
    """Publish a bundle whose views hold the given vectors [len(names), D], normalised.

    With a language model it also holds that and the trie of the names.
    """
    staged = workspace.bundles.staging()
    write_entities(staged / "entities.parquet", names)
    for view, vectors in views.items():
        VectorIndex(unit(vectors)).write(staged / "index" / f"{view}.faiss")
    for view, penalty in (hubness or {}).items():
        np.save(staged / "index" / f"{view}.hubness.npy", penalty.astype(np.float32))
    if model is not None:
        model.model.save_pretrained(staged / "lm")
        model.tokenizer.save_pretrained(staged / "lm")
        name_trie(model.tokenizer, names).save(staged / "trie")
    publish(workspace, staged, {"views": sorted(views)})
    return Bundle.open(workspace)


def random_bundle(root: Path, n: int = 500, d: int = 16, seed: int = 0) -> Bundle:
    """Publish n entities ("entity 0" …) with random vectors under every view that a method reads."""
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    names = [f"entity {i}" for i in range(n)]
    return publish_vectors(Workspace.open(root), names, {"mask": vectors, "best": vectors})


def method_bundle(root: Path, n: int = 500, d: int = 16, seed: int = 0) -> Bundle:
    """Publish n entities with random vectors, hubness and a random language model: all that methods read."""
    random = np.random.default_rng(seed)
    views = {v: random.normal(size=(n, d)) for v in ("mask", "description", "lexical", "joint")}
    names = [f"entity {i}" for i in range(n)]
    return publish_vectors(Workspace.open(root), names, views, {"joint": random.random(n)}, tiny_model())
