"""Measure a training step of the entity head: the loss over all entities against the estimate from a sample.

Each runs in a process of its own: the head alone with AdamW, on random states. The peak is what the steps
add to what the process has with its libraries. Weights, gradient and both moments are there either way, 16
bytes a number of the matrix; the estimate saves the products with all of it, and the logits. Seconds are of
the processor, on one thread.

    python -m benchmarks.entity_head
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import torch
import typer

from benchmarks.peak_memory import fixed_threshold, measured_peak
from benchmarks.report import report
from engine.losses.entity_prediction import EntityHead, smoothed_loss
from engine.losses.sampled_softmax import drawn_entities, sampled_loss
from engine.training.settings import EncoderSettings
from jobs import console

EXAMPLES = """
  python -m benchmarks.entity_head
  python -m benchmarks.entity_head --entities 1000000
"""

DIM, BATCH, SMOOTHING, STEPS = 384, 256, 0.075, 4
SAMPLES = EncoderSettings().sampled_entities


def main(
    entities: int = typer.Option(250_000, help="Size of the vocabulary."),
    samples: int | None = typer.Option(None, hidden=True, help="Measure one way, in this process."),
) -> None:
    """Measure time and memory of both ways."""
    if samples is not None:
        return print(json.dumps(_measure(entities, samples)))
    ways = {"all entities": 0, f"{SAMPLES:,} of them": SAMPLES}
    found = {name: _in_a_process(entities, number) for name, number in ways.items()}
    rows = [[name, f"{one['seconds']:.2f}", f"{one['peak'] / 1e9:.2f}"] for name, one in found.items()]
    full, sampled = found.values()
    return report(
        f"A step of the entity head, {entities:,} entities of {DIM} numbers, {BATCH} sentences",
        ["loss over", "seconds", "peak GB"],
        rows,
        name="entity_head",
        ratio=full["seconds"] / sampled["seconds"],
        floor_ratio=sampled["peak"] / (16 * DIM * entities),
        holds=sampled["seconds"] < full["seconds"] and sampled["peak"] < full["peak"],
        entities=entities,
    )


def _in_a_process(entities: int, samples: int) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.entity_head", "--entities", entities, "--samples", samples]
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(entities: int, samples: int) -> dict[str, float]:
    torch.set_num_threads(1)
    fixed_threshold()
    torch.manual_seed(0)
    seconds = []
    with measured_peak() as peak:
        head = EntityHead(DIM, entities)
        optimizer = torch.optim.AdamW(head.parameters(), fused=True)
        for _ in range(STEPS):
            states, wanted = torch.randn(BATCH, DIM), torch.randint(entities, (BATCH,))
            started = time.process_time()
            optimizer.zero_grad()
            if samples:
                loss = sampled_loss(head, states, wanted, SMOOTHING, drawn_entities(entities, samples))
            else:
                loss = smoothed_loss(head(states), wanted, SMOOTHING)
            loss.backward()
            optimizer.step()
            seconds.append(time.process_time() - started)
    return {"seconds": statistics.median(seconds), "peak": peak[0]}


if __name__ == "__main__":
    console.run(main, EXAMPLES)
