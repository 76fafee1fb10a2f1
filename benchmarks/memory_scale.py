"""Measure how the memory and the disk of every step grow with the corpus, and extrapolate.

Makes corpora of invented sentences and runs the commands from `import` to `build-index` on each, in processes
of their own. Memory is that of every process by itself, by its role: the command, each kind of Ray's actors,
Ray's own (:mod:`benchmarks.process_memory`); Ray's object store is told apart.

Sentences grow beside the fewest entities, and entities beside the fewest sentences, so that each term has a
slope of its own, between the two largest of each; where one falls, which is chance, it is 0. The peak of a
role at the target is that of the smallest corpus and both terms. What ends somewhere must have ended before:

- What is kept of each entity's sentences (8, to be shown) is full where there are many for each. Give the
  most entities ten sentences or more.
- Model input draws so many sentences of an entity. Here it draws all of them, which is the most.
- What is between blocks and parts is full from some ten thousand of each: larger corpora, less chance.

The encoder is a tiny one, made here, with the embedded encoder's tokenizer: what is measured is what texts
and entities take. What its dimensions add is told by arithmetic: the head of a training and its optimiser, 16
bytes for each number of each entity, and the frozen states on disk, tokens x dimensions x 2.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import typer
from rich.filesize import decimal

from benchmarks.import_scale import generate
from benchmarks.invented import WORDS_PER_SENTENCE
from benchmarks.process_memory import COMMAND, STORE, Cost, measured
from benchmarks.report import report
from engine.corpus.inputs.format import open_inputs
from engine.storage.workspace import Workspace
from jobs import console

TARGET, TARGET_ENTITIES = 10_000_000, 200_000
LIMIT_BYTES = 3 * 2**30
SMALL = LIMIT_BYTES / 30
"""Bytes up to which a process is not told of by itself."""
DIM, EMBEDDED_DIM = 16, 384
HEAD_BYTES = 16
"""Of a number of the head in training: the weight, its gradient, and Adam's two moments, in float32."""
EXAMPLES = """
  python -m benchmarks.memory_scale
  python -m benchmarks.memory_scale --sizes 2000,4000 --entities 40,80
  python -m benchmarks.memory_scale --sizes 150000,600000 --entities 4000,15000 --words 8 --no-distributions
"""
SEED = 11
TRAINED = f"train-encoder: {COMMAND}"
"""Row of the process that trains, as one worker is the command itself."""


class Size(NamedTuple):
    """The size of a corpus."""

    sentences: int
    entities: int


Costs = Mapping[Size, Mapping[str, Cost]]
"""What each step took, by its name, of each corpus."""


def write_tiny_encoder(folder: Path, dim: int = DIM) -> None:
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


def steps(root: Path, model: Path, size: Size, distributions: bool, index: bool) -> dict[str, list[str]]:
    """Return the commands from a corpus to a bundle, or to an encoder alone, by name."""
    seedset, workspace = [sys.executable, "-m", "cluster.seedset"], f"--workspace={root / 'work'}"
    drawn = f"--max-sentences={size.sentences}"
    text = [] if distributions else ["--no-text-distributions"]
    built = [*seedset, "build-index", workspace, *text]
    return {
        "import": [*seedset, "import", workspace, f"--source={root / 'source'}"],
        "preprocess": [*seedset, "preprocess", workspace, f"--model={model}", drawn],
        "train-encoder": [*seedset, "train-encoder", workspace, f"--model={model}", "--epochs=1"],
    } | ({"build-index": built} if index else {})


def corpora(sizes: Sequence[int], entities: Sequence[int]) -> list[Size]:
    """Return the corpora to measure: sentences beside the fewest entities, and the other way round."""
    return [*(Size(one, entities[0]) for one in sizes), *(Size(sizes[0], one) for one in entities[1:])]


def slope(at: Sequence[int], values: Sequence[float]) -> float:
    """Return by how much a value rises a unit between its two largest corpora; 0 where there is one."""
    return max(0.0, (values[-1] - values[-2]) / (at[-1] - at[-2])) if len(at) > 1 else 0.0


class Line(NamedTuple):
    """What grows with sentences and with entities, each by itself.

    Args:
        base: bytes at the smallest corpus.
        smallest: that corpus.
        a_sentence, an_entity: bytes that one more takes.
    """

    base: float
    smallest: Size
    a_sentence: float
    an_entity: float

    def at(self, size: Size) -> float:
        """Return the bytes at some size."""
        more = Size(size.sentences - self.smallest.sentences, size.entities - self.smallest.entities)
        return self.base + self.a_sentence * more.sentences + self.an_entity * more.entities


def line(sizes: Sequence[int], entities: Sequence[int], values: Mapping[Size, float]) -> Line:
    """Return the line through what was measured of :func:`corpora`."""
    smallest = Size(sizes[0], entities[0])
    return Line(
        values[smallest],
        smallest,
        slope(sizes, [values[Size(one, entities[0])] for one in sizes]),
        slope(entities, [values[Size(sizes[0], one)] for one in entities]),
    )


