"""The application's door: ``serve run serve.app:build workspace=…``, or ``python -m serve.run``.

No ``from __future__ import annotations`` here: Ray Serve finds the settings' type in the signature,
and it does not read annotations that are strings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ray import serve
from ray.serve import Application

from engine.bundle import Bundle
from engine.stages.base import Pipeline
from engine.workspace import Workspace
from serve.graph import Ingress, StageHost
from serve.plan import Plan, Unit, default_method, plan, served_methods
from serve.settings import ServeSettings

INGRESS_CPUS = 0.1


@dataclass(frozen=True)
class Prepared:
    """What is to be served: settled before anything is started, and the same on every replica."""

    settings: ServeSettings
    bundle: Bundle
    methods: Mapping[str, Pipeline]
    plan: Plan

    @property
    def cpus(self) -> int:
        """Cores that the whole application reserves."""
        stages = sum(unit.num_cpus for unit in self.plan.units) * self.settings.replicas
        return math.ceil(stages + INGRESS_CPUS * self.settings.ingress_replicas)


def prepare(settings: ServeSettings) -> Prepared:
    """Open the bundle and lay out the deployments.

    Raises:
        BundleError: there is no such bundle, or it is not whole.
        UserError: a method that is not known or that the bundle cannot serve.
    """
    bundle = Bundle.open(Workspace.open(settings.workspace), settings.bundle)
    methods = served_methods(bundle, settings.methods)
    return Prepared(settings, bundle, methods, plan(methods, settings))


def assemble(prepared: Prepared) -> Application:
    """Return the application: a host for each unit of the plan, and the ingress that holds them."""
    settings, bundle_id = prepared.settings, prepared.bundle.id
    handles = {unit.name: _host(unit, settings, bundle_id) for unit in prepared.plan.units}
    ingress = serve.deployment(
        name="Ingress",
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=settings.max_queued,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
    )(serve.ingress()(Ingress))
    methods = {name: str(pipeline) for name, pipeline in prepared.methods.items()}
    default = default_method(prepared.methods)
    return ingress.bind(settings, bundle_id, methods, default, dict(prepared.plan.routes), handles)


def build(settings: ServeSettings) -> Application:
    """Return the application that the settings describe (see :func:`prepare` for errors)."""
    return assemble(prepare(settings))


def _host(unit: Unit, settings: ServeSettings, bundle_id: str) -> Application:
    deployment = serve.deployment(
        name=unit.name,
        num_replicas=settings.replicas,
        # Room for the batch that is computed and the one that gathers meanwhile.
        max_ongoing_requests=2 * settings.max_batch_size,
        max_queued_requests=settings.max_queued,
        ray_actor_options={"num_cpus": unit.num_cpus, "num_gpus": unit.num_gpus},
    )(StageHost)
    return deployment.bind(settings, bundle_id, unit.stages)
