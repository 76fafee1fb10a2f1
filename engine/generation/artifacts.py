"""Load what generation reads of a bundle, once a process and shared by all its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.catalogue.opening import open_catalogue
from engine.generation.forward_check import check_forward
from engine.generation.likelihood import Likelihood
from engine.generation.model import LanguageModel
from engine.generation.trie import Trie
from engine.models.device import processes_of_a_model, worker_device
from engine.storage.bundle import Bundle


@dataclass(frozen=True)
class Artifacts:
    """A language model, the trie of all names, names and descriptions by id, and the likelihoods so far."""

    model: LanguageModel
    trie: Trie
    names: Sequence[str]
    description: Callable[[int], str]
    likelihood: Likelihood


def open_artifacts(bundle: Bundle) -> Artifacts:
    """Return the bundle's language model and all that goes with it.

    Raises:
        BundleError: the bundle has no language model.
        UserError: it cannot be loaded, or computes something else here than by itself.
    """
    return bundle.once("lm", lambda folder: _read(bundle, folder))


def _read(bundle: Bundle, folder: Path) -> Artifacts:
    model = LanguageModel.load(folder, *_device_and_dtype(), processes_of_a_model())
    check_forward(model, f"language model {folder}")
    names = bundle.vocabulary.names
    description = open_catalogue(bundle).description
    return Artifacts(model, Trie.load(bundle.path("trie")), names, description, Likelihood(model, names))


def _device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """float32 on CPUs: lists must not depend on how queries were batched, and bfloat16 rounds visibly."""
    device = worker_device()
    return device, torch.bfloat16 if device.type == "cuda" else torch.float32
