"""Open and end the training of a language model in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from engine.corpus.blocks.format import Blocks
from engine.errors import UserError
from engine.generation.forward_check import as_it_was, check_forward
from engine.generation.model import LanguageModel
from engine.generation.tokenizers import fingerprint, load_tokenizer
from engine.models.adapters import Base
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import (
    Origin,
    config_of,
    is_shared,
    open_model,
    shallow,
    stored_dtype,
    write_model,
)
from engine.training.lora import adapt, is_adapted, write_adapter
from engine.training.partitioned import elements, learning
from engine.training.quantized import quantize
from engine.training.settings import LmSettings
from engine.training.trainer import Worker
from jobs import console
from jobs.workers.training_run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

JOB = "pretrain_lm"


@dataclass(frozen=True)
class LmRun(Run[LmTraining]):
    """A run that trains a language model."""

    job: ClassVar[str] = JOB
    artifact: ClassVar[str] = "lm"
    unit: ClassVar[str] = "tokens"
    first_note: ClassVar[str] = "held-out perplexity before training"

    origin: Origin
    tokenizer: str
    blocks: Blocks
    layout: Layout

    def open(self, worker: Worker, checkpoint: Path | None) -> LmTraining:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, LmSettings)
        tokenizer = self._load_tokenizer()
        data, held = self.blocks.open(tokenizer.bos_token_id)
        if checkpoint is None and self.layout.zero_stage == 3 and worker.is_first:
            self._check(shallow(config_of(self.origin)), tokenizer)  # no worker holds all of the model to run
        # What is packed is packed whole, and shared when the engine is opened.
        shared = None if self.settings.quantize else self.layout
        model = open_model(self.origin, self.settings.seed, shared, worker.device)
        if checkpoint is None and self.layout.zero_stage < 3:
            self._check(model, tokenizer)
        if shared and self.layout.zero_stage == 3 and not is_shared(model) and worker.is_first:
            console.say(
                f"{self.origin.name}: transformers has to put its weights together, so every worker holds "
                "all of the model in its host's memory while it is opened"
            )
        if self.settings.quantize:
            storage = getattr(torch, self.layout.weights)
            quantize(model, f"the model {self.origin.name!r}", storage)
        if self.settings.lora:
            adapt(model, self.settings, f"the model {self.origin.name!r}")
        return LmTraining(model, data, held, self.settings, self.layout, worker, checkpoint)

    def _check(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare how a model is run here with itself, before hours of training, not when it is used."""
        with as_it_was(model):
            check_forward(LanguageModel(model, tokenizer, ""), f"the model {self.origin.name!r}")

    def write(self, training: LmTraining, folder: Path) -> str:
        """Write the trained model, which all workers gather."""
        tokenizer = self._load_tokenizer()
        assert isinstance(self.settings, LmSettings)
        if self.settings.keep_adapter and is_adapted(training.model):
            name = self.origin.name
            base = Base(
                name=str(Path(name).resolve()) if Path(name).is_dir() else name,
                fingerprint=self.origin.fingerprint,
            )
            write_adapter(training.model, base, tokenizer, folder, training.worker.is_first)
            return "config.json"
        dtype = stored_dtype(self.origin)
        write_model(training.model, tokenizer, folder, dtype, training.worker.is_first)
        return "config.json"

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer that the blocks were made with.

        Raises:
            UserError: under its name there is another one now.
        """
        tokenizer = load_tokenizer(self.tokenizer)
        if fingerprint(tokenizer) != self.blocks.manifest.settings.tokenizer:
            raise UserError(
                f"tokenizer {self.tokenizer}: not the one that made the blocks {self.blocks.key}: it "
                "was changed meanwhile, or differs between the machines; run the command again"
            )
        return tokenizer

    def summary(self, training: LmTraining) -> dict[str, Any]:
        """Return what the run was made of, and what it brought."""
        texts = self.blocks.manifest.settings
        return {
            "model": self.origin.name,
            "model_fingerprint": self.origin.fingerprint,
            "tokenizer": self.tokenizer,
            "blocks_key": self.blocks.key,
            "neighbor_lists": texts.neighbor_lists,
            "neighbor_view": texts.neighbor_view if texts.neighbor_lists else None,
            "parameters": sum(elements(p) for p in training.model.parameters()),
            "trained_parameters": sum(map(elements, learning(training.model).values())),
            "blocks": len(training.data),
            "tokens": self.blocks.manifest.total("tokens"),
            "held_out_blocks": len(training.held_sample),
            "held_out_blocks_in_all": len(training.held),
            "perplexity_before": training.perplexities[0],
            "perplexity_after": training.perplexities[-1],
            "layout": training.layout.model_dump(),
        }

    def events(self, training: LmTraining) -> dict[str, float]:
        """Return the perplexity at the end of an epoch."""
        at_end = training.step % training.steps_per_epoch == 0
        return {"heldout_perplexity": training.perplexities[-1]} if at_end else {}
