"""Plan a cluster from what was measured: how many nodes, how much memory and disk, and what it is that costs.

Rates are those of :mod:`cluster.measured`, taken to grow with cores; what is assumed and was not measured is
an option, and the plan says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cluster import measured as m
from cluster.commandline import command
from cluster.sizing import (
    GIB,
    PARAMETER_BYTES,
    Line,
    SizeSettings,
    core_hours,
    disk,
    lm_operations,
    memory,
    serial_hours,
    short,
    tokens_of,
)
from engine.errors import UserError

INDEX_SHARE = 0.5
"""Share of a node's memory that vectors may take before they are spread over more nodes."""

EXAMPLES = """
  seedset size --entities 50973 --sentences 394097
  seedset size --entities 1e6 --sentences 1e8 --hours 24 --node-cores 16 --node-memory-gib 64
  seedset size --entities 1e5 --sentences 1e7 --language-model-parameters 7e9 --gpu-teraflops 200
"""


class Plan(NamedTuple):
    """A plan: its lines, and what they come to.

    Args:
        hours: what one process does alone.
        work: spread over cores.
        memory: of processes and nodes.
        disk: of the workspace.
        nodes: the lines of the number of nodes; the last is the number.
        gpus: likewise of GPUs; empty without them.
        drivers: what costs most, first.
        notes: what the plan leaves out or assumes.
    """

    hours: Line
    work: list[Line]
    memory: list[Line]
    disk: list[Line]
    nodes: list[Line]
    gpus: list[Line]
    drivers: list[str]
    notes: list[str]


def plan(settings: SizeSettings) -> Plan:
    """Return the plan.

    Raises:
        UserError: no number of nodes can do it: one process alone takes longer, or does not fit a node.
    """
    alone, work = serial_hours(settings), core_hours(settings)
    left = settings.hours - alone.value
    if left <= 0:
        raise UserError(
            f"--hours {settings.hours:g}: {alone}, which more nodes do not shorten; give more hours, or "
            "import the "
            "source in parts and add them (seedset import --append)"
        )
    needed = memory(settings)
    process = max(needed[: len(m.MEMORY)], key=lambda line: line.value)
    if process.value > settings.node_memory_gib:
        raise UserError(
            f"--node-memory-gib {settings.node_memory_gib:g}: {process}, on one node; give larger nodes"
        )
    stored = disk(settings)
    nodes = _nodes(settings, work, left, needed, stored)
    return Plan(
        alone,
        work,
        needed,
        stored,
        nodes,
        _gpus(settings, left),
        _drivers(work, stored, needed),
        [*_notes(settings)],
    )


def _nodes(
    settings: SizeSettings, work: list[Line], left: float, needed: list[Line], stored: list[Line]
) -> list[Line]:
    total = sum(line.value for line in work)
    vectors = next(line for line in needed if line.what.startswith("vectors"))
    states = next(line for line in stored if line.what.startswith("frozen"))
    cores = Line(
        "nodes for the work",
        f"{short(total)} core-hours / {short(left)} hours / {settings.efficiency:g} (efficiency) / "
        f"{settings.node_cores} cores",
        math.ceil(total / left / settings.efficiency / settings.node_cores),
        "nodes",
    )
    room = Line(
        "nodes for the vectors",
        f"{short(vectors.value)} GiB / ({INDEX_SHARE:g} x {settings.node_memory_gib:g} GiB)",
        math.ceil(vectors.value / (INDEX_SHARE * settings.node_memory_gib)),
        "nodes",
    )
    disks = Line(
        "nodes for the frozen states, if they lie on the nodes' disks",
        f"{short(states.value)} GiB / {settings.node_disk_gib:g} GiB",
        math.ceil(states.value / settings.node_disk_gib),
        "nodes",
    )
    most = max((cores, room, disks), key=lambda line: line.value)
    names = f"the largest of {cores.value:g}, {room.value:g} and {disks.value:g}"
    return [cores, room, disks, Line("nodes", names, most.value, "nodes")]


