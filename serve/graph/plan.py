"""Plan the deployments that a set of methods needs, and each route's calls to them. No Ray here.

A route is a method, a method with explanations, the look-up of an entity's neighbours, a map of entities, or
the typing of mentions. Stages with equal settings are opened once, whatever number of routes use them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.capacity import check_group_gpus
from engine.answering.explanations import explain_stage, select_stage
from engine.errors import BundleError, UserError
from engine.methods import ABLATIONS, METHODS
from engine.plugins import find_method, installed, is_method
from engine.query import Value
from engine.stages.base import Pipeline, Stage, missing_requirements
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.options import change_methods
from engine.stages.retrieve import Retrieve
from engine.stages.split_models import check_split_model
from engine.stages.type_mentions import TypeMentions
from engine.storage.bundle import Bundle
from serve.settings import ServeSettings, StageSettings

FUSED = "Pipeline"
LANGUAGE_MODEL = "LanguageModel"
"""The deployment of all stages with the bundle's language model: each of its replicas holds one."""
DEFAULT = "default"
EXPLAINED = "!explain"
"""Suffix of the name of a route that explains its answers."""
SELECTED = "!select"
"""Suffix of the name of a route whose lists are chosen as a whole; before that of explanations."""
NEIGHBOURS = "!neighbours"
MAP = "!map"
"""The route that explains and lays out the entities that it is given."""
MENTIONS = "!mentions"
"""The route that types mentions."""
ENCODE = "!encode"
"""The route that does nothing but encode the new entities of a query."""

SHARD_CPUS = 1.0

StageRef = tuple[str, int]
"""A deployment's name, and the place of a stage in it."""

DeploymentCall = tuple[str, tuple[int, ...]]
"""A deployment's name, and the places of the stages to run there."""


@dataclass(frozen=True)
class DeploymentSpec:
    """A deployment: its stages, or the part of the index that it holds, and its resources.

    Args:
        name: of the deployment.
        stages: in no particular order.
        settings: with replicas or autoscaling, and ``num_cpus``, set.
        shard: number of the part of the index, if it holds one.
    """

    name: str
    stages: tuple[Stage, ...]
    settings: StageSettings
    shard: int | None = None

    @property
    def language_model(self) -> bool:
        """Whether a replica holds the language model."""
        return any(stage.language_model for stage in self.stages)

    @property
    def most_replicas(self) -> int:
        """The replicas, or the most that autoscaling starts."""
        scaled = self.settings.autoscaling
        return scaled.max_replicas if scaled else self.settings.replicas or 1


@dataclass(frozen=True)
class Plan:
    """A plan: the deployments, and for each route its stages' places in them.

    ``encode_new`` is the place of the stage that new entities need first, if the bundle can do that.
    """

    deployments: tuple[DeploymentSpec, ...]
    routes: Mapping[str, tuple[StageRef, ...]]
    encode_new: StageRef | None = None
    names: Mapping[StageRef, str] = field(default_factory=dict)

    def calls(self, route: str, with_new: bool = False) -> tuple[DeploymentCall, ...]:
        """Return the calls of a route, in order: neighbouring stages of one deployment are one call.

        Raises:
            UserError: new entities, and no encoder.
        """
        refs = self.routes[route]
        if with_new and self.encode_new is None:
            raise UserError(
                "the bundle has no encoder, so seeds must be of its vocabulary; build the index again"
            )
        if with_new and self.encode_new is not None:
            refs = (self.encode_new, *refs)
        grouped = itertools.groupby(refs, key=lambda ref: ref[0])
        return tuple((name, tuple(place for _, place in group)) for name, group in grouped)


def plan(bundle: Bundle, methods: Mapping[str, Pipeline], settings: ServeSettings) -> Plan:
    """Lay the methods' stages out on deployments: one (``fused``), or one for each stage.

    Raises:
        UserError: settings for a deployment that there is not; ``tensor_parallel`` without a language model,
            or with one that cannot be split.
    """
    routes = {name: pipeline.stages for name, pipeline in methods.items()}
    routes |= {f"{name}{SELECTED}": (*stages, select_stage(bundle)) for name, stages in routes.items()}
    if (explain := explain_stage(bundle)) is not None:
        routes |= {f"{name}{EXPLAINED}": (*stages, explain) for name, stages in routes.items()}
        routes[NEIGHBOURS] = (Retrieve(view=explain.view),)
        routes[MAP] = (explain,)
    if not missing_requirements(bundle, [TypeMentions()]):
        routes[MENTIONS] = (TypeMentions(),)
    encode_new = EncodeNewEntities()
    can_encode = not missing_requirements(bundle, [encode_new])
    extra = (encode_new,) if can_encode else ()
    routes |= {ENCODE: ()} if can_encode else {}
    stages = list(dict.fromkeys([*itertools.chain.from_iterable(routes.values()), *extra]))
    check_split_model(bundle, stages, settings.tensor_parallel)
    ref_of = _stage_refs(stages, settings.fused)
    groups: dict[str, list[Stage]] = {}
    for stage, (name, _) in ref_of.items():
        groups.setdefault(name, []).append(stage)
    deployments = [_deployment_spec(name, group, settings) for name, group in groups.items()] + _shards(
        settings
    )
    _check_names(settings, [d.name for d in deployments], {s.name for s in stages if s.language_model})
    return Plan(
        tuple(deployments),
        {route: tuple(ref_of[stage] for stage in given) for route, given in routes.items()},
        ref_of[encode_new] if can_encode else None,
        {ref: stage.name for stage, ref in ref_of.items()},
    )