def measure(
    sizes: Sequence[Size], words: int, distributions: bool, index: bool, kept: Path | None
) -> tuple[dict[Size, dict[str, Cost]], float]:
    """Measure every step of every corpus; returns the costs, and the tokens of a sentence.

    Args:
        sizes: of the corpora.
        words: of a sentence, about.
        distributions: make those of the text, too.
        index: build one.
        kept: JSON lines of steps that were measured before, to which those measured now are added.
    """
    costs: dict[Size, dict[str, Cost]] = {size: {} for size in sizes}
    tokens = 0.0
    for row in kept.read_text().splitlines() if kept and kept.exists() else ():
        size, tokens, found = json.loads(row)
        costs[Size(*size)] = {step: Cost(*cost) for step, cost in found.items()}
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "encoder"
        write_tiny_encoder(model)
        for size in sizes:
            if costs[size]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                (root / "source").mkdir()
                (root / "work").mkdir()
                generate(root / "source", size.entities, size.sentences, SEED, words)
                commands = steps(root, model, size, distributions, index)
                costs[size] = {step: measured(one, root / "work") for step, one in commands.items()}
                made = open_inputs(Workspace.open(root / "work")).manifest
                tokens = made.tokens / made.mentions
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps([size, tokens, costs[size]]) + "\n")
    return costs, tokens


def main(
    sizes: str = typer.Option("40000,160000", help="Sentences of the corpora, rising."),
    entities: str = typer.Option("1000,4000", help="Entities of the corpora, rising."),
    target: int = typer.Option(TARGET, help="Sentences to extrapolate to."),
    target_entities: int = typer.Option(TARGET_ENTITIES, help="Entities to extrapolate to."),
    words: int = typer.Option(WORDS_PER_SENTENCE, help="Words of a sentence, about; 6 at least."),
    distributions: bool = typer.Option(
        True, help="Make what the head predicts, too: a product of every sentence with every entity."
    ),
    index: bool = typer.Option(True, help="Build an index; without it train-encoder is the last step."),
    kept: Path | None = typer.Option(
        None, help="File of what was measured: a corpus that is in it is not measured again."
    ),
) -> None:
    """Measure memory and disk of every step from a corpus to a bundle."""
    numbers, names = ([int(one) for one in text.split(",")] for text in (sizes, entities))
    costs, tokens = measure(corpora(numbers, names), words, distributions, index, kept)
    show(numbers, names, costs, Size(target, target_entities), tokens)


def show(sizes: Sequence[int], entities: Sequence[int], costs: Costs, target: Size, tokens: float) -> None:
    """Print the table for people and the line for scripts."""
    measured_at = corpora(sizes, entities)
    rows, peaks = [], {}
    for step in costs[measured_at[0]]:
        of_step = {size: costs[size][step] for size in measured_at}
        for role in sorted({role for one in of_step.values() for role in one.peaks}):
            values = {size: float(cost.peaks.get(role, 0)) for size, cost in of_step.items()}
            found = line(sizes, entities, values)
            if max(values.values()) < SMALL and (found.at(target) < 3 * SMALL or not min(values.values())):
                continue  # Ray's own processes; a line from a moment in which one was not seen says nothing
            name = f"{step}: {role}"
            peaks[name] = found.at(target)
            cells = [f"{values[size] / 2**20:.0f}" for size in measured_at]
            slopes = [f"{found.a_sentence:.0f}", f"{found.an_entity:.0f}"]
            rows.append([name, *cells, *slopes, f"{peaks[name] / 2**20:.0f}"])
        disk = line(sizes, entities, {size: float(cost.disk) for size, cost in of_step.items()})
        cells = [decimal(cost.disk) for cost in of_step.values()]
        slopes = [f"{disk.a_sentence:.0f}", f"{disk.an_entity:.0f}"]
        rows.append([f"{step}: disk", *cells, *slopes, decimal(int(disk.at(target)))])
    empty = [""] * (len(measured_at) + 2)
    head = HEAD_BYTES * (EMBEDDED_DIM - DIM) * target.entities
    states = int(tokens * EMBEDDED_DIM * 2 * target.sentences)
    rows.append([f"{TRAINED}, + a head of {EMBEDDED_DIM}", *empty, f"{(peaks[TRAINED] + head) / 2**20:.0f}"])
    rows.append([f"frozen states, {EMBEDDED_DIM} x {tokens:.0f} tokens: disk", *empty, decimal(states)])
    most = max(peak for name, peak in peaks.items() if not name.endswith(STORE))
    most = max(most, peaks[TRAINED] + head)
    report(
        f"MiB of the largest process of each role, at the target {target.sentences:,} / {target.entities:,}",
        [
            "step: role",
            *(f"{size.sentences:,} / {size.entities:,}" for size in measured_at),
            "B/sentence",
            "B/entity",
            "target",
        ],
        rows,
        name="memory_scale",
        ratio=LIMIT_BYTES / most,
        floor_ratio=most / max(one.largest for one in costs[measured_at[0]].values()),
        holds=most < LIMIT_BYTES,
        peak_mib={name: round(peak / 2**20) for name, peak in peaks.items()},
        head_mib=round(head / 2**20),
        target=target,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
