"""The command that lists bundles and chooses the one that is served."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.errors import BundleError, StorageError, UserError
from engine.storage.bundle import current_id
from engine.storage.publishing import publish
from engine.storage.workspace import Workspace
from serve.operations.bundles import main
from tests.support.bundles import publish_vectors, write_entities
from tests.support.corpora import jsonl, run_import
from tests.support.language_models import tiny_model


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "w")


def run(workspace: Workspace, *words: str) -> list[str]:
    """Return the lines that the command prints."""
    done = CliRunner().invoke(main.app, ["--workspace", workspace.root.uri, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_bundles_are_listed_and_an_older_one_is_used_again(workspace: Workspace) -> None:
    views = {"mask": np.eye(2), "joint": np.eye(2)}
    first = publish_vectors(workspace, ["a", "b"], views, model=tiny_model()).id
    second = publish_vectors(workspace, ["a", "c"], {"mask": np.eye(2)}).id
    (Path(workspace.bundles.path) / "torn").mkdir()
    (Path(workspace.bundles.path) / "torn" / "manifest.json").write_text("{")
    head, *rows, torn = run(workspace)
    assert head.split("  ")[-1] == "views"
    cells = {row[1:].split()[0]: row.split() for row in rows}
    assert set(cells) == {first, second}
    assert cells[second][0] == "*"
    assert cells[second][-2:] == ["no", "mask"]
    assert cells[first][-3:] == ["yes", "joint,", "mask"]
    assert float(cells[first][2]) > float(cells[second][3]), "MiB"
    assert "torn: cannot be used" in torn
    assert run(workspace, "--use", first) == [f"current bundle: {first} (before: {second})"]
    assert current_id(workspace) == first
    assert run(workspace, "--use", first) == [f"current bundle: {first}"]
    (Path(workspace.bundles.path) / second / "entities.parquet").unlink()
    with pytest.raises(BundleError, match="missing"):
        run(workspace, "--use", second)
    assert current_id(workspace) == first
    (Path(workspace.bundles.path) / "CURRENT").unlink()
    assert not any(row.startswith("*") for row in run(workspace)), "one can still choose"
    assert run(workspace, "--use", first) == [f"current bundle: {first}"]


def test_a_bundle_that_was_made_before_the_corpus_changed_says_so(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = [{"entity": "a", "sentence": "Of a."}]
    digest = run_import(workspace.root.path, jsonl(tmp_path / "a.jsonl", rows), "jsonl").manifest.digest
    staged = workspace.bundles.staging()
    write_entities(staged / "entities.parquet", ["a"])
    published = publish(workspace, staged, {"corpus": digest}).id
    assert not [line for line in run(workspace) if "refresh" in line]
    more = jsonl(tmp_path / "b.jsonl", [{"entity": "a", "sentence": "More of a."}])
    run_import(workspace.root.path, more, "jsonl", append=True)
    assert run(workspace)[-1] == (
        f"{published} was made before the corpus changed; `seedset refresh` makes one of it"
    )


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    """Run the command in a process of its own, as a user would."""
    command = [sys.executable, "-m", "serve.operations.bundles", "--workspace", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no bundle was published yet" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_made_everything_is_listed(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing was made here yet; run `seedset import`"):
        run(workspace, "--versions")
    rows = jsonl(tmp_path / "corpus.jsonl", [{"entity": "a", "sentence": "a is here."}])
    run_import(workspace.root.uri, rows, "jsonl")
    bundle = publish_vectors(workspace, ["a", "b"], {"mask": np.eye(2)}).id
    corpus, published = run(workspace, "--versions")
    assert re.fullmatch(r"corpus: format 1\.1; made with seedset \S+, python \S+, pyarrow \S+", corpus)
    assert published.startswith(f"bundles/{bundle}: format 1.1; made with seedset ")
    assert f"torch {metadata.version('torch')}" in published
    (Path(workspace.bundles.path) / bundle / "manifest.json").write_text('{"format_version": 9, "new": 1}')
    assert f"bundles/{bundle}: format 9; made with versions that were not noted" in run(
        workspace, "--versions"
    ), "also what this program does not read"
    with pytest.raises(UserError, match="--versions only lists"):
        run(workspace, "--versions", "--use", bundle)
