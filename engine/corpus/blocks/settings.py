"""Define the settings of a language model's blocks without their tensors: a command line imports no torch."""

from __future__ import annotations

import hashlib

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

FIRST_LIST_VIEW = "joint"
"""The view of lists that were made before there was a choice."""


class BlockSettings(BaseModel):
    """The settings that decide what the blocks are, apart from the corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: str
    """:func:`engine.generation.tokenizers.fingerprint`."""
    vocab_size: int = Field(description="Train the corpus' own tokenizer to this many tokens.")
    block: int = Field(default=256, ge=8, description="Cut the texts into blocks of this many tokens.")
    descriptions: bool = Field(
        default=False,
        description="Read each entity's description before its sentences (GenExpan reads sentences alone).",
    )
    """GenExpan's authors train on sentences alone, and give that one model the descriptions in its prompts
    for their row with retrieval augmentation: a model that has read them makes the two rows alike."""
    held_out: float = Field(
        default=0.01,
        ge=0,
        le=0.5,
        description="Keep this share of the sentences for the perplexity (2,000 at most).",
    )
    """Limited to :data:`~engine.corpus.blocks.format.AT_MOST_HELD_OUT` sentences."""
    neighbor_lists: int = Field(
        default=0,
        validation_alias=AliasChoices("neighbor_lists", "lists"),
        serialization_alias="lists",
        ge=0,
        description="Read this many lists of neighbors of each entity beside the corpus, drawn from the "
        "bundle's index.",
    )
    """Number of lists (:mod:`engine.generation.lists`); they are a part of their own."""
    neighbor_view: str = Field(
        default="mask",
        description="Draw those lists from the neighbors in this view of the bundle (mask, joint, …). A "
        "method gains what the view knows: compare it with that view's own ranking.",
    )
    """The mask view is RetExpan's own, so that re-ranking it borrows nothing from descriptions and words."""
    neighbours: str = ""
    """Checksum of the index that says who the neighbours are."""
    seed: int = Field(
        default=13,
        ge=0,
        description="Seed a new model's weights, the order, and the draw of held-out sentences.",
    )

    def key(self, corpus_digest: str) -> str:
        """Return the folder name of these settings over a corpus."""
        # By alias: a field that was renamed keeps its former name, and blocks that exist their key.
        as_ever = not self.neighbor_lists or self.neighbor_view == FIRST_LIST_VIEW
        content = self.model_dump_json(by_alias=True, exclude={"neighbor_view"} if as_ever else None)
        content += corpus_digest
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
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
