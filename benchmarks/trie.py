"""Measure the trie of names against nested dictionaries, and against what a step of a search may cost.

Names are the titles of ``../shared/data`` (films, then wikispeedia); beyond these, made-up ones: a title
and a word of another, drawn from a fixed seed. They are tokenised as they stand in a prompt; that is not
timed. A step is what a search asks of the trie once a token: which of 40 beams are in a tail, its length
and next token, and all children of the others, as arrays. Its figure is the mean over the steps of a search
whose scores are random, from the root until all beams have ended. The floor of building is reading the
tokens into an array and sorting rows that are ready.
"""

from __future__ import annotations

import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from tokenizers import Tokenizer

from benchmarks.report import medians, report
from engine.generation.trie import Ints, Trie
from jobs import console

SHARED = Path(__file__).parents[1].parent / "shared"
TITLES = ("films", "wikispeedia")
TOKENIZER = SHARED / "models/llama-tokenizer/tokenizer.json"

BEAMS = 40
SUBSET = 1000

BARS = {"build": 20, "bytes": 64, "restrict": 5, "step": 200}
"""Seconds a million names; bytes a name; milliseconds; microseconds (2 % of a step that takes 10 ms)."""

SCALE = {"build": 1, "bytes": 1, "restrict": 1e3, "step": 1e6}

EXAMPLES = """
  python -m benchmarks.trie
  python -m benchmarks.trie --entities 5000
"""


class Step(NamedTuple):
    """The nodes of the beams of one step: at inner nodes, or in the tails of leaves at some offsets."""

    inner: Ints
    leaves: Ints
    offsets: Ints
    prefixes: list[list[int]]
    """Tokens that each beam has read: those of the inner nodes, then those of the leaves."""


def titles() -> list[str]:
    """Return the distinct titles of the shared data."""
    found: dict[str, None] = {}
    for name in TITLES:
        with tarfile.open(SHARED / f"data/{name}.tar.xz") as archive:
            file = archive.extractfile(f"{name}/entities.txt")
            assert file is not None
            found |= dict.fromkeys(file.read().decode().rstrip("\n").split("\n"))
    return list(found)


def tokenised(real: Sequence[str], count: int) -> list[list[int]]:
    """Return the tokens of ``count`` names, made-up ones after the real ones."""
    random = Random(0)
    words = sorted({word for title in real for word in title.split()})
    names = dict.fromkeys(real[:count])
    while len(names) < count:
        names[f"{random.choice(real)} {random.choice(words)}"] = None
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    before = len(tokenizer.encode("and", add_special_tokens=False).ids)
    texts = [f"and {name}.\n" for name in names]
    return [
        encoding.ids[before:]
        for start in range(0, count, 10_000)
        for encoding in tokenizer.encode_batch(texts[start : start + 10_000], add_special_tokens=False)
    ]


def nested(sequences: Sequence[Sequence[int]]) -> dict[int, Any]:
    """Return the plain trie: a dictionary a node; the entity lies under the last token."""
    root: dict[int, Any] = {}
    for entity, sequence in enumerate(sequences):
        node = root
        for token in sequence[:-1]:
            node = node.setdefault(token, {})
        node.setdefault(sequence[-1], []).append(entity)
    return root


def nested_step(nodes: Sequence[dict[int, Any]]) -> tuple[Ints, Ints, list[Any]]:
    """Return parents, tokens and nodes of all children: what ``Trie.children`` returns."""
    parents: list[int] = []
    tokens: list[int] = []
    children: list[Any] = []
    for place, node in enumerate(nodes):
        parents += [place] * len(node)
        tokens += node
        children += node.values()
    return np.array(parents, np.int64), np.array(tokens, np.int64), children


def flat_step(trie: Trie, step: Step) -> tuple[Any, ...]:
    """Ask what a search asks in one step."""
    leaf = trie.is_leaf(np.concatenate([step.inner, step.leaves]))
    left = trie.tail_length(step.leaves) - step.offsets
    return leaf, left, trie.tail_token(step.leaves, step.offsets), trie.children(step.inner)


def searched(trie: Trie) -> list[Step]:
    """Return the steps of a beam search whose scores are random; a beam at its end leaves."""
    random = np.random.default_rng(1)
    steps = []
    nodes, offsets = np.zeros(1, np.int64), np.zeros(1, np.int64)
    prefixes: list[list[int]] = [[]]
    while len(nodes):
        leaf = trie.is_leaf(nodes)
        inner, leaves = np.flatnonzero(~leaf), np.flatnonzero(leaf)
        standing = [prefixes[i] for i in (*inner, *leaves)]
        steps.append(Step(nodes[inner], nodes[leaves], offsets[leaves], standing))
        parents, children, tokens = trie.children(nodes[inner])
        parents = np.append(inner[parents], leaves)
        tokens = np.append(tokens, trie.tail_token(nodes[leaves], offsets[leaves]))
        offsets = np.append(np.zeros_like(children), offsets[leaves] + 1)
        nodes = np.append(children, nodes[leaves])
        kept = random.permutation(len(nodes))[:BEAMS]
        ended = trie.is_leaf(nodes[kept])
        ended[ended] = trie.tail_length(nodes[kept][ended]) == offsets[kept][ended]
        kept = kept[~ended]
        prefixes = [[*prefixes[parents[i]], int(tokens[i])] for i in kept]
        nodes, offsets = nodes[kept], offsets[kept]
    return steps


