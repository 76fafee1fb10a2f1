"""Measure how the memory and the disk of every step grow with the corpus, and extrapolate.

Makes corpora of several sizes (invented sentences, one entity for every fifty of them) and runs the commands
from `import` to `build-index` on each, in processes of their own. Memory is what a process has for itself and
shares with others (`RssAnon` and `RssShmem`), looked at twenty times a second; files that it maps are left
out, as the system drops their pages when it needs them. The largest of the command and of all that it starts
counts. The peak at the target is a straight line through the two largest sizes: what grows faster shows as a
bend. With ``--entities`` every corpus has as many, so that the line is what sentences alone take; those of
the target at once (200,000) take hours, as every sentence is compared with every entity.

The encoder is a tiny one, made here, with the embedded encoder's tokenizer: what is measured is what texts
and entities take. The frozen states' bytes are exact, tokens x dimensions x 2, and are told for the embedded
encoder's 384 dimensions.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import typer
from rich.filesize import decimal

from benchmarks.import_scale import generate
from benchmarks.report import report
from engine.corpus.inputs.format import open_inputs
from engine.storage.workspace import Workspace
from jobs import console

SENTENCES_AN_ENTITY = 50
TARGET = 10_000_000
LIMIT_BYTES = 3 * 2**30
EMBEDDED_DIM = 384
EXAMPLES = """
  python -m benchmarks.memory_scale
  python -m benchmarks.memory_scale --sizes 2000,4000
  python -m benchmarks.memory_scale --sizes 200000,400000 --entities 4000
"""
LOOK_S = 0.05
"""Seconds between two looks at the processes' memory."""
SEED = 11


class Cost(NamedTuple):
    """What a step took.

    Args:
        peak: bytes of its largest process.
        disk: bytes that the workspace grew by.
        seconds: of the wall clock.
    """

    peak: int
    disk: int
    seconds: float


def write_tiny_encoder(folder: Path, dim: int = 16) -> None:
    """Write a BERT of two layers with the embedded encoder's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    from engine.corpus.inputs.masking import load_tokenizer
    from engine.models.hub import embedded_model_path

    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(embedded_model_path())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=512,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measured(command: Sequence[str], workspace: Path) -> Cost:
    """Run a command and return its cost.

    Raises:
        RuntimeError: it failed; with what it wrote.
    """
    before, started = _bytes_below(workspace), time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak = 0
        while process.poll() is None:
            peak = max(peak, *_memory_below(process.pid))
            time.sleep(LOOK_S)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode}\n{log.read()}")
    return Cost(peak, _bytes_below(workspace) - before, time.perf_counter() - started)


def _memory_below(pid: int) -> Iterator[int]:
    """Yield the bytes that a process and each one below it hold now, as far as they still run."""
    yield 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return
    for one in processes:
        try:
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        except OSError:
            continue
        yield sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _bytes_below(folder: Path) -> int:
    """Return the bytes that the files of a folder take; one of several names counts once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            known = path.stat()
            sizes[known.st_ino] = known.st_size
    return sum(sizes.values())


def steps(root: Path, model: Path) -> dict[str, list[str]]:
    """Return the commands from a corpus to a bundle, by name."""
    seedset, workspace = [sys.executable, "-m", "cluster.seedset"], f"--workspace={root / 'work'}"
    return {
        "import": [*seedset, "import", workspace, f"--source={root / 'source'}"],
        "preprocess": [*seedset, "preprocess", workspace, f"--model={model}"],
        "train-encoder": [*seedset, "train-encoder", workspace, f"--model={model}", "--epochs=1"],
        "build-index": [*seedset, "build-index", workspace],
    }


def extrapolated(sizes: Sequence[int], values: Sequence[float], target: int) -> float:
    """Return the value at ``target`` of the line through the last two points, which rise by size."""
    (a, b), (first, last) = sizes[-2:], values[-2:]
    return last + (last - first) / (b - a) * (target - b)


def main(
    sizes: str = typer.Option("20000,40000,80000", help="Sentences of each corpus, rising."),
    target: int = typer.Option(TARGET, help="Sentences to extrapolate to."),
    entities: int = typer.Option(0, help="Entities of every corpus; 0: one for fifty sentences."),
) -> None:
    """Measure memory and disk of every step from a corpus to a bundle."""
    numbers = [int(one) for one in sizes.split(",")]
    costs: list[dict[str, Cost]] = []
    tokens = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "encoder"
        write_tiny_encoder(model)
        for number in numbers:
            root = Path(temporary) / str(number)
            (root / "source").mkdir(parents=True)
            (root / "work").mkdir()
            generate(root / "source", entities or number // SENTENCES_AN_ENTITY, number, SEED)
            costs.append({n: measured(c, root / "work") for n, c in steps(root, model).items()})
            made = open_inputs(Workspace.open(root / "work")).manifest
            tokens = made.tokens / made.mentions
    show(numbers, costs, target, tokens)


def show(numbers: Sequence[int], costs: Sequence[dict[str, Cost]], target: int, tokens: float) -> None:
    """Print the table for people and the line for scripts."""
    rows, peaks, disk = [], {}, {}
    for step in costs[0]:
        peaks[step] = extrapolated(numbers, [one[step].peak for one in costs], target)
        disk[step] = extrapolated(numbers, [one[step].disk for one in costs], target)
        for number, one in zip(numbers, costs, strict=True):
            cost = one[step]
            rows.append(
                [
                    step,
                    f"{number:,}",
                    f"{cost.peak / 2**20:.0f}",
                    decimal(cost.disk),
                    f"{cost.seconds:.0f}",
                ]
            )
        rows.append([step, f"{target:,}*", f"{peaks[step] / 2**20:.0f}", decimal(int(disk[step])), ""])
    states = tokens * EMBEDDED_DIM * 2 * target
    rows.append(["frozen states", f"{target:,}*", "", decimal(int(states)), ""])
    report(
        "Memory and disk from a corpus to a bundle; * extrapolated, frozen states of 384 dimensions",
        ["step", "sentences", "peak MiB", "disk", "seconds"],
        rows,
        name="memory_scale",
        ratio=LIMIT_BYTES / max(peaks.values()),
        floor_ratio=max(peaks.values()) / max(one.peak for one in costs[0].values()),
        holds=max(peaks.values()) < LIMIT_BYTES,
        peak_mib={step: round(peak / 2**20) for step, peak in peaks.items()},
        disk_gb={step: round(size / 1e9, 1) for step, size in disk.items()},
        states_gb=round(states / 1e9),
        target=target,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
