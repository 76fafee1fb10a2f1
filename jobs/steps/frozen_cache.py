"""Fill the frozen-layer cache on the cluster: every sentence through the frozen layers, once.

Not a job of its own: ``train_encoder`` and ``build_index`` call it, and it makes only what is missing.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

import torch

from engine.corpus.inputs.format import Inputs
from engine.corpus.inputs.masking import fingerprint, fitting_tokenizer
from engine.errors import UserError
from engine.models.device import worker_device
from engine.models.text import TextEncoder
from engine.storage.parts import PartFolder, check_whole
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache, InputRows, fill_part
from jobs.workers.executor import Executor, given_or_auto, make_parts

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

DTYPE = "bfloat16"
"""The usual type of stored states: half the bytes."""


def frozen_cache(
    workspace: Workspace,
    inputs: Inputs,
    model: str,
    dtype: str = DTYPE,
    executor: Executor | None = None,
) -> FrozenCache:
    """Return the cache of some inputs, after its missing parts were filled.

    Args:
        workspace: receives ``cache/<key>``.
        inputs: from ``jobs.preprocess``.
        model: the encoder whose frozen layers run.
        dtype: of the stored states: "bfloat16" (half the bytes) or "float32" (exact).
        executor: where they run; default: see :class:`jobs.workers.executor.AutoExecutor`.

    Raises:
        UserError: the encoder does not fit the inputs.
    """
    _check_fit(inputs, model)
    weights = TextEncoder.load(model).lower_fingerprint()[:8]
    key = f"{inputs.manifest.settings.parts_key()}-{weights}-{dtype}"
    states = _states(workspace, key)
    tasks = {
        name: StateTask(name, source, rows)
        for name, source, rows in zip(inputs.names, inputs.parts, inputs.rows, strict=True)
    }
    arguments = (workspace.root.uri, model, dtype, key, weights)
    with given_or_auto(executor, workspace.root) as where:
        make_parts(
            states, tasks, StateWorker, arguments, where, "frozen layers, sentences", _rows_of, gpu=True
        )
    return FrozenCache(inputs, [states.file(name) for name in inputs.names])


def _check_fit(inputs: Inputs, model: str) -> None:
    """Refuse an encoder that cannot take the inputs, or for whom their tokens mean other things."""
    settings = inputs.manifest.settings
    tokenizer = fitting_tokenizer(model, settings.max_length, option="seedset preprocess --max-length")
    if fingerprint(tokenizer) != settings.tokenizer:
        raise UserError(
            f"--model {model}: the inputs {inputs.key} were made with the tokenizer of "
            f"{inputs.manifest.model!r}, and this model has another; run `seedset preprocess "
            f"--model {model}` first, or leave --model out"
        )


def _states(workspace: Workspace, key: str) -> PartFolder[None]:
    return PartFolder(workspace.cache(key), (".npy",), check_whole)


class StateTask(NamedTuple):
    """The task of one part: the inputs part of the same name, and its rows."""

    name: str
    source: Store
    rows: int


def _rows_of(task: StateTask) -> int:
    return task.rows


class StateWorker:
    """A worker that runs the frozen layers and writes one part's states at a time.

    Args:
        workspace: its address.
        model: the encoder.
        dtype: of the stored states, a key of :data:`DTYPES`.
        key: of the cache.
        weights: begin of the digest of the frozen layers that the key stands for.

    Raises:
        UserError: the encoder is another one on this machine.
    """

    def __init__(self, workspace: str, model: str, dtype: str, key: str, weights: str) -> None:
        self._states, self._dtype = _states(Workspace.open(workspace), key), DTYPES[dtype]
        self._device = worker_device()
        encoder = TextEncoder.load(model)
        if not encoder.lower_fingerprint().startswith(weights):
            raise UserError(
                f"--model {model}: has other weights on the machine {socket.gethostname()}, or has been "
                "changed meanwhile: give every machine the same files and run the command again"
            )
        self._encoder = encoder.to(self._device)

    def __call__(self, task: StateTask) -> None:
        """Write the states of an inputs part."""
        rows = InputRows.read(task.source.local_copy(machine_cache()))
        with self._states.writing(task.name) as path:
            fill_part(self._encoder, rows, path, self._dtype, self._device)
