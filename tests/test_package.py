"""The distribution: what a wheel holds, what the lock pins, and the client without the engine's packages."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"engine", "jobs", "serve", "cluster"}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
Python = Callable[..., subprocess.CompletedProcess[str]]

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(python: str) -> dict[str, str]:
    """Return the version of each package that the lock has for a Python on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    found = {}
    for line in LOCK.splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (version,) = requirement.specifier
                assert version.operator == "==", line
                found[canonical(requirement.name)] = version.version
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_lock_has_what_is_required(python: str) -> None:
    versions = locked(python)
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    wanted = {line: Requirement(line) for line in lines if not line.startswith(("seedset[", "torch>"))}
    assert len(wanted) > 30
    unmet = [
        line
        for line, requirement in wanted.items()
        if not requirement.specifier.contains(versions.get(canonical(requirement.name), "0"))
    ]
    assert not unmet, "run `make lock`"


def test_the_lock_leaves_torchs_build_and_the_registry_to_the_machine() -> None:
    assert not [name for name in locked("3.11") if name.startswith(("torch", "nvidia", "triton", "cuda"))]
    assert "://" not in LOCK
    assert "--" not in LOCK.replace("--extra", "")


def test_the_wheel_holds_the_packages_and_their_data_alone() -> None:
    settings = PROJECT["tool"]["setuptools"]
    packages = setuptools.find_packages(str(ROOT), include=settings["packages"]["find"]["include"])
    assert {package.partition(".")[0] for package in packages} == PACKAGES
    data: dict[str, list[str]] = settings["package-data"]
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        globs = [*data["*"], *data.get(package, [])]
        for file in (ROOT / package).rglob("*"):
            inside = file.relative_to(ROOT / package)
            if file.is_dir() or "__pycache__" in inside.parts:
                continue
            if file.suffix == ".py":
                assert ".".join((package, *inside.parent.parts)) in packages, file
            else:
                assert any(fnmatch.fnmatch(str(inside), glob) for glob in globs), f"{file} is in no wheel"


def distributions(names: list[str]) -> set[str]:
    """Return distributions with all that they require, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            parsed = map(Requirement, importlib.metadata.requires(name) or [])
            names += [r.name for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def client_only(tmp_path: Path) -> Python:
    """Run a Python that sees this repository and, of all installed packages, those of the client."""
    for name in distributions([Requirement(line).name for line in PROJECT["project"]["dependencies"]]):
        for top in {file.parts[0] for file in importlib.metadata.files(name) or []} - {"..", "__pycache__"}:
            (tmp_path / top).symlink_to(str(importlib.metadata.distribution(name).locate_file(top)))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", *words]
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    return run


def test_the_client_needs_httpx_alone(client_only: Python) -> None:
    assert [Requirement(line).name for line in PROJECT["project"]["dependencies"]] == ["httpx"]
    done = client_only(
        "-c", "from serve.client import Client; print(Client('http://127.0.0.1:9', attempts=1).ready())"
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_client_loads_no_heavy_library_where_all_are_installed() -> None:
    assert EXTRAS["client"] == [], "`pip install 'seedset[client]'` brings httpx alone"
    names = "{'torch', 'ray', 'numpy', 'pydantic', 'engine', 'cluster'}"
    code = f"import sys; from serve.client import AsyncClient, Client; print({names} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    "module", ["jobs.import_corpus", "serve.run", "serve.operations.token", "cluster.check"]
)
def test_a_command_beside_the_client_alone_names_the_extra(module: str, client_only: Python) -> None:
    done = client_only("-m", module, "--help")
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: the engine is not installed .*pip install 'seedset\[engine\]'`\n", done.stderr
    )


def test_the_script_beside_the_client_alone_names_the_extra(client_only: Python, tmp_path: Path) -> None:
    script = tmp_path / "seedset"
    script.write_text("import cluster", encoding="utf-8")
    done = client_only(str(script), "expand", "-m", "retexpan")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the engine is not installed")


def test_an_import_beside_the_client_alone_names_the_extra(
    client_only: Python,
) -> None:
    done = client_only("-c", "import engine.query")
    assert done.stderr.endswith("run `pip install 'seedset[engine]'`\n")
    assert "ModuleNotFoundError" in done.stderr
