"""Read the settings of a sentence-transformers folder: how a whole text becomes one vector.

``modules.json`` lists the steps, each with a folder of its own (pooling, projection, normalisation);
``sentence_bert_config.json`` says how much of a text is read; ``config_sentence_transformers.json`` holds the
prompts that stand in front of texts. They are obeyed, or refused by name; nothing is passed over. A folder
without ``modules.json`` is read as the mean of a text's token states.

A normalisation that comes last is left to the index, which keeps every view's vectors at unit length.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional as F

from engine.errors import UserError
from engine.models.families import position_limit
from engine.models.hub import NamedModel

Tensor = torch.Tensor

MAX_TEXT_TOKENS = 256
"""Tokens of a text that are read where the folder says nothing of sentences."""

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
SENTENCE_CONFIG = "sentence_bert_config.json"

MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Ways to pool, by the older settings' names, in the order in which several are put side by side."""

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names of the prompt of a text that is searched for; the first that is not empty counts."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda vectors: vectors,
    "Tanh": torch.tanh,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "Sigmoid": torch.sigmoid,
}
"""Activations of a projection, by the class's name."""

Step = Callable[[Tensor], Tensor]
"""Function from vectors [B, D] to vectors [B, E]."""


@dataclass(frozen=True)
class SentenceSettings:
    """The settings by which a text becomes a vector."""

    modes: tuple[str, ...] = ("mean",)
    """Ways to pool, each a value of :data:`MODES`; of several the vectors are put side by side."""
    include_prompt: bool = True
    """True if the prompt's own tokens are pooled with the rest."""
    max_tokens: int = MAX_TEXT_TOKENS
    """Limit on a text's tokens, prompt and special ones included; what lies beyond is not read."""
    lower_case: bool = False
    prompt: str = ""
    """Prompt in front of a text."""
    steps: tuple[Step, ...] = ()
    """Steps after pooling, in order."""
    dim: int | None = None
    """Dimensions of the vectors; None: the states'."""


@dataclass(frozen=True)
class Projection:
    """A linear map and an activation: [B, E] of [B, D]."""

    weight_ED: Tensor
    bias_E: Tensor | None
    activation: Step

    def __call__(self, vectors_BD: Tensor) -> Tensor:
        """Return the projected vectors."""
        bias_E = None if self.bias_E is None else self.bias_E.to(vectors_BD)
        return self.activation(F.linear(vectors_BD, self.weight_ED.to(vectors_BD), bias_E))


def read_settings(named: NamedModel) -> SentenceSettings:
    """Return the settings of a model; those of a plain folder are the defaults.

    Raises:
        UserError: the folder wants something that is not known here, or its files do not fit together.
    """
    return _Reader(named).settings()


