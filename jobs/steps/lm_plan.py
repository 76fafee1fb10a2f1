"""Say what a training of a language model would take, without a workspace's texts and without weights."""

from __future__ import annotations

from typing import Any

from engine.errors import UserError
from engine.training.layout import Layout
from engine.training.lm_models import COMMON, PRESETS, Origin, config_read_from
from engine.training.memory import (
    GB,
    LLAMA_2,
    ModelShape,
    WorkerMemory,
    checkpoint_bytes,
    in_gb,
    table,
    worker_memory,
)

HEADER = ["model", "layout", "GB of a card", "GB of its host", "GB of disk"]


def planned_model(model: str | None, config: str | None, vocab_size: int) -> Origin:
    """Return the model that would be trained.

    Args:
        model: an existing one, or None.
        config: a preset or a file, for a new one.
        vocab_size: of a new one whose file says none.

    Raises:
        UserError: not exactly one of both, or it cannot be read.
    """
    if (model is None) == (config is None):
        raise UserError("give either --model (train it further) or --init-from-config (begin a new one)")
    if model is not None:
        return Origin(name=model)
    name = str(config)
    content: dict[str, Any] = COMMON | PRESETS[name] if name in PRESETS else config_read_from(name)
    return Origin(name=name, config={"vocab_size": vocab_size} | content)


def plan_rows(
    name: str,
    shape: ModelShape,
    trained: int,
    layout: Layout,
    workers: int,
    rows: int,
    block: int,
    narrow: bool,
    packed: int = 0,
) -> tuple[WorkerMemory, list[list[str]]]:
    """Return what each worker would take, and the rows of a table: of this run, then of LLaMA's sizes.

    Args:
        name: of the model.
        shape: its sizes.
        trained: parameters that learn.
        layout: of the run.
        workers: that share.
        rows: blocks that pass at once.
        block: tokens of a block.
        narrow: products are bfloat16.
        packed: parameters that are held in 4 bits.
    """
    memory = worker_memory(shape, layout, workers, rows, block, narrow, trained, packed)
    return memory, [[name, "this run", *in_gb(memory)], *table(LLAMA_2, workers, rows, block)]


def checkpoint_in_words(parameters: int, seconds: float, share: float) -> str:
    """Return how large a checkpoint is and how often one is written.

    Args:
        parameters: that learn.
        seconds: between checkpoints at least.
        share: of the time that writing may take.
    """
    return (
        f"a checkpoint has {checkpoint_bytes(parameters) / GB:,.2f} GB; one is written every {seconds:g} s "
        f"at most, and less often where writing would take more than {share:.0%} of the time"
    )