def _stage_refs(stages: Sequence[Stage], fused: bool) -> dict[Stage, StageRef]:
    """Return each stage's place: all in one deployment, or each in one named after it and numbered.

    Those with the language model share one even then, as each alone would hold a model of its own.
    """
    if fused:
        return {stage: (FUSED, place) for place, stage in enumerate(stages)}
    with_model = [stage for stage in stages if stage.language_model]
    shared = {stage: (LANGUAGE_MODEL, place) for place, stage in enumerate(with_model)}
    refs: dict[Stage, StageRef] = {}
    for stage in stages:
        if stage in shared:
            refs[stage] = shared[stage]
            continue
        same = sum(other.name == stage.name for other in refs if other not in shared)
        refs[stage] = (stage.name if same == 0 else f"{stage.name}-{same + 1}", 0)
    return refs


def _deployment_spec(name: str, stages: Sequence[Stage], settings: ServeSettings) -> DeploymentSpec:
    """Return a deployment's spec. A fused replica runs one stage at a time, so it gets the largest demand.

    A replica whose language model is split computes in as many processes.
    """
    own = settings.of(name)
    processes = settings.tensor_parallel if any(s.language_model for s in stages) else 1
    if processes > 1:
        try:
            check_group_gpus(own.num_gpus, processes)
        except ValueError as error:
            raise UserError(f"stages.{name}.num_gpus: {error}") from None
    cpus = max(s.num_cpus * (processes if s.language_model else 1) for s in stages)
    wanted = {
        "num_cpus": own.num_cpus if own.num_cpus is not None else cpus,
        "num_gpus": own.num_gpus if own.num_gpus is not None else max(s.num_gpus for s in stages),
    }
    return DeploymentSpec(name, tuple(stages), own.model_copy(update=wanted))


def _shards(settings: ServeSettings) -> list[DeploymentSpec]:
    """Return the deployments that hold the vectors, if they are spread."""
    count = settings.index_shards
    if count == 1:
        return []
    deployments = []
    for number in range(count):
        name = shard_name(number, count)
        own = settings.of(name)
        cpus = own.num_cpus if own.num_cpus is not None else SHARD_CPUS
        deployments.append(DeploymentSpec(name, (), own.model_copy(update={"num_cpus": cpus}), number))
    return deployments


def shard_name(number: int, count: int) -> str:
    """Return the name of the deployment that holds a part of the index."""
    return f"Index-{number + 1}-of-{count}"


def _check_names(settings: ServeSettings, names: Iterable[str], with_model: Collection[str]) -> None:
    known = sorted(names)
    if unknown := [name for name in settings.stages if name not in known]:
        shared = unknown[0].partition("-")[0] in with_model and LANGUAGE_MODEL in known
        where = f" (its stage is in {LANGUAGE_MODEL!r})" if shared else ""
        raise UserError(f"stages: no deployment {unknown[0]!r}{where}; there are {', '.join(known)}")


def with_gpus(made: Plan, settings: ServeSettings, gpus: float) -> Plan:
    """Return a plan whose replicas with a language model reserve GPUs.

    Args:
        made: the plan.
        settings: of the application; a deployment's own go before.
        gpus: of the cluster; 0: nothing changes but by settings.
    """
    wanting = [d for d in made.deployments if d.language_model and settings.of(d.name).num_gpus is None]
    replicas = sum(d.most_replicas for d in wanting)
    share = settings.gpu
    if share is None:
        share = 0 if gpus < 1 else 1 / math.ceil(replicas / gpus) if replicas > gpus else 1
        if share and settings.tensor_parallel > 1:
            share = settings.tensor_parallel
    if not wanting or not share:
        return made
    own = {
        d.name: replace(d, settings=d.settings.model_copy(update={"num_gpus": float(share)})) for d in wanting
    }
    return replace(made, deployments=tuple(own.get(d.name, d) for d in made.deployments))


def served_methods(
    bundle: Bundle, wanted: Sequence[str], changes: Mapping[str, Value] | None = None
) -> dict[str, Pipeline]:
    """Return the methods to serve: those named, or every one of ours that the bundle has the files for.

    Args:
        bundle: answers.
        wanted: names, also of installed methods, and ``module:NAME``: the modules are imported.
        changes: settings of stages that differ from the methods'.

    Raises:
        UserError: a named method is not known, or the bundle lacks what it needs; no such setting.
        BundleError: the bundle has what no method needs.
    """
    if unknown := [name for name in wanted if name in ABLATIONS or not is_method(name)]:
        raise UserError(f"methods: unknown {unknown[0]!r}; known: {', '.join([*METHODS, *installed()])}")
    methods = change_methods({name: find_method(name) for name in wanted or METHODS}, changes or {})
    lacking = _lacking(bundle, methods)
    for name in wanted:
        if name in lacking:
            raise UserError(f"methods: {name!r} cannot be served: {lacking[name]}")
    found = {name: pipeline.settled() for name, pipeline in methods.items() if name not in lacking}
    if not found:
        raise BundleError("; ".join(dict.fromkeys(lacking.values())))
    return found


def unavailable_methods(bundle: Bundle, served: Iterable[str] = ()) -> dict[str, str]:
    """Return by name why methods of ours cannot be served: files that the bundle lacks, no chat model set.

    Args:
        bundle: answers.
        served: methods that are, though their settings perhaps had to be changed for it.
    """
    return _lacking(bundle, {name: p for name, p in METHODS.items() if name not in set(served)})


def _lacking(bundle: Bundle, methods: Mapping[str, Pipeline]) -> dict[str, str]:
    return {name: lack for name, p in methods.items() if (lack := missing_requirements(bundle, p.stages))}


def default_method(methods: Iterable[str]) -> str:
    """Return the method of queries that name none: ``default``, else the first that is served."""
    names = list(methods)
    return DEFAULT if DEFAULT in names else names[0]