class _Reader:
    """A reader of one model's files, which names the model in errors."""

    def __init__(self, named: NamedModel) -> None:
        self._named = named

    def settings(self) -> SentenceSettings:
        """Return what the files say."""
        config = self._named.config()
        limit = position_limit(config)
        if self._named.find(MODULES) is None:
            return SentenceSettings(max_tokens=min(MAX_TEXT_TOKENS, limit))
        first, *modules = self._modules()
        if first != ("Transformer", ""):
            self._refuse(
                MODULES, f"it begins with {first[0]} in {first[1]!r}, not with the folder's own model"
            )
        pooling = modules.pop(0) if modules else ("", "")
        if pooling[0] != "Pooling":
            self._refuse(MODULES, "no Pooling follows the model")
        modes, include_prompt = self._pooling(pooling[1])
        read = self._json(SENTENCE_CONFIG)
        wanted = read.get("max_seq_length")
        steps, dim = self._steps(modules, int(config.hidden_size) * len(modes))
        return SentenceSettings(
            modes,
            include_prompt,
            min(int(wanted or self._tokenizer_limit()), limit),
            bool(read.get("do_lower_case")),
            self._prompt(),
            steps,
            dim,
        )

    def _modules(self) -> list[tuple[str, str]]:
        """Return the class and the folder of each step, in order."""
        found = self._json(MODULES)
        try:
            listed = sorted(found, key=lambda module: int(module["idx"]))
            return [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in listed]
        except (TypeError, KeyError, ValueError):
            self._refuse(MODULES, "not a list of modules with idx, path and type")

    def _pooling(self, folder: str) -> tuple[tuple[str, ...], bool]:
        """Return the ways to pool, and whether the prompt is pooled."""
        name = f"{folder}/config.json"
        config = self._json(name)
        given = config.get("pooling_mode")
        if given is None:
            modes = tuple(mode for key, mode in MODES.items() if config.get(key)) or ("mean",)
        else:
            modes = (given,) if isinstance(given, str) else tuple(given)
        others = [key for key in config if key.startswith("pooling_mode_") and key not in MODES]
        unknown = [mode for mode in modes if mode not in MODES.values()]
        unknown += [key for key in others if config[key]]
        if unknown:
            self._refuse(name, f"{unknown[0]!r} is none of {', '.join(MODES.values())}")
        return modes, bool(config.get("include_prompt", True))

    def _steps(self, modules: list[tuple[str, str]], dim: int) -> tuple[tuple[Step, ...], int]:
        """Return what follows pooling, and the dimensions of the vectors after it."""
        steps: list[Step] = []
        kinds = [kind for kind, _ in modules]
        for place, (kind, folder) in enumerate(modules):
            if kind == "Dense":
                projection = self._projection(folder, dim)
                dim = len(projection.weight_ED)
                steps.append(projection)
            elif kind == "Normalize":
                if "Dense" in kinds[place:]:
                    steps.append(F.normalize)
            elif kind != "Dropout":  # which does nothing but in training
                self._refuse(MODULES, f"its step {kind} is none of Pooling, Dense, Normalize, Dropout")
        return tuple(steps), dim

    def _projection(self, folder: str, dim: int) -> Projection:
        name = f"{folder}/config.json"
        config = self._json(name)
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        chosen = ACTIVATIONS.get(activation.rpartition(".")[2])
        if chosen is None:
            self._refuse(name, f"its activation {activation} is none of {', '.join(ACTIVATIONS)}")
        inputs = {
            config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")
        }
        if config.get("use_residual") or inputs != {"sentence_embedding"}:
            self._refuse(name, "a residual, or a map of anything but the text's vector, is not known here")
        weights = self._named.find(f"{folder}/model.safetensors")
        if weights is None:
            raise UserError(
                f"{self._named.label}: no {folder}/model.safetensors, and pickled weights are not read, "
                "since such files can run code; load the model once with sentence-transformers and save it"
            )
        try:
            found = load_file(weights)
            weight_ED, bias_E = found["linear.weight"], found.get("linear.bias")
        except (OSError, SafetensorError, KeyError) as error:
            self._refuse(f"{folder}/model.safetensors", f"no linear.weight can be read from it ({error})")
        if weight_ED.shape[1] != dim:
            self._refuse(name, f"it takes {weight_ED.shape[1]} dimensions, and gets {dim}")
        return Projection(weight_ED.float(), None if bias_E is None else bias_E.float(), chosen)

    def _prompt(self) -> str:
        """Return what stands in front of a text that is searched for: its own prompt, or that of any text."""
        config = self._json(PROMPTS)
        prompts = config.get("prompts") or {}
        default = config.get("default_prompt_name")
        if default is not None and default not in prompts:
            self._refuse(PROMPTS, f"default_prompt_name {default!r} is none of its prompts")
        own = [prompts[name] for name in DOCUMENT_PROMPTS if name in prompts]
        # A library that saves the folder again adds an empty "document" to a "passage" of the model's maker.
        return str(next(filter(None, own), "") if own else prompts.get(default) or "")

    def _tokenizer_limit(self) -> int:
        return int(self._named.tokenizer().model_max_length)

    def _json(self, name: str) -> Any:
        """Return what a file says; {} if there is none."""
        path = self._named.find(name)
        if path is None:
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self._refuse(name, f"it cannot be read ({error})")

    def _refuse(self, file: str, reason: str) -> NoReturn:
        raise UserError(
            f"{self._named.label}: {file}: {reason}; name another model, or take {MODULES} out of a copy of "
            "the folder, and its texts are read as the mean of their tokens"
        )
