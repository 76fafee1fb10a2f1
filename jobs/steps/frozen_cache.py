"""Fill the frozen-layer cache on the cluster: every sentence through the frozen layers, once.

Not a job of its own: ``train_encoder`` and ``build_index`` call it, and it makes only what is missing.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

import torch

from engine.corpus.inputs.format import Inputs, input_manifests, input_parts
from engine.corpus.inputs.masking import fingerprint, fitting_tokenizer
from engine.errors import UserError
from engine.models.device import worker_device
from engine.models.text import TextEncoder
from engine.storage.manifests import made_by_after, makers_in
from engine.storage.parts import MANIFEST, PartFolder, check_whole, write_model
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import CachedPart, CacheManifest, FrozenCache, fill_part, known_states
from engine.training.input_rows import InputRows
from engine.versions import OF_STATES, versions_of
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
        inputs: from :func:`jobs.steps.model_input.preprocess`.
        model: the encoder whose frozen layers run.
        dtype: of the stored states: "bfloat16" (half the bytes) or "float32" (exact).
        executor: where they run; default: see :class:`jobs.workers.executor.AutoExecutor`.

    Raises:
        UserError: the encoder does not fit the inputs.
    """
    _check_fit(inputs, model)
    encoder = TextEncoder.load(model)
    weights = encoder.lower_fingerprint()[:8]
    key = f"{inputs.manifest.settings.parts_key()}-{weights}-{dtype}"
    states = _states(workspace, key)
    earlier = _earlier_parts(workspace, inputs, states)
    tasks = {
        name: StateTask(name, source, rows, earlier.get(name, ()))
        for name, source, rows in zip(inputs.names, inputs.parts, inputs.rows, strict=True)
    }
    arguments = (workspace.root.uri, model, dtype, key, weights)
    manifest = inputs.manifest
    a_sentence = manifest.tokens / max(manifest.mentions, 1) * encoder.dim * DTYPES[dtype].itemsize
    with given_or_auto(executor, workspace.root) as where:
        made = make_parts(
            states,
            tasks,
            StateWorker,
            arguments,
            where,
            "frozen layers, sentences",
            _rows_of,
            gpu=True,
            stored=lambda task: task.rows * a_sentence,
        )
    if made.made:
        file = states.folder / MANIFEST
        makers = made_by_after(makers_in(file), versions_of(OF_STATES))
        write_model(file, CacheManifest(model=model, made_by=makers))
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


def _earlier_parts(
    workspace: Workspace, inputs: Inputs, states: PartFolder[None]
) -> dict[str, tuple[CachedPart, ...]]:
    """Return, for the parts that are missing, parts with states that most likely share sentences with them.

    These are parts of other model input with the same tokenizer, made of the same part of the corpus (of
    other sentences drawn of it), or of the part in the same place, from which sentences were taken.
    """
    there = set(states.names())
    missing = {name: place for place, name in enumerate(inputs.names) if name not in there}
    found: dict[str, set[str]] = {name: set() for name in missing}
    if not missing or not there:
        return {}
    for manifest in input_manifests(workspace, inputs.manifest.settings.parts_key()):
        names = list(manifest.parts)
        of_source = dict(zip(manifest.sources, names, strict=True))
        for name, place in missing.items():
            in_place = names[place] if place < len(names) else None
            same = of_source.get(inputs.manifest.sources[place], in_place)
            if same in there:
                found[name].add(same)
    folder = input_parts(workspace, inputs.manifest.settings)
    return {
        name: tuple(CachedPart(folder.file(one), states.file(one)) for one in sorted(some))
        for name, some in found.items()
    }


class StateTask(NamedTuple):
    """The task of one part: the inputs part of the same name, its rows, and parts that may share some."""

    name: str
    source: Store
    rows: int
    earlier: tuple[CachedPart, ...] = ()


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
            known = known_states(task.earlier)
            fill_part(self._encoder, rows, path, self._dtype, self._device, known)
