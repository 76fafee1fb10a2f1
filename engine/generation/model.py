"""Run a causal language model for decoding and scoring: prefill prompts once, then advance rows.

Any causal model of transformers that keeps a key-value cache will do, if what is computed here is what it
computes itself (:mod:`engine.generation.forward_check`). Logits are computed for the tokens that are asked
for only: with a trie few are allowed, and the output layer is a large part of a small model. Knows nothing
of entities or tries.

Shape letters: B rows, T positions so far, D dimensions, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from engine.errors import QueryError
from engine.generation.model_group import ModelGroup
from engine.generation.tokenizers import encode_after
from engine.models.adapters import language_model
from engine.models.causal import OutputPart, body_of
from engine.models.fingerprint import folder_fingerprint
from engine.models.fit import check_embeddings, check_language_model, text_positions
from engine.models.hub import NamedModel
from engine.models.plain_text import token_ids

Tensor = torch.Tensor


@dataclass
class State:
    """The state of rows in decoding. :meth:`LanguageModel.advance` consumes it, its cache too."""

    cache: Any
    mask_BT: Tensor
    """int64: 1 where a position holds a token, 0 where it is padding (on the left)."""
    hidden_BD: Tensor
    """Last hidden state of each row: what its next token is predicted from."""

    def __len__(self) -> int:
        return len(self.hidden_BD)


class LanguageModel:
    """A model with its tokenizer, in evaluation mode.

    Args:
        model: with weights of one dtype, on one device.
        tokenizer: a fast tokenizer of that model.
        fingerprint: stands for weights and tokenizer; caches are keyed by it.
        new_cache: makes a key-value cache for it; None: one of transformers.
    """

    takes_tree_masks: bool = True
    """False once a comparison has found that a mask of our own leads to something else."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        fingerprint: str,
        new_cache: Callable[[], DynamicCache] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self._new_cache = new_cache or partial(DynamicCache, config=model.config)
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self._output = OutputPart(model)

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        processes: int = 1,
    ) -> LanguageModel:
        """Load from a folder, local or in a bucket, or a hub name (:class:`NamedModel`).

        A folder may hold an adapter (:mod:`engine.models.adapters`): it is merged into its model.

        Args:
            name: of the model.
            device: of the weights; of more than one process this one's is the first of its kind.
            dtype: of the weights.
            processes: over which its layers are split (:mod:`engine.generation.model_group`).

        Raises:
            UserError: there is no such model, its tokenizer is not there, or they do not fit; or it cannot
                be split so.
        """
        device = device or torch.device("cpu")
        named = NamedModel.open(name, "language model")
        config = named.config()
        check_language_model(named.label, config)
        tokenizer = named.fast_tokenizer()
        check_embeddings(named.label, tokenizer, config.vocab_size)
        fingerprint = folder_fingerprint(named.file("config.json").parent)
        if processes > 1:
            group = ModelGroup.of(processes, device.type == "cuda")
            part, new_cache = group.load(named, dtype)
            return cls(part, tokenizer, fingerprint, new_cache)
        model = language_model(named, AutoModelForCausalLM, dtype)
        return cls(model.to(device), tokenizer, fingerprint)

    @cached_property
    def body(self) -> Any:
        """The model without its output layer."""
        return body_of(self.model)

    @cached_property
    def takes_positions(self) -> bool:
        """True if positions can be given with the tokens."""
        return "position_ids" in inspect.signature(self.body.forward).parameters

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.device

    @cached_property
    def max_positions(self) -> int:
        """The longest input in tokens; models without a bound (relative positions) say a million."""
        return text_positions(self.model.config) or 1_000_000

    def check_length(self, tokens: int) -> None:
        """Check that an input of so many tokens fits.

        Raises:
            QueryError: it does not.
        """
        if tokens > self.max_positions:
            raise QueryError(
                f"the seeds make an input of {tokens} tokens, and the language model takes "
                f"{self.max_positions}; give fewer seeds, or shorter names"
            )

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens as the start of an input: after the token that begins one, if any."""
        (ids,) = token_ids(self.tokenizer, [text])
        bos = self.tokenizer.bos_token_id
        return ids if bos is None else [bos, *ids]

    def encode_after(self, texts: Sequence[str], before: str) -> list[list[int]]:
        """Return the tokens of each text as they are right after the word ``before``."""
        return encode_after(self.tokenizer, texts, before)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> State:
        """Run each prompt once; row i of the state is prompt i. Prompts are padded on the left."""
        longest = max(map(len, prompts))
        pad = self.tokenizer.eos_token_id or 0
        ids_BT = torch.full((len(prompts), longest), pad, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for row, prompt in enumerate(prompts):
            ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, longest - len(prompt) :] = 1
        ids_BT, mask_BT = ids_BT.to(self.device), mask_BT.to(self.device)
        cache = self._new_cache()
        hidden_BTD = self._run(ids_BT, mask_BT, cache)
        return State(cache, mask_BT, hidden_BTD[:, -1])

    @torch.inference_mode()
    def advance(self, state: State, rows: Tensor, tokens_BL: Tensor) -> State:
        """Return the rows ``rows`` of a state (repeated or left out as they say), each moved on.

        Args:
            state: is consumed, do not use it again.
            rows: int64 [B], where each new row comes from.
            tokens_BL: int64 [B] or [B, L], what each new row reads; ``hidden_BD`` is that of the last.
        """
        tokens_BL = tokens_BL.view(len(rows), -1).to(self.device)
        rows = rows.to(self.device)
        if len(rows) != len(state) or not torch.equal(rows, torch.arange(len(state), device=self.device)):
            state.cache.batch_select_indices(rows)
        mask_BT = torch.cat([state.mask_BT[rows], torch.ones_like(tokens_BL)], 1)
        hidden_BLD = self._run(tokens_BL, mask_BT, state.cache)
        return State(state.cache, mask_BT, hidden_BLD[:, -1])

    @torch.inference_mode()
    def logits(self, hidden_BD: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return float32 logits [B, V], or [B, n] of the given n tokens only."""
        return self._output(hidden_BD, None if tokens is None else tokens.to(self.device)).float()

    def _run(self, ids_BL: Tensor, mask_BT: Tensor, cache: Any) -> Tensor:
        positions: dict[str, Tensor] = {}
        if self.takes_positions:
            all_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
            positions = {"position_ids": all_BT[:, -ids_BL.shape[1] :]}
        # Where nothing is padding the mask is left out: attention then takes its fast path.
        mask = None if self.takes_positions and bool(mask_BT.all()) else mask_BT
        output = self.body(
            input_ids=ids_BL, attention_mask=mask, past_key_values=cache, use_cache=True, **positions
        )
        return output.last_hidden_state
