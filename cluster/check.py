"""Check a cluster file without starting anything, and look at the machines of the cluster that is connected.

``seedset check-cluster`` needs no network; with ``RAY_ADDRESS`` set it lists the nodes too, and what is wrong
on them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from cluster.commandline import command
from cluster.diagnosis import OPEN_FILES, STORAGE_REMEDY, Finding, Seen, findings, look, storage_faults
from cluster.each_node import on_nodes
from cluster.options import CommandSettings
from cluster.session import quiet_environment, session
from engine.errors import FormatError, UserError
from engine.repeated_keys import yaml_value

EXAMPLE_NETWORK = ipaddress.ip_network("192.0.2.0/24")
"""Addresses reserved for documentation: nobody's machines."""


BY_SSH = ("local", "aws", "gcp", "azure", "vsphere", "aliyun")
"""Types of provider whose machines `ray up` reaches by SSH."""

_EXAMPLE_IMAGE = re.compile("ami-0+")

_LABEL = re.compile(r"(?!-)[a-z\d_-]{1,63}(?<!-)", re.IGNORECASE)
"""A part of a host name between points."""


def check_file(path: Path) -> list[str]:
    """Validate a cluster file the way ``ray up`` would, and return what still wants editing.

    Raises:
        FormatError: it is not there, not YAML, Ray refuses it, or what Ray does not look at cannot be right.
    """
    quiet_environment()
    config = _read(path)
    _validate(path, config)
    if mistakes := list(_mistakes(config)):
        raise FormatError(f"{path}: {'; '.join(mistakes)}")
    return list(_unfinished(config))


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise FormatError(f"{path}: not a cluster file: it has no `provider`")
    return config


def _validate(path: Path, config: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        # As it was written first: on a value of the wrong type, preparing stumbles without a place.
        # (Preparing adds the one of these keys to the file and takes the other away.)
        written = {"cluster_synced_files": [], **config}
        written.pop("min_workers", None)
        validate_config(written)
        validate_config(prepare_config(config))
    except ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the top level"
        raise FormatError(f"{path}: {where}: {error.message}") from None
    except KeyError as error:
        raise FormatError(f"{path}: {error} is missing") from None
    except (SystemExit, Exception) as error:  # Ray ends the process where a provider's key is wrong
        raise FormatError(f"{path}: {error or 'refused by Ray; see above'}") from None


def _mistakes(config: Mapping[str, Any]) -> Iterator[str]:
    """Say what passes Ray's check and can work on no machines: addresses, and how they are reached."""
    provider = config["provider"]
    if provider.get("type") in BY_SSH and not (config.get("auth") or {}).get("ssh_user"):
        yield "auth.ssh_user is missing: name the account under which the machines are reached by SSH"
    # A coordinator knows the machines itself.
    if provider.get("type") != "local" or provider.get("coordinator_address"):
        return
    head, workers = provider.get("head_ip"), provider.get("worker_ips")
    if not head:
        yield "provider.head_ip is missing: name the machine that schedules"
    if not isinstance(workers, list):
        yield "provider.worker_ips is no list: name the other machines, or write [] for none"
        workers = []
    named = [("head_ip", head)] if head else []
    named += [(f"worker_ips[{place}]", one) for place, one in enumerate(workers)]
    for where, address in named:
        if reason := address_fault(address):
            yield f"provider.{where}: {address!r} {reason}"
    yield from _repeated(head, workers)
    loopback = [str(one) for _, one in named if _is_loopback(str(one))]
    if loopback and len(named) > 1:
        yield f"provider: {', '.join(loopback)} is each machine's own, so the others cannot reach it there"


def _repeated(head: Any, workers: Sequence[Any]) -> Iterator[str]:
    """Say which machines are named twice."""
    places: dict[str, int] = {}
    for worker in workers:
        places[_same(worker)] = places.get(_same(worker), 0) + 1
    if head and _same(head) in places:
        yield f"provider.worker_ips names the head {head}: it works anyway, leave it out"
    if doubled := sorted(name for name, times in places.items() if times > 1):
        yield f"provider.worker_ips names {', '.join(doubled)} more than once: a machine is one node"


def _same(address: Any) -> str:
    """Return an address as it is compared: in lower case, IPv6 in its shortest form."""
    text = str(address).strip().lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def address_fault(address: Any) -> str:
    """Return why a machine cannot have this address; "" if it can."""
    if not isinstance(address, str):
        return "is no text: put the address in quotes"
    if not address or address != address.strip() or any(sign.isspace() for sign in address):
        return "is empty or holds a space"
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return _host_name_fault(address)
    if found.is_unspecified or found.is_multicast or (found.version == 4 and found.is_reserved):
        return "is the address of no single machine"
    return ""


def _host_name_fault(name: str) -> str:
    if "://" in name or "/" in name:
        return "is an address of something on a machine, or of a network: name the machine alone"
    if "@" in name:
        return "names an account: put that under auth.ssh_user"
    if ":" in name:
        return "names a port, or is no IPv6 address: name the machine alone"
    if re.fullmatch(r"[\d.]+", name):
        return "is no IPv4 address: four numbers up to 255, with points between"
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.rstrip(".").split(".")):
        return "is no host name: letters, digits and hyphens, with points between"
    return ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return _same(address) == "localhost"


