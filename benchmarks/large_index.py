"""Measure the search by codes on a view too large to be read for every query.

The vectors are synthetic. Without ``--around`` they follow a model of clusters: a topic in a class in an
entity, each drawn around the one above (see ``clusters``). With ``--around WORKSPACE`` they are drawn around
the real ones of that workspace's bundle: an entity's mask and description views side by side, plus a share of
the difference of two others, so that noise has the directions that real vectors have.

The least that a search without lists needs is one read of all codes; a search by lists reads a few of them.
Both are measured in this run, in turn, and the arithmetic is printed for this size and, from the same
constants, for ten million entities. The vectors lie in a file that is mapped, as those of a bundle do: they
may be larger than the memory; the codes, 8 GB of ten million, are made in it.

    python -m benchmarks.large_index --entities 1000000
    OMP_NUM_THREADS=1 python -m benchmarks.large_index --processor-time
    python -m benchmarks.large_index --entities 1000000 --around work --kind ivf-pq
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import faiss
import numpy as np
import torch
import typer

from benchmarks.report import medians, report
from engine.retrieval.code_building import (
    BAR,
    BYTES_A_DIMENSION,
    HUBNESS,
    CodesReport,
    fill_codes,
    seed_means,
    train_codes,
    tune_codes,
    write_codes,
)
from engine.retrieval.codes import K
from engine.retrieval.index import (
    Index,
    Means,
    VectorIndex,
    Vectors,
    index_file,
    read_vectors,
    unit,
    write_vectors,
)
from engine.retrieval.opening import read_index
from engine.retrieval.views import ViewPart, joint_view
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from jobs import console

READS = 1.5
"""A query may take so many reads of all codes."""

LARGE = 10_000_000
TOPICS = 500
CLASS_SIZE = 100
BLOCK = 1 << 16

VIEWS = ("mask", "description")


class Drawn(NamedTuple):
    """Unit vectors that are drawn: blocks of rows after one another, and the shape of all of them."""

    blocks: Iterator[Vectors]
    shape: tuple[int, int]


def clusters(entities: int, dimensions: int, random: np.random.Generator) -> Drawn:
    """Return unit vectors: the sum of a topic, a class and 0.7 times an own direction, each drawn at random.

    There are 500 topics and a class for each 100 entities: cosines are about 0.8 within a class and 0.4
    within a topic.
    """
    topics = unit(random.standard_normal((TOPICS, dimensions), np.float32))
    classes = unit(random.standard_normal((max(1, entities // CLASS_SIZE), dimensions), np.float32))
    classes += topics[random.integers(0, TOPICS, len(classes))]

    def block(rows: int) -> Vectors:
        own = unit(random.standard_normal((rows, dimensions), np.float32))
        return unit(classes[random.integers(0, len(classes), rows)] + 0.7 * own)

    return Drawn(map(block, _block_sizes(entities)), (entities, dimensions))


def around(workspace: str, entities: int, spread: float, random: np.random.Generator) -> Drawn:
    """Return unit vectors around real ones: each plus ``spread`` times the difference of two others."""
    bundle = Bundle.open(Workspace.open(workspace))
    parts = [ViewPart.centred(read_vectors(bundle.path(index_file(view)))) for view in VIEWS]
    real = np.concatenate(list(joint_view(parts)))
    real = real[real.any(axis=1)]

    def block(rows: int) -> Vectors:
        base, one, other = (real[random.integers(0, len(real), rows)] for _ in range(3))
        return unit(base + spread * (one - other))

    return Drawn(map(block, _block_sizes(entities)), (entities, real.shape[1]))


def _block_sizes(entities: int) -> Iterator[int]:
    return (min(BLOCK, entities - start) for start in range(0, entities, BLOCK))


def main(
    entities: Annotated[int, typer.Option(help="Rows of the matrix.")] = 100_000,
    dimensions: Annotated[int, typer.Option(help="Columns, where vectors are drawn by the model.")] = 768,
    kind: Annotated[str, typer.Option(help="Kind of code: ivf-sq8 or ivf-pq.")] = "ivf-sq8",
    drawn_around: Annotated[str, typer.Option("--around", help="A workspace with a bundle.")] = "",
    spread: Annotated[float, typer.Option(help="Share of the difference, with --around.")] = 0.5,
    queries: Annotated[int, typer.Option(help="Queries that recall is measured on.")] = 200,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 25,
    folder: Annotated[
        Path | None, typer.Option(help="Where vectors and codes lie: 5 bytes a number. Default: temporary.")
    ] = None,
    processor_time: Annotated[
        bool, typer.Option(help="Measure one thread's processor time: for a machine that others use.")
    ] = False,
) -> None:
    """Make codes of synthetic vectors, and measure recall, time and size."""
    if processor_time:
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
    random = np.random.default_rng(0)
    drawn = (
        around(drawn_around, entities, spread, random)
        if drawn_around
        else clusters(entities, dimensions, random)
    )
    hubness = random.random(entities, np.float32) * np.float32(0.2) + np.float32(0.4)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / "large.faiss"
        write_vectors(path, drawn.blocks, drawn.shape)
        np.save(path.with_suffix(".hubness.npy"), hubness)
        vectors = read_vectors(path, mapped=True)
        made, seconds = _build(vectors, hubness, kind, path)
        console.say(
            f"codes made in {seconds:.0f} s; {made.probes} of {made.lists} lists chosen on other queries"
        )
        means_QD = seed_means(VectorIndex(vectors), np.arange(entities, dtype=np.int32), queries, seed=99)
        clock = time.process_time if processor_time else time.perf_counter
        setup = Setup(entities, drawn.shape[1], drawn_around, rounds, clock)
        _measure(path, made, means_QD, setup, seconds)


def _build(vectors: Vectors, hubness: np.ndarray, kind: str, path: Path) -> tuple[CodesReport, float]:
    """Write the codes of vectors beside them; return what was made and the seconds that it took."""
    started = time.perf_counter()
    codes = train_codes(vectors, hubness, kind)
    console.say(f"lists made in {time.perf_counter() - started:.0f} s")
    with console.meter("codes, vectors", len(vectors)) as meter:
        fill_codes(codes, vectors, hubness, meter.add)
    made = tune_codes(codes, VectorIndex(vectors, hubness), has_hubness=True)
    seconds = time.perf_counter() - started
    write_codes(codes, path.with_suffix(".codes"))
    return made, seconds


class Setup(NamedTuple):
    """What is measured, and how."""

    entities: int
    dimensions: int
    around: str
    rounds: int
    clock: Callable[[], float]


def _measure(path: Path, made: CodesReport, means_QD: Means, setup: Setup, build_seconds: float) -> None:
    """Measure recall and time, and print what comes of it."""
    index = read_index(path)
    recall = {weight: _recall(index, means_QD, weight) for weight in (0.0, HUBNESS)}
    turn = itertools.cycle(range(len(means_QD)))

    def one_query(exact: bool) -> None:
        place = next(turn)  # another query each time: its lists are not in the cache
        index.search(means_QD[place : place + 1], K, [[]], exact=exact)

    codes = torch.ones(made.code_bytes // 4, dtype=torch.float32)
    seconds = medians({"ours": lambda: one_query(False), "read": codes.sum}, setup.rounds, clock=setup.clock)
    seconds |= medians({"exact": lambda: one_query(True)}, 3, 1, setup.clock)
    _print_arithmetic(made, setup, seconds)
    _report(made, setup, seconds, recall, build_seconds)


def _recall(index: Index, means_QD: Means, weight: float) -> float:
    nothing: list[list[int]] = [[] for _ in means_QD]
    found = index.search(means_QD, K, nothing, hubness=weight)
    truth = index.search(means_QD, K, nothing, hubness=weight, exact=True)
    pairs = zip(found, truth, strict=True)
    return float(np.mean([len(np.intersect1d(a.ids, b.ids)) / len(b.ids) for a, b in pairs]))


def _print_arithmetic(made: CodesReport, setup: Setup, seconds: Mapping[str, float]) -> None:
    bandwidth, share = made.code_bytes / seconds["read"], made.probes / made.lists
    large = LARGE * setup.dimensions * BYTES_A_DIMENSION[made.kind]
    print(
        f"one read of the codes: {made.code_bytes / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s = "
        f"{1e3 * seconds['read']:.1f} ms\n"
        f"a query: {share:.1%} of the lists, {share * made.code_bytes / 1e6:.1f} MB, and {K * made.ratio} "
        f"vectors of {4 * setup.dimensions} bytes = {1e3 * seconds['ours']:.1f} ms\n"
        f"{LARGE} x {setup.dimensions}: codes {large / 1e9:.1f} GB, one read {large / bandwidth:.2f} s; a "
        f"query that reads the same share of them {seconds['ours'] * LARGE / setup.entities:.2f} s at most "
        "(an estimate)"
    )


def _report(
    made: CodesReport,
    setup: Setup,
    seconds: Mapping[str, float],
    recall: Mapping[float, float],
    build_seconds: float,
) -> None:
    reads, least = seconds["ours"] / seconds["read"], min(recall.values())
    what = "processor time" if setup.clock is time.process_time else "time"
    report(
        f"{setup.entities} x {setup.dimensions}, {made.kind}, {torch.get_num_threads()} threads, {what}, "
        f"medians of {setup.rounds}",
        ["", "measured", "bar"],
        [
            ["recall@200", f"{recall[0.0]:.4f}", f"{BAR}"],
            [f"recall@200, hubness {HUBNESS}", f"{recall[HUBNESS]:.4f}", f"{BAR}"],
            ["a query, ms", f"{1e3 * seconds['ours']:.1f}", ""],
            ["one read of the codes, ms", f"{1e3 * seconds['read']:.1f}", ""],
            ["a query / one read", f"{reads:.2f}", f"{READS}"],
            ["the exact search, mapped, ms", f"{1e3 * seconds['exact']:.1f}", ""],
            ["codes made, s", f"{build_seconds:.0f}", ""],
        ],
        name="large_index",
        entities=setup.entities,
        dimensions=setup.dimensions,
        around_real=bool(setup.around),
        kind=made.kind,
        lists=made.lists,
        probes=made.probes,
        recall=recall[0.0],
        recall_hubness=recall[HUBNESS],
        recall_bar=BAR,
        query_ms=1e3 * seconds["ours"],
        read_ms=1e3 * seconds["read"],
        exact_ms=1e3 * seconds["exact"],
        build_s=build_seconds,
        ratio=seconds["exact"] / seconds["ours"],
        floor_ratio=reads,
        floor_bar=READS,
        holds=reads <= READS and least >= BAR,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.large_index")
