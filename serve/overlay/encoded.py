"""Write the vectors and the hubness of an entity as bytes (safetensors), and read them."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load, save

from engine.query import NewEntity

VECTOR, HUBNESS = "vector/", "hubness/"


def dumped(entity: NewEntity) -> bytes:
    """Return what was made of an entity's sentences."""
    vectors = {f"{VECTOR}{view}": np.asarray(one, np.float32) for view, one in entity.vectors.items()}
    hubs = {f"{HUBNESS}{view}": np.array([one], np.float32) for view, one in (entity.hubness or {}).items()}
    return bytes(save(vectors | hubs))


def loaded(name: str, sentences: tuple[str, ...], data: bytes) -> NewEntity:
    """Return an entity with what :func:`dumped` wrote."""
    arrays = load(data)
    vectors = {key.removeprefix(VECTOR): one for key, one in arrays.items() if key.startswith(VECTOR)}
    hubs = {
        key.removeprefix(HUBNESS): float(one[0]) for key, one in arrays.items() if key.startswith(HUBNESS)
    }
    return NewEntity(name, sentences, vectors, hubs)