def _gpus(settings: SizeSettings, left: float) -> list[Line]:
    if not settings.language_model_parameters:
        return []
    trained = _training_gpus(settings, left) if settings.gpu_teraflops else []
    return [*trained, _serving_gpus(settings)]


def _serving_gpus(settings: SizeSettings) -> Line:
    """Return the GPUs of one node that a served model is split over; heads come in powers of two."""
    parameters, room = settings.language_model_parameters, 0.8 * settings.gpu_memory_gib
    return Line(
        "GPUs of one node for each model in use (--tensor-parallel)",
        f"{parameters:.3g} parameters x 2 bytes / {short(room)} GiB (a fifth is for caches), a power of 2",
        2 ** max(0, math.ceil(math.log2(parameters * 2 / GIB / room))),
        "GPUs",
    )


def _training_gpus(settings: SizeSettings, left: float) -> list[Line]:
    operations = lm_operations(settings)
    by_time = Line(
        "GPUs for the time",
        f"6 x {settings.language_model_parameters:.3g} parameters x {tokens_of(settings)} tokens "
        f"/ {settings.gpu_teraflops:g} TFLOP/s / {short(left)} hours",
        math.ceil(operations / (settings.gpu_teraflops * 1e12) / (left * 3600)),
        "GPUs",
    )
    states = settings.language_model_parameters * PARAMETER_BYTES / GIB
    by_memory = Line(
        "GPUs for the memory, a fifth of each kept for activations",
        f"{short(states)} GiB / (0.8 x {settings.gpu_memory_gib:g} GiB)",
        math.ceil(states / (0.8 * settings.gpu_memory_gib)),
        "GPUs",
    )
    most = max(by_time.value, by_memory.value)
    return [
        by_time,
        by_memory,
        Line("GPUs", f"the larger of {by_time.value:g} and {by_memory.value:g}", most, "GPUs"),
    ]


def _drivers(work: list[Line], stored: list[Line], needed: list[Line]) -> list[str]:
    """Return what costs most of each kind, with its share of the whole where shares add up."""
    time, space = max(work, key=lambda line: line.value), max(stored, key=lambda line: line.value)
    of_time, of_space = sum(line.value for line in work), sum(line.value for line in stored)
    largest = max(needed, key=lambda line: line.value)
    return [
        f"time: {time.what}, {time.value / of_time:.0%} of the core-hours",
        f"disk: {space.what}, {space.value / of_space:.0%}",
        f"memory: {largest.what}, {short(largest.value)} GiB",
    ]


def _notes(settings: SizeSettings) -> Iterator[str]:
    yield f"rates were measured on {m.CORES} cores without a GPU; that they grow with cores and nodes was not"
    yield (
        f"efficiency {settings.efficiency:g} is assumed; the memory is straight lines through three "
        "small corpora, of which what ends somewhere is taken to go on"
    )
    if settings.images:
        yield "the time of image features was not measured: the plan has their disk alone"
    if settings.gpu_teraflops:
        yield f"{settings.gpu_teraflops:g} TFLOP/s a GPU are assumed; batch and encoder are planned on cores"
    if settings.queries and not settings.language_model_parameters:
        yield "a query takes longer with more entities: its product with all vectors grows with them"


def text(found: Plan) -> str:
    """Return a plan as it is printed."""
    sections: dict[str, Sequence[object]] = {
        "Alone": [found.hours],
        "Work": found.work,
        "Memory": found.memory,
        "Disk": found.disk,
        "Nodes": [*found.nodes, *found.gpus],
        "What costs": found.drivers,
        "Not measured": found.notes,
    }
    return "\n".join(
        f"{name}\n" + "\n".join(f"  {line}" for line in lines) for name, lines in sections.items()
    )


@command(EXAMPLES)
def main(settings: SizeSettings) -> None:
    """Plan a cluster: nodes, memory, disk and what costs, with the arithmetic."""
    print(text(plan(settings)))


if __name__ == "__main__":
    main.run()
