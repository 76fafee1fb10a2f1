"""Answers of methods on a small world of real words and pictures, and the file that keeps them.

Methods of a language model are not among them: a model trained in seconds turns on how sums are rounded.

``python -m tests.support.rankings`` writes the file anew, for a commit that means to change answers; methods
that are named beside it come in.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster.commandline import Command
from engine.methods import method
from engine.query import Query
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from examples.demo_images import countries_alone
from examples.make_sample import write_sample
from jobs import build_index, image_features, import_corpus, preprocess, train_encoder
from tests.support.commands import run_command
from tests.support.images import backbone

KEPT = Path(__file__).parents[1] / "data" / "rankings.json"

QUERIES = {
    "monarchies": (["Japan", "Thailand", "Jordan", "Morocco"], ["Norway", "Spain", "Denmark"]),
    "tricolours": (["France", "Italy", "Ireland"], []),
}
"""Positive and negative seeds."""

GIVEN: dict[str, Any] = {
    "class_name": "countries",
    "positive_attributes": (("government", ("monarchy",)),),
    "negative_attributes": (("continent", ("Europe",)),),
}
"""What queries say for methods that are given it."""

SHOWN = 25
"""Answers of a query that are kept."""

Answers = dict[str, dict[str, list[list[float]]]]
"""By method and query: [entity id, score], best first."""


in_float32 = patch("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
"""Compute in float32, whatever the processor is fast in: kinds of them round bfloat16 differently, and scores
are off by up to 1 %."""


@in_float32
def make_world(root: Path) -> Path:
    """Take the sample's countries from sentences and pictures to a bundle; return the workspace."""
    write_sample(root / "sample")
    countries_alone(root / "sample", root / "raw")
    where = ("--workspace", root / "w")
    layers = ("--visual-layers", 1, "--cross-layers", 1, "--clusters", 4)
    # In bfloat16 one rounding another way (two threads for one) grows to 1 % of a score within these steps.
    exact = ("--precision", "float32")
    steps: list[tuple[Command[Any], tuple[object, ...]]] = [
        (import_corpus.main, ("--format", "jsonl", "--source", root / "raw")),
        (image_features.main, ("--model", backbone(root / "vision"), "--grid", 2, "--workers", 1)),
        (preprocess.main, ("--images", "--max-sentences", 6)),
        (train_encoder.main, ("--epochs", 2, "--batch-size", 128, "--cache-dtype", "float32", *exact)),
        (
            train_encoder.main,
            ("--modality", "text+image", "--epochs", 1, "--cache-dtype", "float32", *layers, *exact),
        ),
        (build_index.main, ("--workers", 1)),
    ]
    for main, words in steps:
        if status := run_command(main, *where, *words):
            raise RuntimeError(f"{main.__module__} ended with status {status}")
    return root / "w"


@in_float32
def answers(workspace: Path, methods: Iterable[str]) -> Answers:
    """Return what methods and ablations answer to :data:`QUERIES`."""
    bundle = Bundle.open(Workspace.open(workspace))
    resolved = {
        name: tuple(bundle.vocabulary.resolve_all(some) for some in seeds) for name, seeds in QUERIES.items()
    }
    found: Answers = {}
    for name in methods:
        run = method(name).open(bundle)
        found[name] = {}
        for query, (positive, negative) in resolved.items():
            (expansion,) = run([Query(query, positive, negative, top_k=SHOWN, **GIVEN)])
            pairs = zip(expansion.ranking.ids.tolist(), expansion.ranking.scores.tolist(), strict=True)
            found[name][query] = [[entity, round(score, 7)] for entity, score in pairs]
    return found


def main() -> None:
    """Write the file anew: the methods that are in it, and those that are named."""
    os.environ.pop("RAY_ADDRESS", None)  # made here alone: a cluster that runs is no part of the answers
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        found = answers(make_world(Path(folder)), dict.fromkeys([*kept, *sys.argv[1:]]))
    lines = [f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in found.items()]
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
