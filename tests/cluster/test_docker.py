"""The Dockerfiles copy what there is, install what the lock says, and start what is installed.

They are read, not built: these tests need no Docker, and say nothing of whether the base images can be had.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib

import pytest
import yaml

from tests.support.deploy import ROOT

FILES = {path.stem: path for path in sorted((ROOT / "cluster" / "docker").glob("*.Dockerfile"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, continued lines joined and comments left out."""
    lines = [
        line for line in FILES[name].read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, rest in found]


def of_kind(name: str, kind: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word == kind]


def ignored(path: str) -> bool:
    """Return whether .dockerignore leaves a path of the repository out: the last line that matches counts."""
    found = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.lstrip("!").removeprefix("**/")
            deep = line.lstrip("!").startswith("**/")
            parts = path.split("/")
            names = parts if deep else parts[:1]
            if any(fnmatch.fnmatch(part, pattern) for part in names):
                found = not line.startswith("!")
    return found


def test_there_is_one_for_each_kind_of_node() -> None:
    assert set(FILES) == {"cpu", "cuda"}


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_sent(name: str) -> None:
    sources = [word for rest in of_kind(name, "COPY") if "--from=" not in rest for word in rest.split()[:-1]]
    assert {"requirements.lock", "pyproject.toml", "engine", "jobs", "serve", "cluster"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert PROJECT["readme"] in sources


def test_secrets_and_data_are_not_sent() -> None:
    left_out = [".env", "serve/.env", "cluster/tokens.pem", "work/corpus", "my-workspace/x", ".git/config"]
    assert all(ignored(path) for path in left_out)
    assert not ignored("engine/storage/workspace.py")


@pytest.mark.parametrize("name", FILES)
def test_versions_are_the_lock_s(name: str) -> None:
    installs = re.findall(r"pip install [^&]*", " && ".join(of_kind(name, "RUN")))
    assert len(installs) == 2
    assert all("--constraint requirements.lock" in one for one in installs)
    assert '".[all]"' in installs[1]
    assert "all" in PROJECT["optional-dependencies"]
    (torch,) = (rest.removeprefix("TORCH=") for rest in of_kind(name, "ARG") if rest.startswith("TORCH="))
    assert f"TORCH ?= {torch}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert torch in (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_what_is_started_is_installed(name: str) -> None:
    (entrypoint,) = of_kind(name, "ENTRYPOINT")
    assert set(json.loads(entrypoint)) <= set(PROJECT["scripts"])


@pytest.mark.parametrize("name", FILES)
def test_nobody_is_root_and_the_manifests_name_the_same_account(name: str) -> None:
    users = of_kind(name, "USER")
    assert instructions(name)[-1][0] == "CMD"
    accounts = re.findall(r"useradd --uid (\d+)", " ".join(of_kind(name, "RUN")))
    assert users == accounts
    assert users != ["0"]
    cluster = (ROOT / "cluster" / "kuberay" / "cluster.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"runAsUser: (\d+)", cluster)) == set(users)


@pytest.mark.parametrize("name", FILES)
def test_no_registry_is_named(name: str) -> None:
    assert "://" not in FILES[name].read_text(encoding="utf-8")
    images = [rest.split()[0] for rest in of_kind(name, "FROM")]
    images += [rest.split("=", 1)[1] for rest in of_kind(name, "ARG") if "IMAGE=" in rest]
    assert all("." not in image.split("/")[0] or "/" not in image for image in images)


@pytest.mark.parametrize("name", FILES)
def test_nodes_have_the_environment_that_the_cluster_file_gives(name: str) -> None:
    environment = dict(one.split("=", 1) for rest in of_kind(name, "ENV") for one in rest.split())
    commands = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))[
        "head_start_ray_commands"
    ]
    given = dict(re.findall(r"\b([A-Z_]{6,})=([^\s;]+)", commands[-1]))
    del given["RAY_AUTH_MODE"]  # KubeRay sets it, with the token
    assert given
    assert given.items() <= environment.items()


@pytest.mark.parametrize("name", FILES)
def test_what_kuberay_and_deepspeed_call_is_there(name: str) -> None:
    last = re.split(r"\bFROM\b", " ".join(f"{word} {rest}" for word, rest in instructions(name)))[-1]
    assert re.search(r"install [^&]*\bg\+\+ [^&]*\bwget\b", last)


def test_all_nodes_run_one_python() -> None:
    pythons = {
        name: set(re.findall(r"python3\.\d+", FILES[name].read_text(encoding="utf-8"))) for name in FILES
    }
    assert pythons["cpu"] == pythons["cuda"] == {"python3.12"}
    systems = {
        name: {
            re.findall(r"ubuntu:?(\d\d\.\d\d)", rest)[0]
            for rest in (*of_kind(name, "FROM"), *of_kind(name, "ARG"))
            if "ubuntu" in rest
        }
        for name in FILES
    }
    assert systems == {"cpu": {"24.04"}, "cuda": {"24.04"}}
