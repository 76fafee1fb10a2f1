"""Measure the loop of jobs.pretrain_lm (DeepSpeed, ZeRO 1, one worker) against a bare loop of torch.

Both train the small preset on random tokens with the same type of products (bfloat16 where the hardware
is fast in it, else float32). The bare loop is a forward pass of transformers with labels, AdamW (fused),
clipping and zero_grad. They take short turns, so that what disturbs the machine disturbs both; the ratio
is the median over the rounds. Memory is the peak of a process that runs nothing but one of the two.

    python -m benchmarks.lm_pretraining
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.report import report
from engine.corpus.blocks.format import TokenBlocks
from engine.models.text import fast_dtype
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import COMMON, PRESETS, Origin, open_model
from engine.training.settings import LmSettings
from jobs import console

BAR = 0.85
"""Tokens a second of ours over those of the bare loop."""

VOCABULARY, WIDTH, BLOCKS = 8192, 256, 64

Step = Callable[[np.ndarray], object]


def random_tokens() -> TokenBlocks:
    """Return blocks of random tokens."""
    drawn = np.random.default_rng(0).integers(2, VOCABULARY, (BLOCKS, WIDTH))
    return TokenBlocks([drawn.astype(np.uint16)])


def new_model(preset: str) -> Any:
    """Return a new model, the same one each time."""
    config = {"vocab_size": VOCABULARY} | COMMON | PRESETS[preset]
    return open_model(Origin(name=preset, config=config), seed=0)


def bare_loop(preset: str, data: TokenBlocks) -> Step:
    """Return the step of a straightforward program."""
    model = new_model(preset)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    dtype = fast_dtype(torch.device("cpu"))

    def step(rows: np.ndarray) -> None:
        ids_BT, _ = data.gather(rows)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_loop(preset: str, data: TokenBlocks, batch: int) -> Step:
    """Return the step of the job."""
    settings = LmSettings(batch_size=batch, learning_rate=1e-3, weight_decay=0.1)
    return LmTraining(new_model(preset), data, data, settings, Layout(zero_stage=1)).train_on


def peak_mib(which: str, preset: str, batch: int) -> int:
    """Return the peak memory of a process that takes two steps of one of the loops."""
    code = (
        "from benchmarks import lm_pretraining as b; "
        f"b.alone({which!r}, {preset!r}, {batch}, {torch.get_num_threads()})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def alone(which: str, preset: str, batch: int, threads: int) -> None:
    """Take two steps of one loop and print the peak memory of this process in MiB."""
    torch.set_num_threads(threads)
    data = random_tokens()
    step = our_loop(preset, data, batch) if which == "ours" else bare_loop(preset, data)
    for _ in range(2):
        step(np.arange(batch))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)


def measure(loops: dict[str, Step], batch: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Return seconds a step of each loop, by round; they change places from round to round."""
    random = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(-1, rounds):
        order = list(loops) if turn % 2 else list(loops)[::-1]
        for name in order:
            batches = [random.permutation(BLOCKS)[:batch] for _ in range(steps)]
            started = time.perf_counter()
            for rows in batches:
                loops[name](rows)
            if turn >= 0:  # the first round warms up
                seconds[name].append((time.perf_counter() - started) / steps)
    return seconds


def main(
    preset: Annotated[str, typer.Option(help="Size of the model.")] = "small",
    batch: Annotated[int, typer.Option(help="Blocks of 256 tokens a step.")] = 16,
    rounds: Annotated[int, typer.Option(help="Turns of each loop.")] = 9,
    steps: Annotated[int, typer.Option(help="Steps a turn.")] = 2,
) -> None:
    """Measure both loops in turn."""
    memory = {which: peak_mib(which, preset, batch) for which in ("ours", "bare")}
    data = random_tokens()
    loops = {"ours": our_loop(preset, data, batch), "bare": bare_loop(preset, data)}
    seconds = measure(loops, batch, rounds, steps)
    tokens = batch * WIDTH
    ratio = statistics.median(b / o for b, o in zip(seconds["bare"], seconds["ours"], strict=True))
    compute = str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")
    shown = {"ours": "the job's loop (DeepSpeed)", "bare": "a bare loop"}
    medians = {name: statistics.median(seconds[name]) for name in loops}
    report(
        f"{preset} preset, {tokens} tokens a step, products in {compute}, "
        f"{torch.get_num_threads()} threads (median of {rounds} turns)",
        ["", "tokens/s", "s a step", "peak MiB"],
        [
            [label, f"{tokens / medians[n]:,.0f}", f"{medians[n]:.3f}", str(memory[n])]
            for n, label in shown.items()
        ],
        name="lm_pretraining",
        ratio=ratio,
        floor_ratio=1 / ratio,
        tokens_per_second=tokens / medians["ours"],
        tokens_per_second_bare=tokens / medians["bare"],
        peak_mib=memory["ours"],
        peak_mib_bare=memory["bare"],
        bar=BAR,
        holds=ratio >= BAR,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.lm_pretraining")
