"""Which deployments a set of methods needs, and each method's way through them. No Ray here.

Stages with equal settings are opened once, whatever number of methods use them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import Bundle
from engine.errors import BundleError, UserError
from engine.methods import METHODS
from engine.stages.base import Pipeline, Stage
from serve.settings import ServeSettings

FUSED = "Pipeline"
DEFAULT = "default"

Hop = tuple[str, tuple[int, ...]]
"""A deployment's name, and the places of the stages to run there."""


@dataclass(frozen=True)
class Unit:
    """One deployment: its stages and the resources of a replica."""

    name: str
    stages: tuple[Stage, ...]
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class Plan:
    """Deployments, and for each method its hops through them."""

    units: tuple[Unit, ...]
    routes: Mapping[str, tuple[Hop, ...]]


def plan(methods: Mapping[str, Pipeline], settings: ServeSettings) -> Plan:
    """Lay the methods' stages out on deployments: one (``fused``), or one for each stage."""
    stages = list(dict.fromkeys(s for pipeline in methods.values() for s in pipeline.stages))
    if settings.fused:
        unit = _unit(FUSED, stages, settings)
        routes = {
            name: ((FUSED, tuple(stages.index(s) for s in pipeline.stages)),)
            for name, pipeline in methods.items()
        }
        return Plan((unit,), routes)
    names = _names(stages)
    return Plan(
        tuple(_unit(names[stage], [stage], settings) for stage in stages),
        {
            name: tuple((names[stage], (0,)) for stage in pipeline.stages)
            for name, pipeline in methods.items()
        },
    )


def _unit(name: str, stages: Sequence[Stage], settings: ServeSettings) -> Unit:
    """A fused replica runs one stage at a time, so it wants what its hungriest stage wants."""
    cpus = settings.num_cpus or max(stage.num_cpus for stage in stages)
    return Unit(name, tuple(stages), cpus, max(stage.num_gpus for stage in stages))


def _names(stages: Sequence[Stage]) -> dict[Stage, str]:
    """Name deployments after their stages; a second one of a kind gets a number."""
    names: dict[Stage, str] = {}
    for stage in stages:
        same = sum(other.name == stage.name for other in names)
        names[stage] = stage.name if same == 0 else f"{stage.name}-{same + 1}"
    return names


def served_methods(bundle: Bundle, wanted: Sequence[str]) -> dict[str, Pipeline]:
    """Return the methods to serve: those named, or every one that the bundle has the files for.

    Raises:
        UserError: a named method is not known, or the bundle lacks what it needs.
        BundleError: the bundle has what no method needs.
    """
    if unknown := [name for name in wanted if name not in METHODS]:
        raise UserError(f"methods: unknown {unknown[0]!r}; known: {', '.join(METHODS)}")
    lacking = {name: lack for name, p in METHODS.items() if (lack := what_lacks(bundle, p))}
    for name in wanted:
        if name in lacking:
            raise UserError(f"methods: {name!r} cannot be served: {lacking[name]}")
    found = {name: METHODS[name] for name in wanted or METHODS if name not in lacking}
    if not found:
        raise BundleError("; ".join(dict.fromkeys(lacking.values())))
    return found


def default_method(methods: Mapping[str, Pipeline]) -> str:
    """Return the method of queries that name none: ``default``, else the first that is served."""
    return DEFAULT if DEFAULT in methods else next(iter(methods))


def what_lacks(bundle: Bundle, pipeline: Pipeline) -> str:
    """Return why the bundle cannot serve a pipeline, or nothing.

    Stages are asked for their files without loading them, so the look goes as far as the first file
    of each stage; what else is missing comes to light when the stage opens, and then its method
    answers 503.
    """
    probe = _Probe(**{f.name: getattr(bundle, f.name) for f in dataclasses.fields(Bundle)})
    for stage in pipeline.stages:
        try:
            stage.open(probe)
        except _FoundError:
            continue
        except BundleError as error:
            return str(error)
    return ""


class _FoundError(Exception):
    """The file is there: no need to load it."""


class _Probe(Bundle):
    """A bundle that stops a stage at the first file that it finds."""

    def path(self, name: str) -> Path:
        found = super().path(name)
        if name == "entities.parquet":  # most stages start with it, and it tells them nothing apart
            return found
        raise _FoundError
