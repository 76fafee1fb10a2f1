"""Versions of the program and of libraries."""

import tomllib
from importlib import metadata
from pathlib import Path

from engine import versions


def test_the_program_has_the_version_of_the_clone_that_runs(monkeypatch) -> None:
    project = tomllib.loads((Path(versions.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    monkeypatch.setattr(metadata, "version", lambda name: "of another installation")
    assert versions.version_of("seedset") == project["version"]
    assert versions.version_of("numpy") == "of another installation"


def test_what_is_not_installed_is_not_named() -> None:
    found = versions.versions_of(["numpy", "no-such-distribution"])
    assert list(found) == ["seedset", "python", "numpy"]
    assert found["numpy"] == metadata.version("numpy")