def node_of(root: dict[int, Any], prefix: Sequence[int]) -> dict[int, Any]:
    """Return the nested dictionary that a prefix leads to."""
    for token in prefix:
        root = root[token]
    return root


def sorted_rows(sequences: Sequence[Sequence[int]]) -> Callable[[], Any]:
    """Return the floor of building: the lists read once, ready rows sorted."""
    lengths = np.array([len(sequence) for sequence in sequences])
    flat = [token for sequence in sequences for token in sequence]
    padded = np.zeros((len(lengths), lengths.max()), ">u2")
    padded[np.arange(lengths.max()) < lengths[:, None]] = flat
    rows = padded.view(f"V{2 * lengths.max()}")[:, 0]
    return lambda: (np.fromiter(flat, np.int32, len(flat)), np.argsort(rows, kind="stable"))


def measured(sequences: Sequence[Sequence[int]], rounds: int, rival: bool) -> dict[str, float]:
    """Return what each operation costs, in the units of the bars, but a build in seconds."""
    trie = Trie.build(sequences)
    chosen = Random(1).sample(range(len(sequences)), min(SUBSET, len(sequences)))
    subset = np.array(chosen, np.int32)
    steps = searched(trie)
    slow: dict[str, Callable[[], Any]] = {"build": lambda: Trie.build(sequences)}
    slow["build floor"] = sorted_rows(sequences)
    fast: dict[str, Callable[[], Any]] = {"restrict": lambda: trie.restrict(subset)}
    fast["step"] = lambda: [flat_step(trie, step) for step in steps]
    figures: dict[str, float] = {"bytes": trie.nbytes / trie.n_entities}
    if rival:
        tracemalloc.start()
        root = nested(sequences)
        figures["bytes nested"] = tracemalloc.get_traced_memory()[0] / len(sequences)
        tracemalloc.stop()
        nested_steps = [[node_of(root, prefix) for prefix in step.prefixes] for step in steps]
        slow["build nested"] = lambda: nested(sequences)
        fast["restrict nested"] = lambda: nested([sequences[i] for i in chosen])
        fast["step nested"] = lambda: [nested_step(nodes) for nodes in nested_steps]
    seconds = medians(slow, rounds, warm_up=1) | medians(fast, 10 * rounds)
    for name, value in seconds.items():
        operation = name.split()[0]
        figures[name] = SCALE[operation] * value / (len(steps) if operation == "step" else 1)
    return figures


def main(
    entities: Annotated[list[int] | None, typer.Option(help="Names; may be given again.")] = None,
    rounds: Annotated[int, typer.Option(help="Builds of each kind; ten times as many of the rest.")] = 5,
) -> None:
    """Measure building, restricting and walking the trie; nested dictionaries at the first size."""
    missing = [p for p in (TOKENIZER, *(SHARED / f"data/{n}.tar.xz" for n in TITLES)) if not p.exists()]
    if missing:
        print(f"skipped: needs ../shared/{missing[0].relative_to(SHARED)}")
        return
    real, sizes = titles(), entities or [50_000, 1_000_000]
    found = {size: measured(tokenised(real, size), rounds, size == sizes[0]) for size in sizes}
    first = found[sizes[0]]
    ratios = {name: first[f"{name} nested"] / first[name] for name in ("build", "bytes", "restrict", "step")}
    columns = [(found[size], "") for size in sizes] + [(first, " nested")]
    rows = [
        [label, *(f"{figures[name + kind]:.3g}" for figures, kind in columns), f"{BARS[name]}{unit}"]
        for label, name, unit in (
            ("build, seconds", "build", " a million"),
            ("memory, bytes a name", "bytes", ""),
            (f"restrict to {SUBSET} names, milliseconds", "restrict", ""),
            (f"step of {BEAMS} beams, microseconds", "step", ""),
        )
    ]
    holds = all(
        figures[name] * (1e6 / size if name == "build" else 1) <= bar
        for size, figures in found.items()
        for name, bar in BARS.items()
    )
    report(
        f"trie of names: {min(len(real), max(sizes))} titles, the rest made up of a title and a word; "
        f"median of {rounds} builds",
        ["", *(f"{size} names" for size in sizes), f"{sizes[0]} in nested dicts", "bar"],
        rows,
        name="trie",
        ratio=min(ratios.values()),
        **{f"ratio_{name}": ratio for name, ratio in ratios.items()},
        floor_ratio=max(figures["build"] / figures["build floor"] for figures in found.values()),
        **{f"{name}_{size}": figures[name] for size, figures in found.items() for name in BARS},
        holds=holds,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
