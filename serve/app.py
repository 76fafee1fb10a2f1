"""Build the application: ``serve run serve.app:build workspace=…``, or ``seedset serve``.

``serve build serve.app:app`` takes the application as an object: ``SEEDSET_SETTINGS`` names a YAML file of
:class:`serve.settings.ServeSettings`, and the cluster's machines need it too when they deploy what ``serve
build`` wrote. ``serve deploy`` with ``serve.app:build`` does without.

No ``from __future__ import annotations`` here: Ray Serve finds the settings' type in the signature,
and it does not read annotations that are strings.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from engine.errors import UserError
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from serve.audit.host import AUDIT, AuditHost
from serve.graph.deployments import ShardHost, StageHost
from serve.graph.plan import DeploymentSpec, Plan, plan, served_methods, with_gpus
from serve.graph.store_host import ON_HEAD, StoreHost
from serve.http.tokens import TokenSources
from serve.ingress import Ingress
from serve.limits.host import LIMITS, LimitsHost, is_shared
from serve.operations.deploy_file import read_settings, settings_of
from serve.operations.running import INGRESS
from serve.overlay.store import OVERLAY, OverlayStore, overlay_file
from serve.sets.access import sets_file
from serve.sets.host import SETS, SetsHost
from serve.settings import ServeSettings
from serve.telemetry.tracing import check_exporter

INGRESS_CPUS = 0.1

AT_ONCE = 256
"""Calls that a replica accepts at once: it queues them by cost, and answers late ones as late."""


@dataclass(frozen=True)
class Prepared:
    """The application to serve: decided before anything is started, and the same on every replica."""

    settings: ServeSettings
    bundle: Bundle
    methods: Mapping[str, Pipeline]
    plan: Plan
    tokens: TokenSources

    @property
    def cpus(self) -> int:
        """Cores that the whole application reserves, at the most replicas."""
        total = INGRESS_CPUS * self.settings.ingress_replicas
        for spec in self.plan.deployments:
            total += (spec.settings.num_cpus or 0) * spec.most_replicas
        return math.ceil(total)


def prepare(settings: ServeSettings) -> Prepared:
    """Open the bundle and lay out the deployments.

    Raises:
        BundleError: there is no such bundle, or it is not whole.
        UserError: a method that is not known or that the bundle cannot serve; settings for a
            deployment that there is not; spans are wanted, and what sends them is not installed; a file of
            tokens that cannot be used.
    """
    tokens = TokenSources.of(settings)
    settings = settings.model_copy(update={"tokens": tokens.built})
    if settings.trace_endpoint:
        check_exporter()
    bundle = Bundle.open(Workspace.open(settings.workspace), settings.bundle)
    methods = served_methods(bundle, settings.methods, settings.set)
    return Prepared(settings, bundle, methods, plan(bundle, methods, settings), tokens)


def assemble(prepared: Prepared) -> Application:
    """Return the application: a host for each unit of the plan, and the ingress that holds them.

    Of the cluster that this process is connected to, if it is, replicas reserve GPUs.
    """
    settings, bundle_id = prepared.settings, prepared.bundle.id
    laid_out = with_gpus(prepared.plan, settings, _gpus())
    deployments = laid_out.deployments
    shards = {
        u.name: _bound(ShardHost, u, settings, bundle_id, u) for u in deployments if u.shard is not None
    }
    held, laid = list(shards.values()), overlay_file(settings)
    overlay = None if laid is None else _alone(StoreHost, OVERLAY, ON_HEAD, settings, OverlayStore, str(laid))
    stages = {
        u.name: _bound(StageHost, u, settings, bundle_id, u, held, overlay)
        for u in deployments
        if u.shard is None
    }
    ingress = serve.deployment(
        name=INGRESS,
        num_replicas=settings.ingress_replicas,
        # Beyond what admission accepts there must be room for refusals, and for look-ups.
        max_ongoing_requests=2 * settings.max_queued,
        **_life(settings),
        ray_actor_options={"num_cpus": INGRESS_CPUS},
    )(serve.ingress()(Ingress))
    path = sets_file(settings)
    beside = {}
    if path is not None:
        beside[SETS] = _alone(SetsHost, SETS, ON_HEAD, settings, str(path))
    if settings.audit is not None:
        beside[AUDIT] = _alone(AuditHost, AUDIT, ON_HEAD, settings, settings)
    if overlay is not None:
        beside[OVERLAY] = overlay
    if is_shared(settings):
        beside[LIMITS] = _alone(LimitsHost, LIMITS, {"num_cpus": 0}, settings, settings)
    return ingress.bind(
        settings, bundle_id, prepared.methods, laid_out, shards | stages, beside, prepared.tokens
    )


def _alone(
    host: type, name: str, actor: Mapping[str, Any], settings: ServeSettings, *arguments: Any
) -> Application:
    """Return a deployment of one replica: one process writes a file, or counts."""
    deployment = serve.deployment(
        name=name,
        num_replicas=1,
        max_ongoing_requests=AT_ONCE,
        ray_actor_options=dict(actor),
        **_life(settings),
    )(host)
    return deployment.bind(*arguments)


def _gpus() -> float:
    """Return the GPUs of the cluster; 0 where this process is connected to none."""
    return float(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else 0


def build(settings: ServeSettings) -> Application:
    """Return the application that the settings describe (see :func:`prepare` for errors)."""
    return assemble(prepare(settings))


def _life(settings: ServeSettings) -> dict[str, Any]:
    """Return how replicas are watched, and how one that is replaced or not needed any more goes."""
    return {
        "health_check_period_s": 2,  # how soon a replica that died is noticed, and replaced
        "graceful_shutdown_wait_loop_s": 0.5,  # how long one that goes waits for what is on its way
        "graceful_shutdown_timeout_s": settings.drain_timeout_s + 1,  # and how long for what it has begun
    }


def _bound(host: type, spec: DeploymentSpec, settings: ServeSettings, *arguments: Any) -> Application:
    own = spec.settings
    scaling: dict[str, Any] = {"num_replicas": own.replicas}
    if own.autoscaling is not None:
        scaling = {"autoscaling_config": own.autoscaling.model_dump()}
    deployment = serve.deployment(
        name=spec.name,
        max_ongoing_requests=AT_ONCE,
        max_queued_requests=settings.max_queued,
        ray_actor_options={"num_cpus": own.num_cpus, "num_gpus": own.num_gpus or 0},
        **_life(settings),
        **scaling,
    )(host)
    return deployment.bind(settings, *arguments)


def __getattr__(name: str) -> Application:
    """Build ``app`` when it is asked for: an import of this module for anything else needs no settings.

    Raises:
        UserError: ``SEEDSET_SETTINGS`` is not set, or what it names cannot be used.
    """
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path = os.environ.get("SEEDSET_SETTINGS")
    if not path:
        raise UserError("SEEDSET_SETTINGS: set it to a YAML file of settings, with `workspace: …` in it")
    return build(settings_of(read_settings(Path(path)), path))
