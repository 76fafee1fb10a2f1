"""The application's door: ``serve run serve.app:build workspace=…``, or ``python -m serve.run``.

No ``from __future__ import annotations`` here: Ray Serve finds the settings' type in the signature,
and it does not read annotations that are strings.
"""

import math

from ray import serve
from ray.serve import Application

from engine.bundle import Bundle
from engine.workspace import Workspace
from serve.graph import Ingress, StageHost
from serve.plan import Plan, Unit, default_method, plan, served_methods
from serve.settings import ServeSettings

NAME = "seedset"
INGRESS_CPUS = 0.1


def build(settings: ServeSettings) -> Application:
    """Return the application of a bundle's methods; every replica uses the bundle named here.

    Raises:
        BundleError: there is no such bundle, or it is not whole.
        UserError: a method that is not known or that the bundle cannot serve.
    """
    bundle = Bundle.open(Workspace.open(settings.workspace), settings.bundle)
    methods = served_methods(bundle, settings.methods)
    layout = plan(methods, settings)
    handles = {unit.name: _host(unit, settings, bundle.id) for unit in layout.units}
    ingress = serve.deployment(
        name="Ingress",
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=settings.max_queued,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
    )(serve.ingress()(Ingress))
    descriptions = {name: str(pipeline) for name, pipeline in methods.items()}
    return ingress.bind(
        settings, bundle.id, descriptions, default_method(methods), dict(layout.routes), handles
    )


def cpus_of(layout: Plan, settings: ServeSettings) -> int:
    """Return the cores that the whole application reserves."""
    stages = sum(unit.num_cpus for unit in layout.units) * settings.replicas
    return math.ceil(stages + INGRESS_CPUS * settings.ingress_replicas)


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
