"""Run a function on each of some nodes of the connected cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cluster.errors import user_error
from engine.external_errors import first_line

T = TypeVar("T")

ANSWER_SECONDS = 120.0
"""Time that a node has to start a worker, beside what the work takes."""


@dataclass
class Answers(Generic[T]):
    """The nodes' answers, each by the node's id.

    Args:
        given: what the function returned.
        failed: why there is no answer, in one line: it raised, or the node went away.
        silent: ids of nodes that did not answer in time.
    """

    given: dict[str, T] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)


def other_nodes() -> dict[str, str]:
    """Return the addresses of the living nodes but this process' own, by their ids."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in living_but_own()}


def living_but_own() -> list[dict[str, Any]]:
    """Return what Ray tells of the living nodes but this process' own."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


def on_nodes(
    function: Callable[..., T], nodes: Iterable[str], *arguments: object, timeout_s: float = ANSWER_SECONDS
) -> Answers[T]:
    """Call a function once on each of some nodes, at the same time.

    Args:
        function: of an importable module; takes no core, so that no other work is waited for.
        nodes: ids.
        arguments: the function's.
        timeout_s: after which a node counts as silent; its task is cancelled.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            *arguments
        ): node
        for node in nodes
    }
    done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s) if asked else ([], [])
    found: Answers[T] = Answers(silent=[asked[one] for one in waiting])
    for answer in done:
        try:
            found.given[asked[answer]] = ray.get(answer)
        except ray.exceptions.RayError as error:
            found.failed[asked[answer]] = first_line(user_error(error) or error)
    for one in waiting:
        ray.cancel(one, force=True)
    return found
