"""The manifests in cluster/kuberay are ones that Kubernetes and KubeRay take, and name what we have.

Core kinds and every pod template are validated against the schemas of Kubernetes that `kubernetes-validate`
holds. No package holds KubeRay's own, and they are not copied here: `tests.support.kuberay` declares the
fields that we use, as compared by reading with the definitions of release 1.7.0. Where `KUBERAY_CRDS` names
a folder with the published definitions (`ray.io_rayclusters.yaml` and the others), the manifests are
validated against those in full as well. Nothing was ever applied to a Kubernetes cluster by these tests.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from cluster.seedset import entries
from serve.operations.deploy_file import check_deploy_file
from tests.support.deploy import locked_version
from tests.support.kuberay import KINDS, LONGEST_NAME, RayCluster, RayJob, RayService, bytes_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "kuberay"

KUBERNETES = ("1.33", "1.37")
"""The oldest version that the manifests are validated for, and the newest."""


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path.name, one


DOCUMENTS = {f"{name}:{one['kind']}:{one['metadata']['name']}": one for name, one in documents()}
OURS = {key: one for key, one in DOCUMENTS.items() if one["apiVersion"] == "ray.io/v1"}
CORE = {key: one for key, one in DOCUMENTS.items() if key not in OURS}


def declared(kind: str) -> Any:
    (found,) = (one for one in OURS.values() if one["kind"] == kind)
    return KINDS[kind].model_validate(found)


CLUSTER: RayCluster = declared("RayCluster")
JOB: RayJob = declared("RayJob")
SERVICE: RayService = declared("RayService")
CLUSTERS = {
    "cluster": CLUSTER.spec,
    "job": JOB.spec.ray_cluster_spec,
    "service": SERVICE.spec.ray_cluster_config,
}
TEMPLATES = {
    f"{name}:{group}": template
    for name, spec in CLUSTERS.items()
    for group, template in spec.templates().items()
} | {"job:submitter": JOB.spec.submitter_pod_template}
NIGHTLY = next(one for one in CORE.values() if one["kind"] == "CronJob")
PODS = {
    **TEMPLATES,
    "nightly": NIGHTLY["spec"]["jobTemplate"]["spec"]["template"],
    "redis": next(one for one in CORE.values() if one["kind"] == "StatefulSet")["spec"]["template"],
}


def test_every_kind_is_there() -> None:
    kinds = {one["kind"] for one in DOCUMENTS.values()}
    assert kinds == {*KINDS, "CronJob", "NetworkPolicy", "Namespace", "Service", "StatefulSet"}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("key", CORE)
def test_core_kinds_are_what_kubernetes_takes(key: str, version: str) -> None:
    kubernetes_validate.validate(CORE[key], version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("key", TEMPLATES)
def test_pod_templates_are_what_kubernetes_takes(key: str, version: str) -> None:
    as_core = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "x"},
        "template": TEMPLATES[key],
    }
    kubernetes_validate.validate(as_core, version, strict=True)


def test_a_wrong_pod_template_would_be_found() -> None:
    template = {"spec": {"containers": [{"name": "x", "image": "y", "resorces": {}}]}}
    as_core = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    with pytest.raises(kubernetes_validate.ValidationError, match="resorces"):
        kubernetes_validate.validate(as_core, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("key", OURS)
@pytest.mark.parametrize("change", [{"maxReplica": 1}, {"rayVersion": 2}, {"idleTimeoutSeconds": "60"}])
def test_a_wrong_field_would_be_found(key: str, change: dict[str, Any]) -> None:
    one = yaml.safe_load(yaml.safe_dump(OURS[key]))
    one["spec"] |= change
    with pytest.raises(ValueError, match=next(iter(change))):
        KINDS[one["kind"]].model_validate(one)


@pytest.mark.parametrize("key", OURS)
def test_names_leave_room_for_those_that_the_operator_makes(key: str) -> None:
    assert len(OURS[key]["metadata"]["name"]) <= LONGEST_NAME[OURS[key]["kind"]]


def test_no_two_would_have_services_of_one_name() -> None:
    names = [one["metadata"]["name"] for one in OURS.values()]
    assert len(set(names)) == len(names)
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    forwarded = set(re.findall(r"port-forward service/(\S+)", page))
    assert forwarded == {f"{CLUSTER.metadata.name}-head-svc", f"{SERVICE.metadata.name}-serve-svc"}


@pytest.mark.skipif("KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no published definitions")
@pytest.mark.parametrize("key", OURS)
def test_ours_are_what_the_published_definitions_take(key: str) -> None:
    kind = OURS[key]["kind"].lower()
    path = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{kind}s.yaml"
    versions = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["versions"]
    (schema,) = (one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
    Draft202012Validator(_closed(schema)).validate(OURS[key])


def _closed(schema: Any) -> Any:
    """Return a schema by which a field that is not named is wrong, but in maps of any keys."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        found["additionalProperties"] = False
    return found


