"""Jobs through ``ray job submit``, as a user runs them: authenticated, with the code shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from examples.make_sample import write_small_sample
from jobs.evaluate import main as evaluate
from jobs.import_corpus import main as import_corpus
from jobs.preprocess import main as preprocess
from jobs.steps.index_building import build
from jobs.workers.executor import LocalExecutor
from tests.support.commands import run_command
from tests.support.submit import JobServer

pytestmark = [pytest.mark.slow, pytest.mark.ray]
CLASS = "elements"


def test_the_code_is_shipped_and_the_history_is_not(jobs_at: JobServer) -> None:
    look = "import os, engine.methods; print('there:', sorted(os.listdir('.')), os.environ['RAY_ADDRESS'])"
    status, output = jobs_at.submitted("python", "-c", look)
    assert status == 0, output
    (there,) = (line for line in output.splitlines() if line.startswith("there:"))
    assert "'engine'" in there
    assert jobs_at.address in there
    assert "'.git'" not in there, "the history would blow the limit of the upload"


def test_a_job_that_fails_is_reported_as_failed(jobs_at: JobServer) -> None:
    status, output = jobs_at.submitted("python", "-m", "jobs.preprocess", "--workspace", "work")
    assert status != 0
    assert "error: work: a relative path in a submitted job" in output


def test_the_nodes_of_the_cluster_are_listed(jobs_at: JobServer) -> None:
    status, output = jobs_at.submitted("python", "-m", "cluster.check")
    # What is wrong with the machine that the tests run on, such as a full disk, is told, and is not this
    # test's business. Ray ends with 1 whatever the status of a job that failed.
    assert status == (0 if "nothing found" in output else 1), output
    assert status == 0 or "error: " in output, output
    assert "ray_cluster.yaml: valid" in output
    assert output.count("2 CPU  0 GPU") == 2
    assert "does not answer" not in output


@pytest.mark.timeout(600)
def test_trainings_and_the_index_are_made_in_a_bucket_when_submitted(
    jobs_at: JobServer, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two nodes; the one worker of training must fit on one of them. What needs no cluster is done here:
    each job is a process more that loads everything."""
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    write_small_sample(tmp_path / "source", CLASS)
    queries, at = tmp_path / "source" / "queries" / f"{CLASS}.json", f"{s3}/w"
    source = ("--source", tmp_path / "source", "--format", "jsonl")
    assert run_command(import_corpus, "--workspace", at, *source) == 0
    assert run_command(preprocess, "--workspace", at, "--max-sentences", "4") == 0
    training, index = (f"python -m jobs.{name} --workspace {at}" for name in ("train_encoder", "build_index"))
    status, output = jobs_at.submitted("bash", "-c", f"{training} --epochs 1 && {index}", seconds=480)
    assert status == 0, output
    workspace = Workspace.open(at)
    bundle = Bundle.open(workspace)
    events = workspace.runs("train_encoder") / bundle.manifest.settings["trained"] / "tensorboard"
    assert len(events.files()) == 1
    report = tmp_path / "report.json"
    named = ("--workspace", at, "--queries", queries, "--method", "default", "--json", report)
    assert run_command(evaluate, *named) == 0
    asked = len(json.loads(queries.read_text(encoding="utf-8")))
    assert json.loads(report.read_text(encoding="utf-8"))["overall"]["queries"] == asked
    # A bundle's id is the digest of its files. The frozen states are made anew.
    workspace.cache("").delete()
    assert build(workspace, executor=LocalExecutor()).id == bundle.id, "this process makes the same"
