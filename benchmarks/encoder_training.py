"""An epoch of encoder training on cached states against the plain step, and against the arithmetic floor.

The plain step is what a straightforward program does: a full forward pass through every layer of a
shuffled batch, padded to its longest sentence, and the same loss. Both see the same sentences, run in
turn, in float32. Filling the cache is measured as well: it is paid once, not once an epoch.

The floor is the multiplications that our step cannot do without, at the rate that this machine reaches
on a large matrix product in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.report import report
from engine.encoders.entity_prediction import EntityHead
from engine.encoders.text import TextEncoder
from engine.training.cache import CachedStates, InputRows, fill_part
from engine.training.encoder import EncoderSettings, EncoderTraining, parameter_groups
from engine.training.order import epoch_batches

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


def peak_products_a_second() -> float:
    """Return the multiply-adds a second of a large float32 matrix product here."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
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
    plain = PlainTraining(rows)
    encoder = TextEncoder.load("embedded")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        fill_part(encoder, rows, Path(folder) / "p.npy", torch.bfloat16, torch.device("cpu"))
        fill = (time.perf_counter() - started) / len(rows)
        ours = EncoderTraining(
            encoder, CachedStates([rows], [Path(folder) / "p.npy"]), N_ENTITIES, EncoderSettings(epochs=1)
        )
        plain_seconds, our_seconds, peaks = _measure(ours, plain, rows, options.rounds)
    config = encoder.model.config
    products = products_a_sentence(
        float(rows.lengths.mean()),
        encoder.dim,
        config.intermediate_size,
        config.num_attention_heads,
        N_ENTITIES,
    )
    floor = products / max(peaks)
    ratio, floor_ratio = plain_seconds / our_seconds, our_seconds / floor
    table = [
        ["plain step", f"{1 / plain_seconds:,.0f}", f"{1e3 * plain_seconds:.3f}", f"{ratio:.1f}"],
        ["cached step", f"{1 / our_seconds:,.0f}", f"{1e3 * our_seconds:.3f}", "1.0"],
        ["arithmetic floor", f"{1 / floor:,.0f}", f"{1e3 * floor:.3f}", f"{1 / floor_ratio:.2f}"],
        ["filling the cache (once)", f"{1 / fill:,.0f}", f"{1e3 * fill:.3f}", f"{fill / our_seconds:.1f}"],
    ]
    title = f"MiniLM, {len(rows):,} sentences of {rows.lengths.mean():.0f} tokens, {N_ENTITIES:,} entities"
    report(
        title,
        ["step", "sentences/s", "ms a sentence", "cost"],
        table,
        name="encoder_training",
        ratio=ratio,
        floor_ratio=floor_ratio,
        holds=ratio >= BAR,
        epoch_with_fill_ratio=plain_seconds / (our_seconds + fill),
        products_a_sentence=products,
        threads=torch.get_num_threads(),
    )


def _measure(
    ours: EncoderTraining, plain: PlainTraining, rows: InputRows, rounds: int
) -> tuple[float, float, list[float]]:
    """Return median seconds a sentence of both steps, in turn, and the peaks met between them."""
    batch_size = ours.settings.batch_size
    cached = epoch_batches(rows.lengths, batch_size, 0, 0)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    peaks = []
    for turn in range(-1, rounds):
        peaks.append(peak_products_a_second())
        batch = shuffled[(turn + 1) * PLAIN_BATCH :][:PLAIN_BATCH]
        started = time.perf_counter()
        plain.step(batch)
        plain_seconds = (time.perf_counter() - started) / len(batch)
        # A whole epoch of ours costs about as much as one plain batch or two.
        started = time.perf_counter()
        for one in cached:
            ours.train_on(one)
        our_seconds = (time.perf_counter() - started) / len(rows)
        if turn >= 0:  # the first round warms up
            seconds["plain"].append(plain_seconds)
            seconds["ours"].append(our_seconds)
    return statistics.median(seconds["plain"]), statistics.median(seconds["ours"]), peaks


if __name__ == "__main__":
    main()
