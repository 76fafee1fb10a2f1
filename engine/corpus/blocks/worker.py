"""Make parts of the blocks, wherever it runs."""

from __future__ import annotations

import numpy as np

from engine.corpus.blocks.format import (
    BlockCounts,
    PartPlan,
    Tokens,
    block_parts,
    pack,
    part_texts,
    read_descriptions,
    write_part,
)
from engine.corpus.blocks.settings import BlockSettings
from engine.errors import UserError
from engine.generation.tokenizers import fingerprint, load_tokenizer
from engine.models.plain_text import token_ids
from engine.storage.workspace import Workspace


class BlockWorker:
    """A worker that reads a mentions part, tokenises what the plan says, packs and writes it.

    Args:
        workspace: its address.
        tokenizer: a folder or a hub name.
        settings: made with that tokenizer's fingerprint.

    Raises:
        UserError: the tokenizer of that name is another one here.
    """

    def __init__(self, workspace: str, tokenizer: str, settings: BlockSettings) -> None:
        self._tokenizer = load_tokenizer(tokenizer)
        if fingerprint(self._tokenizer) != settings.tokenizer:
            raise UserError(f"{tokenizer}: this node has another tokenizer under that name than the driver")
        self._workspace, self._settings = Workspace.open(workspace), settings
        self._parts = block_parts(self._workspace, settings)
        self._descriptions = read_descriptions(self._workspace)

    def __call__(self, plan: PartPlan) -> BlockCounts:
        """Write the part of a plan and return its counts."""
        train, held = part_texts(self._workspace, plan, self._descriptions)
        tokens = self._tokens(train)
        begin: int | None = self._tokenizer.bos_token_id
        blocks = pack(tokens, self._settings, begin)
        counts = BlockCounts(
            sentences=len(plan.rows),
            descriptions=len(plan.described),
            held_out=len(held),
            blocks=len(blocks),
            tokens=len(tokens),
            padding=blocks.size - len(tokens) - (len(blocks) if begin is not None else 0),
        )
        write_part(self._parts, plan.name, blocks, self._tokens(held), counts)
        return counts

    def _tokens(self, texts: list[str]) -> Tokens:
        ids = token_ids(self._tokenizer, texts)
        return np.array([i for one in ids for i in one], self._settings.dtype)
