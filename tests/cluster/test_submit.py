"""Jobs through ``ray job submit``, as a user runs them: authenticated, with the code shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.methods import METHODS
from engine.query import Query
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from examples.make_sample import write_sample
from jobs.evaluate import main as evaluate
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
    assert status == 0, output
    assert "ray_cluster.yaml: valid" in output
    assert output.count("2 CPU  0 GPU") == 2


def small_corpus(folder: Path) -> Path:
    """Write one class of the sample data set; return its folder of queries."""
    write_sample(folder / "whole")
    lines = (folder / "whole" / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["attributes"]["class"] == [CLASS]]
    names = {json.loads(line)["name"] for line in kept}
    sentences = (folder / "whole" / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    told = [line for line in sentences if json.loads(line)["entity"] in names]
    source = folder / "source"
    source.mkdir()
    (source / "entities.jsonl").write_text("\n".join(kept), encoding="utf-8")
    (source / "sentences.jsonl").write_text("\n".join(told), encoding="utf-8")
    return folder / "whole" / "queries" / f"{CLASS}.json"


@pytest.mark.timeout(600)
def test_every_job_runs_in_a_bucket_when_submitted(
    jobs_at: JobServer, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way on two nodes; the one worker of training must fit on one of them."""
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    queries = small_corpus(tmp_path)
    chain = f"""
    python -m jobs.import_corpus --format jsonl --source {tmp_path}/source --workspace {s3}/w &&
    python -m jobs.preprocess --workspace {s3}/w --max-sentences 4 &&
    python -m jobs.train_encoder --workspace {s3}/w --epochs 1 &&
    python -m jobs.build_index --workspace {s3}/w &&
    python -m jobs.expand --workspace {s3}/w --queries {queries} --method retexpan --output {s3}/out
    """
    status, output = jobs_at.submitted("bash", "-c", " ".join(chain.split()), seconds=480)
    assert status == 0, output
    asked = len(json.loads(queries.read_text(encoding="utf-8")))
    assert f"queries={asked}" in output
    # Evaluation needs no cluster: here it is a process less that loads everything.
    report = tmp_path / "report.json"
    named = ("--workspace", f"{s3}/w", "--queries", queries, "--method", "retexpan", "--json", report)
    assert run_command(evaluate, *named) == 0
    assert json.loads(report.read_text(encoding="utf-8"))["overall"]["queries"] == asked
    workspace = Workspace.open(f"{s3}/w")
    bundle = Bundle.open(workspace)
    seeds, names = (0, 1), bundle.vocabulary.names
    (answer,) = METHODS["default"].open(bundle)([Query("q", seeds, (2,))])
    assert sorted(answer.ranking.ids) == [i for i in range(len(names)) if i not in (0, 1, 2)]
    events = workspace.runs("train_encoder") / bundle.manifest.settings["trained"] / "tensorboard"
    assert len(events.files()) == 1
    answers = (Store.open(f"{s3}/out") / "_manifest.json").read_bytes()
    assert json.loads(answers)["queries"] == asked