def _unfinished(config: Mapping[str, Any]) -> Iterator[str]:
    """Say what would pass Ray's check and fail on the machines."""
    provider = config["provider"]
    workers = provider.get("worker_ips") or []
    examples = [a for a in [provider.get("head_ip"), *workers] if a and _is_example(str(a))]
    if examples:
        yield f"provider: {', '.join(map(str, examples))} are example addresses; put yours"
    if "worker_ips" in provider and config.get("max_workers", len(workers)) > len(workers):
        yield f"max_workers is {config['max_workers']}, but worker_ips names {len(workers)}"
    for kind in ("head", "worker"):
        commands = " ".join(config.get(f"{kind}_start_ray_commands", []))
        if "RAY_AUTH_MODE=token" not in commands:
            yield (
                f"{kind}_start_ray_commands: without RAY_AUTH_MODE=token anyone may run code there; export it"
            )
        if "ulimit -n" not in commands:
            yield (
                f"{kind}_start_ray_commands: put `ulimit -n {OPEN_FILES}` first, or a large node runs out "
                "of files"
            )
    yield from _unsafe_copies(config)
    yield from _machine_types(config)


def _unsafe_copies(config: Mapping[str, Any]) -> Iterator[str]:
    """Say what the machines would get, and should not, or lack."""
    mounts = config.get("file_mounts") or {}
    if not any(str(name).endswith("auth_token") for name in mounts):
        yield "file_mounts: ~/.ray/auth_token is not among them, so no node lets another in; add it"
    excluded = config.get("rsync_exclude") or []
    if kept := [pattern for pattern in (".env", ".git/**") if pattern not in excluded]:
        yield f"rsync_exclude: {' and '.join(kept)} would be copied to every machine; leave them out"
    installs = [str(one) for one in config.get("setup_commands") or [] if "pip install" in str(one)]
    if any("requirements.lock" not in one for one in installs):
        yield (
            "setup_commands: pip installs what is newest; add -c ~/seedset/requirements.lock, the same on all"
        )


def _machine_types(config: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with the kinds of machines that a cloud is asked for."""
    kinds: Mapping[str, Any] = config.get("available_node_types") or {}
    head = config.get("head_node_type")
    for name, kind in kinds.items():
        machine = kind.get("node_config") or {}
        if _EXAMPLE_IMAGE.fullmatch(str(machine.get("ImageId", ""))):
            yield (
                f"available_node_types.{name}.node_config.ImageId is an example; put an image of your region"
            )
        spot = (machine.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
        if spot and name == head:
            yield (
                f"available_node_types.{name}: the head is bought on the spot market, and the cluster "
                "ends with it; "
                "leave InstanceMarketOptions out"
            )
        if spot and (config.get("provider") or {}).get("cache_stopped_nodes", True):
            yield (
                f"provider.cache_stopped_nodes: machines of {name} are spot and cannot be stopped; write "
                "false"
            )


def _is_example(address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in EXAMPLE_NETWORK
    except ValueError:  # a host name
        return False


def describe_nodes(nodes: list[dict[str, Any]]) -> list[str]:
    """Return a line for each living node of ``ray.nodes()``: address, cores, GPUs, memory."""
    lines = []
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            lines.append(
                f"{node['NodeManagerAddress']}  {has.get('CPU', 0):g} CPU  {has.get('GPU', 0):g} GPU  "
                f"{has.get('memory', 0) / 2**30:.1f} GiB"
            )
    return lines


def check_nodes(workspace: str | None = None) -> list[Finding]:
    """Return what is wrong on the living nodes of the connected cluster, as each node sees it.

    Args:
        workspace: in which every node must read and write; None: not looked at.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    peers = {node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"]) for node in alive}
    gcs = split_address(ray.get_runtime_context().gcs_address)
    found: list[Finding] = []
    seen: list[Seen] = []
    for node in alive:
        address, has = node["NodeManagerAddress"], node["Resources"]
        others = [gcs, *(peer for name, peer in peers.items() if name != node["NodeID"])]
        before = time.time()  # one node after the other: its clock is compared with the time around
        answers = on_nodes(look, [node["NodeID"]], address, others, workspace)
        sizes = float(has.get("GPU", 0)), float(has.get("object_store_memory", 0))
        for answer in answers.given.values():
            seen.append(Seen(answer, (before, time.time()), *sizes))
        for why in [*answers.failed.values(), *("not in time" for _ in answers.silent)]:
            remedy = (
                "look at raylet.out and the worker logs in /tmp/ray/session_latest/logs there, and restart it"
            )
            found.append(Finding(address, f"does not answer ({why})", remedy))
    return [*found, *findings(seen, look("here"))]


def split_address(address: str) -> tuple[str, int]:
    """Return the host and the port of ``host:port``, IPv6 in brackets or not."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class CheckSettings(CommandSettings):
    """The settings of the command."""

    cluster_file: Path = Field(default=Path("ray_cluster.yaml"), description="Check this file.")
    workspace: str | None = Field(
        default=None, description="Let every node write, read, list and delete a file in this workspace."
    )


EXAMPLES = """
  seedset check-cluster --cluster-file ray_cluster.yaml
  seedset check-cluster --workspace s3://bucket/work
"""


@command(EXAMPLES)
def main(settings: CheckSettings) -> None:
    """Check a cluster file, and the nodes of RAY_ADDRESS if that is set."""
    cluster_file = settings.cluster_file
    for remark in check_file(cluster_file):
        print(f"to do: {remark}")
    print(f"{cluster_file}: valid")
    if os.environ.get("RAY_ADDRESS"):
        with session():
            import ray

            print("\n".join(describe_nodes(ray.nodes())))
            wrong = [str(one) for one in check_nodes(settings.workspace)]
    elif settings.workspace:
        faults = storage_faults(settings.workspace)
        wrong = [str(Finding("this machine", f"the workspace: {fault}", STORAGE_REMEDY)) for fault in faults]
    else:
        return
    if wrong:
        raise UserError("\n".join(wrong))
    print("nothing found")


if __name__ == "__main__":
    main.run()