# What the manifests name is what the project has.


def images() -> dict[str, str]:
    return {
        f"{key}:{container['name']}": container["image"]
        for key, pod in PODS.items()
        for container in pod["spec"]["containers"]
    }


def test_images_are_the_project_s() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    ours = {image for key, image in images().items() if not key.startswith("redis")}
    assert ours == {f"seedset:{version}", f"seedset:{version}-cuda"}
    for key, pod in PODS.items():
        for container in pod["spec"]["containers"]:
            gpu = "nvidia.com/gpu" in container["resources"].get("limits", {})
            assert container["image"].endswith("-cuda") == gpu, key


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_is_the_lock_s(name: str) -> None:
    assert CLUSTERS[name].ray_version == locked_version("ray")


def ray_containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, spec in CLUSTERS.items():
        for group, template in spec.templates().items():
            yield f"{name}:{group}", template["spec"], template["spec"]["containers"][0]


def test_ports_are_the_ones_that_ray_and_the_service_listen_at() -> None:
    known = {"gcs-server": 6379, "dashboard": 8265, "metrics": 8080, "serve": 8000}
    for key, _, container in ray_containers():
        found = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert found.items() <= known.items(), key
        assert {"gcs-server", "dashboard"} <= set(found) or not key.endswith(":head"), key
        assert ("serve" in found) == key.startswith("service:"), key
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}, key
        # Of the service's workers KubeRay asks the HTTP proxy as well, if nobody else says what to ask.
        assert ("readinessProbe" in container) != key.startswith("service:"), key


def test_the_agent_has_the_path_that_is_asked_and_wants_no_token_there() -> None:
    from ray.dashboard import http_server_agent
    from ray.dashboard.modules.reporter import healthz_agent

    for module in (http_server_agent, healthz_agent):
        assert '"/api/healthz"' in Path(str(module.__file__)).read_text(encoding="utf-8")


def test_shared_memory_holds_the_object_store_and_fits_the_container() -> None:
    for name, spec in CLUSTERS.items():
        groups = [("head", spec.head_group_spec.ray_start_params)]
        groups += [(group.group_name, group.ray_start_params) for group in spec.worker_group_specs]
        for group, start in groups:
            pod = spec.templates()[group]["spec"]
            container = pod["containers"][0]
            volumes = {one["name"]: one["emptyDir"] for one in pod["volumes"]}
            mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
            shared = volumes[mounts["/dev/shm"]]
            assert shared["medium"] == "Memory"
            limits = container["resources"]["limits"]
            sizes = [
                int(start["object-store-memory"]),
                bytes_of(shared["sizeLimit"]),
                bytes_of(limits["memory"]),
            ]
            assert sizes == sorted(sizes), f"{name}:{group}"
            logs = bytes_of(volumes[mounts["/tmp/ray"]]["sizeLimit"])
            assert logs < bytes_of(limits["ephemeral-storage"]), f"{name}:{group}"


