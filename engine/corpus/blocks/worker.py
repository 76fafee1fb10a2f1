"""Makes one part of the blocks: the work of one actor, which knows nothing of the cluster."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from engine.corpus.blocks.format import (
    BlockSettings,
    PartCounts,
    PartPlan,
    Tokens,
    pack,
    part_texts,
    read_descriptions,
    write_part,
)
from engine.errors import UserError
from engine.generation.tokenizers import fingerprint, load_tokenizer, token_ids
from engine.storage.workspace import Workspace


class BlockMaker:
    """Reads a mentions part, tokenises what the plan says, packs and writes it.

    An actor of ``jobs.pretrain_lm``. Everything is opened on first use, not when the actor is made: an
    error then reaches the driver as itself.
    """

    def __init__(self, workspace: str, tokenizer: str, settings: BlockSettings, key: str) -> None:
        self._uri, self._name, self._settings, self._key = workspace, tokenizer, settings, key

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace.open(self._uri)

    @cached_property
    def _tokenizer(self) -> object:
        tokenizer = load_tokenizer(self._name)
        if fingerprint(tokenizer) != self._settings.tokenizer:
            raise UserError(f"{self._name}: this node has another tokenizer under that name than the driver")
        return tokenizer

    @cached_property
    def _descriptions(self) -> list[str]:
        return read_descriptions(self._workspace)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[object]]:
        """Make the part of a batch of one and return its counts."""
        rows, held, described = (
            np.frombuffer(batch[column][0], np.int64) for column in ("rows", "held", "described")
        )
        plan = PartPlan(int(batch["part"][0]), rows, held, described)
        return {"part": [plan.part], "counts": [self.make(plan).model_dump_json()]}

    def make(self, plan: PartPlan) -> PartCounts:
        """Write the part of a plan."""
        train, held = part_texts(self._workspace, plan, self._descriptions)
        tokens = self._tokens(train)
        begin: int | None = self._tokenizer.bos_token_id  # type: ignore[attr-defined]
        blocks = pack(tokens, self._settings, begin)
        counts = PartCounts(
            sentences=len(plan.rows),
            descriptions=len(plan.described),
            held_out=len(held),
            blocks=len(blocks),
            tokens=len(tokens),
            padding=blocks.size - len(tokens) - (len(blocks) if begin is not None else 0),
        )
        folder = self._workspace.inputs(self._key)
        write_part(folder, plan.part, blocks, self._tokens(held), counts)
        return counts

    def _tokens(self, texts: list[str]) -> Tokens:
        ids = token_ids(self._tokenizer, texts)  # type: ignore[arg-type]
        return np.array([i for one in ids for i in one], self._settings.dtype)
