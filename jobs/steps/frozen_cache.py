"""Fill the frozen-layer cache on the cluster: every sentence through the frozen layers, once.

Not a job of its own: ``train_encoder`` and ``build_index`` call it, and it makes only what is missing.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from engine.corpus.inputs.format import Inputs, open_inputs
from engine.models.text import TextEncoder
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache, InputRows, fill_part
from jobs import console
from jobs.workers.executor import pooled

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def frozen_cache(
    workspace: Workspace, inputs: Inputs, model: str, dtype: str = "bfloat16", workers: int | None = None
) -> FrozenCache:
    """Return the cache of some inputs, after its missing parts were filled by a pool of actors.

    Args:
        workspace: receives ``cache/<key>``.
        inputs: from ``jobs.preprocess``.
        model: the encoder whose frozen layers run.
        dtype: of the stored states: "bfloat16" (half the bytes) or "float32" (exact).
        workers: actors; default: one a core, or one a GPU where there are any.
    """
    fingerprint = TextEncoder.load(model).lower_fingerprint()[:8]
    folder = workspace.cache(f"{inputs.key}-{fingerprint}-{dtype}")
    states = [folder / part.name.replace(".parquet", ".npy") for part in inputs.parts]
    there = {file.path for file in folder.files(".npy")}
    missing = [i for i, store in enumerate(states) if store.path not in there]
    if missing:
        if len(missing) < len(states):
            console.say(f"{folder.uri}: {len(states) - len(missing)} of {len(states)} parts are kept")
        _fill(workspace, inputs, model, dtype, folder, missing, workers)
    return FrozenCache(inputs, states)


def _fill(
    workspace: Workspace,
    inputs: Inputs,
    model: str,
    dtype: str,
    folder: Store,
    missing: list[int],
    workers: int | None,
) -> None:
    items = [{"part": i} for i in missing]
    arguments = (workspace.root.uri, inputs.key, model, dtype, folder.name)
    total = sum(inputs.manifest.parts[i] for i in missing)
    with console.meter("frozen layers, sentences", total) as meter:
        for row in pooled(items, StateMaker, arguments, workers, gpu=True):
            meter.add(int(row["rows"]))


class StateMaker:
    """An actor that holds the frozen layers and writes one part's states at a time."""

    def __init__(self, workspace: str, inputs_key: str, model: str, dtype: str, cache_key: str) -> None:
        self._uri, self._inputs_key, self._model = workspace, inputs_key, model
        self._dtype, self._cache_key = DTYPES[dtype], cache_key

    @cached_property
    def _device(self) -> torch.device:
        if torch.cuda.is_available():
            return torch.device("cuda")
        # One thread an actor: two that share a core wait for each other.
        torch.set_num_threads(1)
        return torch.device("cpu")

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder.load(self._model).to(self._device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[int]]:
        """Fill the part of a batch of one and return its number and sentences."""
        part = int(batch["part"][0])
        workspace = Workspace.open(self._uri)
        source = open_inputs(workspace, self._inputs_key).parts[part]
        rows = InputRows.read(source.local_copy(machine_cache()))
        target = workspace.cache(self._cache_key) / source.name.replace(".parquet", ".npy")
        with target.writing() as path:
            fill_part(self._encoder, rows, path, self._dtype, self._device)
        return {"part": [part], "rows": [len(rows)]}
