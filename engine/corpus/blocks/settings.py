"""Define the settings of a language model's blocks without their tensors: a command line imports no torch."""

from __future__ import annotations

import hashlib

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class BlockSettings(BaseModel):
    """The settings that decide what the blocks are, apart from the corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: str
    """:func:`engine.generation.tokenizers.fingerprint`."""
    vocab_size: int = Field(description="Tokens of a tokenizer trained on the corpus.")
    block: int = Field(default=256, ge=8, description="Tokens of a block.")
    descriptions: bool = Field(
        default=True, description="Read each entity's description before its sentences."
    )
    held_out: float = Field(
        default=0.01,
        ge=0,
        le=0.5,
        description="Share of the sentences kept for the perplexity (2,000 at most).",
    )
    """Limited to :data:`~engine.corpus.blocks.format.AT_MOST_HELD_OUT` sentences."""
    lists: int = Field(
        default=0,
        ge=0,
        description="Lists of neighbours an entity, from the bundle's index, read beside the corpus.",
    )
    """Number of lists (:mod:`engine.generation.lists`); they are a part of their own."""
    neighbours: str = ""
    """Checksum of the index that says who the neighbours are."""
    seed: int = Field(
        default=13, ge=0, description="Of a new model's weights, the order and the held-out draw."
    )

    def key(self, corpus_digest: str) -> str:
        """Return the folder name of these settings over a corpus."""
        digest = hashlib.sha256((self.model_dump_json() + corpus_digest).encode()).hexdigest()[:8]
        return f"lm-V{self.vocab_size}-T{self.block}-{digest}"

    def parts_key(self) -> str:
        """Return the name of the folder of parts: of what decides how given texts are written.

        Which texts they are is not part of it; that is in each part's own name.
        """
        digest = hashlib.sha256(self.tokenizer.encode()).hexdigest()[:8]
        return f"parts-lm-V{self.vocab_size}-T{self.block}-{digest}"

    @property
    def dtype(self) -> np.dtype:
        """The type of stored tokens: two bytes where the vocabulary allows."""
        return np.dtype(np.uint16 if self.vocab_size < 1 << 16 else np.int32)
