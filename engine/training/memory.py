"""Reckon what a training of a language model takes: memory of each worker, and size of a checkpoint.

Weights, gradients and AdamW's state follow from the ZeRO stage exactly; activations are an estimate, for
layers of the LLaMA family whose attention keeps no matrix of positions by positions. What passes through
buffers is taken at its most, and as if all of it came at once: a small model takes less than its sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.training.disk_offload import BUFFERS, BYTES_A_PARAMETER
from engine.training.layout import Layout
from engine.training.optimizer import BUCKET_ELEMENTS, GROUP_ELEMENTS
from engine.training.quantized import FACTOR_BYTES

GB = 1e9


class ModelShape(NamedTuple):
    """The sizes of a language model that memory depends on."""

    parameters: int
    largest: int
    """Elements of the largest parameter."""
    hidden: int
    inner: int
    """Width of the feed-forward layers."""
    layers: int
    vocabulary: int


LLAMA_2 = {
    "7B": ModelShape(6_738_415_616, 131_072_000, 4096, 11008, 32, 32_000),
    "13B": ModelShape(13_015_864_320, 163_840_000, 5120, 13824, 40, 32_000),
    "70B": ModelShape(68_976_648_192, 262_144_000, 8192, 28672, 80, 32_000),
}
"""LLaMA 2 (Touvron et al. 2023, and the configurations that were published with it)."""


class WorkerMemory(NamedTuple):
    """Bytes of one worker. What is offloaded lies in its host's memory, the rest on its card.

    A worker on the CPU holds all of it in its process.
    """

    weights: int
    """That compute: all of them, or this worker's share."""
    master: int
    """Float32 share of the weights that AdamW moves: another one than the weights, whatever their type.

    At stage 3 DeepSpeed means to do without where the weights are float32, but compares the name of a device
    with the device itself, which are never equal.
    """
    gradients: int
    moments: int
    """Two float32 numbers a parameter of AdamW, shared by the workers at every stage."""
    gathered: int
    """Weights of the layers at hand, at stage 3: as the workers sent them, and in their places."""
    buckets: int
    """Gradients on their way to the workers that keep them, and the largest one before it is split.

    A bucket, the copy that is sent, and on a processor the copy that gloo adds up in.
    """
    activations: int
    logits: int
    swapped: int
    """Of a state on a disk the part that is in memory: all four kinds of the largest group."""
    offloaded: int
    """What is in the host's memory."""
    disk: int
    """What is on a disk: master and moments, and gradients, which are in memory as well."""

    @property
    def total(self) -> int:
        """All that is in memory."""
        return sum(self[:-2]) - (self.master + self.moments if self.disk else 0)

    @property
    def card(self) -> int:
        """What is not offloaded."""
        return self.total - self.offloaded


def worker_memory(
    shape: ModelShape,
    layout: Layout,
    workers: int,
    rows: int,
    block: int,
    narrow: bool,
    trained: int | None = None,
    packed: int = 0,
) -> WorkerMemory:
    """Return what a worker takes at the peak of a step.

    Args:
        shape: of the model.
        layout: of the run.
        workers: that share.
        rows: blocks that pass at once (``micro_batch``).
        block: tokens of a block.
        narrow: products are bfloat16, so activations are kept in 2 bytes.
        trained: parameters that learn; None: all.
        packed: parameters that are held in 4 bits. At stage 3 they are shared, but without recomputation the
            products of a step keep all of them until their gradients are there.
    """
    P, stage = shape.parameters, layout.zero_stage
    T = P if trained is None else trained
    learns = -(-T // workers)
    wide = 2 if layout.weights == "bfloat16" else 4
    recomputed = layout.activation_checkpointing
    weights = wide * -(-(P - packed) // (workers if stage == 3 else 1)) + round(FACTOR_BYTES * packed)
    weights += -(-packed // 2 // workers) if stage == 3 and recomputed else packed // 2
    gradients = 4 * (learns if stage > 1 else T)
    master, moments = 4 * learns, 8 * learns
    gathered = 2 * wide * min(P, max(BUCKET_ELEMENTS, shape.largest)) if stage == 3 else 0
    buckets = wide * (3 * min(T, BUCKET_ELEMENTS) + min(T, shape.largest))
    tokens, kept = rows * block, 2 if narrow or wide == 2 else 4
    # A layer keeps about ten states (inputs of its norms and products, queries, keys, values) and four of
    # the feed-forward layer's width; recomputing keeps one float32 state a layer, and all of one layer.
    inside = kept * tokens * (10 * shape.hidden + 4 * shape.inner)
    activations = inside + 4 * tokens * shape.hidden * shape.layers if recomputed else inside * shape.layers
    logits = 2 * kept * tokens * shape.vocabulary  # and their gradient
    offloaded = swapped = disk = 0
    if layout.offload == "cpu":
        offloaded = master + moments + (gradients if stage > 1 else 0) + (weights if stage == 3 else 0)
    elif layout.offload == "nvme":
        disk = BYTES_A_PARAMETER * learns
        swapped = 4 * BUFFERS * min(learns, GROUP_ELEMENTS + -(-shape.largest // workers))
        offloaded = weights + gradients + swapped
    parts = weights, master, gradients, moments, gathered, buckets, activations, logits
    return WorkerMemory(*parts, swapped, offloaded, disk)


def checkpoint_bytes(parameters: int) -> int:
    """Return the size of a checkpoint: weights and both moments of what learns, in float32."""
    return 12 * parameters


LAYOUTS: dict[str, dict[str, Any]] = {
    "stage 1": {"zero_stage": 1},
    "stage 2": {"zero_stage": 2},
    "stage 3": {"zero_stage": 3},
    "stage 3, bfloat16 weights": {"zero_stage": 3, "weights": "bfloat16"},
    "stage 3, bfloat16 weights, offloaded": {"zero_stage": 3, "weights": "bfloat16", "offload": "cpu"},
    "stage 3, bfloat16 weights, state on disk": {
        "zero_stage": 3,
        "weights": "bfloat16",
        "offload": "nvme",
        "offload_folder": "",
    },
}
"""The layouts that a table compares."""


def in_gb(memory: WorkerMemory) -> list[str]:
    """Return GB of a card, of host memory and of disk."""
    return [f"{size / GB:.1f}" for size in (memory.card, memory.offloaded, memory.disk)]


def table(
    shapes: dict[str, ModelShape], workers: int, rows: int, block: int, recomputed: bool = True
) -> list[list[str]]:
    """Return rows of a table: model, layout, GB of a card, of host memory and of disk a worker.

    Args:
        shapes: models by name.
        workers: cards.
        rows: blocks that pass at once.
        block: tokens of a block.
        recomputed: with activation checkpointing.
    """
    found = []
    for name, shape in shapes.items():
        for words, settings in LAYOUTS.items():
            layout = Layout.model_validate(settings | {"activation_checkpointing": recomputed})
            memory = worker_memory(shape, layout, workers, rows, block, narrow=True)
            found.append([name, words, *in_gb(memory)])
    return found