@pytest.mark.parametrize("key", PODS)
def test_no_pod_is_root_or_unlimited(key: str) -> None:
    pod = PODS[key]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_who_has_no_token_runs_nothing() -> None:
    for name, spec in CLUSTERS.items():
        assert spec.auth_options.mode == "token", name
        assert spec.auth_options.secret_name == "seedset-auth", name
    environment = {one["name"]: one for one in PODS["nightly"]["spec"]["containers"][0]["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    secret = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "seedset-auth", "key": "auth_token"}


def test_no_secret_is_written_down() -> None:
    assert not [one for one in DOCUMENTS.values() if one["kind"] == "Secret"]
    for key, pod in PODS.items():
        for container in pod["spec"]["containers"]:
            for one in container.get("env", []):
                secret = re.search("PASSWORD|TOKEN|KEY", one["name"])
                assert ("valueFrom" in one) == bool(secret), f"{key}: {one['name']}"


def test_policies_choose_the_pods_that_there_are() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in CORE.values() if one["kind"] == "NetworkPolicy"
    }
    labels = {key: pod["metadata"]["labels"]["app.kubernetes.io/name"] for key, pod in PODS.items()}
    assert set(labels.values()) == {"seedset-ray", "seedset-redis"}
    assert policies["seedset-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name in ("seedset-ray", "seedset-redis"):
        assert policies[name]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        assert set(policies[name]["policyTypes"]) == {"Ingress", "Egress"}
    (to_redis,) = policies["seedset-redis"]["ingress"]
    assert to_redis["ports"] == [{"port": 6379, "protocol": "TCP"}]
    service = next(one for one in CORE.values() if one["kind"] == "Service")
    options = [spec.gcs_fault_tolerance_options for spec in CLUSTERS.values()]
    addresses = {one.redis_address for one in options if one}
    assert addresses == {f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"}


def test_clusters_that_must_outlive_their_head_keep_its_state_elsewhere() -> None:
    assert all(CLUSTERS[name].gcs_fault_tolerance_options for name in ("cluster", "service"))


def test_the_service_s_settings_are_ours(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(SERVICE.spec.serve_config_v2, encoding="utf-8")
    (settings,), warning = check_deploy_file(path)
    assert warning is None
    assert settings.tokens
    for template in CLUSTERS["service"].templates().values():
        assert template["spec"]["terminationGracePeriodSeconds"] > settings.drain_timeout_s


def submitted() -> list[list[str]]:
    script = PODS["nightly"]["spec"]["containers"][0]["args"][0]
    lines = [shlex.split(line) for line in script.splitlines()]
    for words in lines:
        assert words[:4] == ["ray", "job", "submit", "--"]
    return [words[4:] for words in lines] + [shlex.split(JOB.spec.entrypoint)]


@pytest.mark.parametrize("words", submitted(), ids=lambda words: words[2])
def test_commands_are_taken(words: list[str]) -> None:
    import importlib

    assert words[:2] == ["python", "-m"]
    assert words[2] in {entry.module for _, entry in entries()}
    environment = PODS["nightly"]["spec"]["containers"][0]["env"]
    values = {one["name"]: one.get("value", "") for one in environment}
    filled = [re.sub(r"\$([A-Z]+)", lambda found: values[found[1]], word) for word in words[3:]]
    importlib.import_module(words[2]).main.parse(filled)


def test_a_training_has_as_many_machines_as_workers() -> None:
    words = shlex.split(JOB.spec.entrypoint)
    (group,) = CLUSTERS["job"].worker_group_specs
    workers = int(words[words.index("--workers") + 1])
    limits = group.template["spec"]["containers"][0]["resources"]["limits"]
    assert group.min_replicas == group.max_replicas == workers
    assert ("--gpu" in words) == ("nvidia.com/gpu" in limits)


def test_the_night_s_jobs_go_to_the_standing_cluster() -> None:
    environment = {one["name"]: one.get("value") for one in PODS["nightly"]["spec"]["containers"][0]["env"]}
    assert environment["RAY_API_SERVER_ADDRESS"] == f"http://{CLUSTER.metadata.name}-head-svc:8265"
