"""Options that several jobs have: what they say on the command line is the same everywhere."""

from __future__ import annotations

from typing import Any

import typer

EPOCHS: Any = typer.Option(None, min=1, help="Passes over all contexts.  [default: 12; with images 8]")
BATCH_SIZE: Any = typer.Option(
    None, min=4, help="Contexts a step, over all workers.  [default: 256; with images 64]"
)
LEARNING_RATE: Any = typer.Option(
    None, help="Peak of the one-cycle schedule.  [default: 2e-3; with images 5e-4]"
)
SEED: Any = typer.Option(13, help="Of the head's first weights and the order of sentences.")
WORKERS: Any = typer.Option(1, min=1, help="Training processes.")
GPU: Any = typer.Option(False, "--gpu", help="One GPU a worker (NCCL, bfloat16).")
VISUAL_LAYERS: Any = typer.Option(3, min=0, help="Of the visual transformer.")
CROSS_LAYERS: Any = typer.Option(3, min=1, help="Of the cross-modal transformer.")
CLUSTERS: Any = typer.Option(16, min=2, help="Classes that clustering tells apart.")
