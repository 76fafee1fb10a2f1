"""Check a cluster file without starting anything, and show the cluster that is connected.

``python -m cluster.check`` needs no network; with ``RAY_ADDRESS`` set it lists the nodes too.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from cluster.session import quiet_environment, session
from engine.errors import FormatError

EXAMPLE_NETWORK = ipaddress.ip_network("192.0.2.0/24")
"""Addresses reserved for documentation: nobody's machines."""


def check_file(path: Path) -> list[str]:
    """Validate a cluster file the way ``ray up`` would, and return what still wants editing.

    Raises:
        FormatError: it is not there, not YAML, or Ray refuses it.
    """
    quiet_environment()
    config = _read(path)
    _validate(path, config)
    return list(_unfinished(config))


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
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
            yield f"{kind}_start_ray_commands: without RAY_AUTH_MODE=token anyone may run code there"


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


class CheckSettings(CommandSettings):
    """The settings of the command."""

    cluster_file: Path = Field(default=Path("ray_cluster.yaml"), description="Check this file.")


@command("  seedset check-cluster --cluster-file ray_cluster.yaml")
def main(settings: CheckSettings) -> None:
    """Check a cluster file; list the nodes of RAY_ADDRESS if that is set."""
    cluster_file = settings.cluster_file
    for remark in check_file(cluster_file):
        print(f"to do: {remark}")
    print(f"{cluster_file}: valid")
    if os.environ.get("RAY_ADDRESS"):
        with session():
            import ray

            print("\n".join(describe_nodes(ray.nodes())))


if __name__ == "__main__":
    main.run()
