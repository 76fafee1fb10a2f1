"""Measure an epoch of encoder training on cached states against the plain step and the arithmetic floor.

The plain step is what a straightforward program does: a full forward pass through every layer of a
shuffled batch, padded to its longest sentence, and the same loss, in float32. Ours runs as the job runs
it by default (bfloat16 products where the hardware is fast in them), and in float32 too. All see the
same sentences and run in turn. Filling the cache is measured as well: it is paid once, not once an
epoch.

The floor is the multiplications that our step cannot do without, at the rate that this machine reaches
on a large matrix product of the same type in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.report import report
from engine.losses.entity_prediction import EntityHead
from engine.models.text import TextEncoder
from engine.training.cache import CachedStates, fill_part
from engine.training.input_rows import InputRows
from engine.training.optimizer import parameter_groups
from engine.training.order import epoch_batches
from engine.training.settings import EncoderSettings
from engine.training.text import EncoderTraining

BAR = 15.0
N_ENTITIES = 4096
PLAIN_BATCH = 128


def sentences(n: int, seed: int = 0) -> InputRows:
    """Return n inputs of random word pieces whose lengths are spread as those of real sentences."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(3.45, 0.42, n), 8, 128).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(1000, 30_000, offsets[-1]).astype(np.int32)
    mask_index = 1 + (rng.random(n) * (lengths - 2)).astype(np.int64)
    return InputRows(ids, offsets, mask_index, rng.integers(0, N_ENTITIES, n))


class PlainTraining:
    """The straightforward step: every layer of every token, no cache."""

    def __init__(self, rows: InputRows) -> None:
        self.rows = rows
        self.encoder = TextEncoder.load("embedded")
        self.encoder.last.requires_grad_(True)
        self.head = EntityHead(self.encoder.dim, N_ENTITIES)
        module = torch.nn.ModuleDict({"last": self.encoder.last, "head": self.head})
        self.optimizer = torch.optim.AdamW(parameter_groups(module, 0.01), lr=1e-3, fused=True)

    def step(self, batch: np.ndarray) -> None:
        """Train on one batch."""
        ids, lengths = self.rows.padded_ids(batch)
        at_mask = self.encoder.states(ids, lengths)[
            torch.arange(len(batch)), torch.from_numpy(self.rows.mask_index[batch])
        ]
        labels = torch.from_numpy(self.rows.entity_id[batch])
        loss = F.cross_entropy(self.head(at_mask), labels, label_smoothing=0.075)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def products_a_sentence(length: float, dim: int, inner: int, heads: int, entities: int) -> float:
    """Return the multiply-adds of one training sentence that cannot be left out.

    Matrices that learn and pass gradients on count three times (forward, both gradients); the query
    projection, whose input is frozen, and the two products with frozen states count twice.
    """
    learning = 3 * (dim * dim) + 2 * dim * inner + dim * dim + dim * entities
    return 3 * learning + 2 * (dim * dim) + 2 * (2 * heads * length * dim)


def peak_products_a_second(dtype: torch.dtype) -> float:
    """Return the multiply-adds a second of a large matrix product here."""
    a, b = torch.randn(1536, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        best = max(best, 1536**3 / (time.perf_counter() - started))
    return best


def main() -> None:
    """Measure in turn, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = sentences(options.sentences)
    with tempfile.TemporaryDirectory() as folder:
        states = Path(folder) / "part-00000.npy"
        started = time.perf_counter()
        fill_part(TextEncoder.load("embedded"), rows, states, torch.bfloat16, torch.device("cpu"))
        fill = (time.perf_counter() - started) / len(rows)
        ours, wide = (cached_training(rows, states, precision) for precision in ("auto", "float32"))
        seconds, peak = measure(ours, wide, PlainTraining(rows), rows, options.rounds)
    config = ours.encoder.model.config
    floor = (
        products_a_sentence(
            float(rows.lengths.mean()),
            ours.encoder.dim,
            config.intermediate_size,
            config.num_attention_heads,
            N_ENTITIES,
        )
        / peak
    )
    compute = str(ours.compute).removeprefix("torch.")
    shown = {
        "plain step, float32": seconds["plain"],
        "cached step, float32": seconds["wide"],
        f"cached step, {compute} (default)": seconds["ours"],
        f"arithmetic floor, {compute}": floor,
        "filling the cache (once)": fill,
    }
    report(
        f"MiniLM, {len(rows):,} sentences of {rows.lengths.mean():.0f} tokens, {N_ENTITIES:,} entities",
        ["step", "sentences/s", "ms a sentence", "plain's cost over it"],
        [[n, f"{1 / s:,.0f}", f"{1e3 * s:.3f}", f"{seconds['plain'] / s:.1f}"] for n, s in shown.items()],
        name="encoder_training",
        ratio=seconds["plain"] / seconds["ours"],
        ratio_float32=seconds["plain"] / seconds["wide"],
        ratio_with_fill_in_one_epoch=seconds["plain"] / (seconds["ours"] + fill),
        floor_ratio=seconds["ours"] / floor,
        holds=seconds["plain"] / seconds["ours"] >= BAR,
        threads=torch.get_num_threads(),
    )


def cached_training(rows: InputRows, states: Path, precision: Literal["auto", "float32"]) -> EncoderTraining:
    """Return a training as the job opens it."""
    data = CachedStates([rows], [states])
    settings = EncoderSettings(epochs=1, precision=precision)
    return EncoderTraining(TextEncoder.load("embedded"), data, N_ENTITIES, settings)


def measure(
    ours: EncoderTraining, wide: EncoderTraining, plain: PlainTraining, rows: InputRows, rounds: int
) -> tuple[dict[str, float], float]:
    """Return median seconds a sentence of the steps, measured in turn, and the peak met between them."""
    shuffled = np.random.default_rng(0).permutation(len(rows))
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "wide": []}
    peak = 0.0
    for turn in range(-1, rounds):
        peak = max(peak, peak_products_a_second(ours.compute))
        batch = shuffled[(turn + 1) * PLAIN_BATCH :][:PLAIN_BATCH]
        started = time.perf_counter()
        plain.step(batch)
        found = {"plain": (time.perf_counter() - started) / len(batch)}
        # A whole epoch of ours takes about as long as one plain batch.
        for name, training in (("ours", ours), ("wide", wide)):
            started = time.perf_counter()
            for one in epoch_batches(rows.lengths, training.settings.batch_size, 0, turn + 1):
                training.train_on(one)
            found[name] = (time.perf_counter() - started) / len(rows)
        if turn >= 0:  # the first round warms up
            for name, value in found.items():
                seconds[name].append(value)
    return {name: statistics.median(values) for name, values in seconds.items()}, peak


if __name__ == "__main__":
    main()
