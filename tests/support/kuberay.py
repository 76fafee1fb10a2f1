"""What of KubeRay's resources our manifests use, declared strictly: no other field passes.

The names, types, required fields and choices are those of KubeRay's published definitions of RayCluster,
RayJob and RayService (ray.io/v1, release 1.7.0), against which each was compared by reading; the rules below
them are those of the operator's own validation of that release. A pod template is a core kind, which is not
declared here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator
from pydantic.alias_generators import to_camel

LONGEST_NAME = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
"""Characters of a name at most: the operator makes longer names of it."""

Text = Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=0)]


class Resource(BaseModel):
    """A part of a manifest: names in camel case, nothing that is not declared, nothing converted."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, validate_by_name=False, validate_by_alias=True
    )


class Metadata(Resource):
    name: Annotated[StrictStr, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    namespace: Text


class AuthOptions(Resource):
    mode: Literal["disabled", "token"]
    secret_name: Text


class SecretKey(Resource):
    name: Text
    key: Text


class ValueFrom(Resource):
    secret_key_ref: SecretKey


class RedisPassword(Resource):
    value_from: ValueFrom


class GcsFaultTolerance(Resource):
    redis_address: Annotated[StrictStr, Field(pattern=r"^[a-z0-9.-]+:\d+$")]
    redis_password: RedisPassword


class AutoscalerOptions(Resource):
    version: Literal["v1", "v2"]
    idle_timeout_seconds: Count
    resources: dict[Literal["requests", "limits"], dict[str, StrictStr]]
    security_context: dict[str, Any]


class HeadGroup(Resource):
    ray_start_params: dict[str, StrictStr]
    template: dict[str, Any]


class WorkerGroup(Resource):
    group_name: Text
    replicas: Count
    min_replicas: Count
    max_replicas: Count
    idle_timeout_seconds: Count | None = None
    ray_start_params: dict[str, StrictStr]
    template: dict[str, Any]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        assert self.min_replicas <= self.replicas <= self.max_replicas, self.group_name
        return self


class RayClusterSpec(Resource):
    ray_version: Annotated[StrictStr, Field(pattern=r"^\d+\.\d+\.\d+$")]
    auth_options: AuthOptions
    gcs_fault_tolerance_options: GcsFaultTolerance | None = None
    enable_in_tree_autoscaling: StrictBool = False
    autoscaler_options: AutoscalerOptions | None = None
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]

    def templates(self) -> dict[str, dict[str, Any]]:
        """Return the pod templates, the head's and each group's by its name."""
        groups = {group.group_name: group.template for group in self.worker_group_specs}
        return {"head": self.head_group_spec.template, **groups}

    @model_validator(mode="after")
    def _as_the_operator_wants(self) -> Self:
        v2 = self.autoscaler_options is not None and self.autoscaler_options.version == "v2"
        assert self.enable_in_tree_autoscaling or self.autoscaler_options is None
        assert len({group.group_name for group in self.worker_group_specs}) == len(self.worker_group_specs)
        for group in self.worker_group_specs:
            assert group.idle_timeout_seconds is None or v2, "only the second autoscaler knows it"
        for template in self.templates().values():
            assert template["spec"]["containers"], "a group has a container"
            assert not v2 or template["spec"].get("restartPolicy", "Never") == "Never"
        head = self.head_group_spec
        names = {one["name"] for one in head.template["spec"]["containers"][0].get("env", [])}
        assert not names & {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "RAY_enable_autoscaler_v2"}
        assert not {"redis-password", "redis-username", "labels"} & set(head.ray_start_params)
        return self


class RayCluster(Resource):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJobSpec(Resource):
    entrypoint: Text
    # The definition takes any text; the operator, these.
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    backoff_limit: Count
    pre_running_deadline_seconds: Count
    active_deadline_seconds: Count
    shutdown_after_job_finishes: StrictBool
    ttl_seconds_after_finished: Count
    submitter_pod_template: dict[str, Any]
    ray_cluster_spec: RayClusterSpec

    @model_validator(mode="after")
    def _as_the_operator_wants(self) -> Self:
        assert self.shutdown_after_job_finishes or not self.ttl_seconds_after_finished
        assert self.submission_mode == "K8sJobMode", "others take no pod template of the submitter"
        return self


class RayJob(Resource):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class UpgradeStrategy(Resource):
    type: Literal["NewCluster", "None"]


class RayServiceSpec(Resource):
    serve_config_v2: Annotated[Text, Field(alias="serveConfigV2")]
    service_unhealthy_second_threshold: Count
    deployment_unhealthy_second_threshold: Count
    exclude_head_pod_from_serve_svc: StrictBool
    ray_cluster_deletion_delay_seconds: Count
    upgrade_strategy: UpgradeStrategy
    ray_cluster_config: RayClusterSpec


class RayService(Resource):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec


KINDS: dict[str, type[RayCluster] | type[RayJob] | type[RayService]] = {
    "RayCluster": RayCluster,
    "RayJob": RayJob,
    "RayService": RayService,
}


def bytes_of(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity of memory, such as 2Gi."""
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi|Ti|)", quantity)
    assert found, quantity
    return int(found[1]) << {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[found[2]]
