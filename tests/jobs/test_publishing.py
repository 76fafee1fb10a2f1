"""What is published beside an index or a model of another corpus is said, before and after the work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from engine.corpus.inputs.format import InputSettings, Stats, input_parts
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.corpus.inputs.worker import InputTask, InputWorker
from engine.corpus.schema import read_manifest
from engine.errors import BundleError, StorageError
from engine.models.hub import EMBEDDED
from engine.storage.bundle import Bundle, current_id
from engine.storage.publishing import publish
from engine.storage.workspace import Workspace
from jobs.steps.model_input import preprocess
from jobs.steps.publishing import check_before_work, publish_beside
from jobs.workers.executor import LocalExecutor
from tests.support.corpora import jsonl, run_import

INDEX = r"bundle \w+: its index is of another corpus .*run `seedset build-index`"
MODEL = r"bundle \w+: its language model is of another corpus .*run `seedset pretrain-lm`"


def corpus_of(tmp_path: Path, text: str) -> Workspace:
    """Import a corpus of one entity, whose one sentence is given."""
    source = jsonl(tmp_path / "raw" / "sentences.jsonl", [{"entity": "iron", "sentence": text}])
    run_import(tmp_path / "w", source.parent, "jsonl", overwrite=True)
    return Workspace.open(tmp_path / "w")


def staged_with(workspace: Workspace, name: str) -> Path:
    staged = workspace.bundles.staging()
    workspace.entities.fetch(staged / "entities.parquet")
    (staged / name).parent.mkdir()
    (staged / name).write_text(name)
    return staged


def index_of(workspace: Workspace, **settings: object) -> None:
    publish(workspace, staged_with(workspace, "index/mask.faiss"), settings)


def model_of(workspace: Workspace) -> Bundle:
    digest = read_manifest(workspace).digest
    staged = staged_with(workspace, "lm/config.json")
    publish_beside(workspace, staged, {"lm": {"corpus": digest}}, ["lm/"], digest)
    return Bundle.open(workspace)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_a_model_beside_an_index_of_another_corpus_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = corpus_of(tmp_path, "Iron rusts.")
    index_of(old, corpus=read_manifest(old).digest)
    check_before_work(old, makes="language model")
    assert said(capsys) == ""
    new = corpus_of(tmp_path, "Iron is heavy.")
    check_before_work(new, makes="language model")
    assert re.search(INDEX, said(capsys))
    check_before_work(new, makes="index")
    assert said(capsys) == "", "it is what is made anew"
    assert model_of(new).path("index/mask.faiss").is_file(), "it is carried over"
    assert re.search(INDEX, said(capsys))


def test_an_index_beside_a_model_of_another_corpus_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_of(corpus_of(tmp_path, "Iron rusts."))
    new = corpus_of(tmp_path, "Iron is heavy.")
    check_before_work(new, makes="index")
    assert re.search(MODEL, said(capsys))
    model_of(new)
    check_before_work(new, makes="index")
    assert said(capsys) == ""


def test_bundles_of_an_earlier_version_are_known_by_their_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = corpus_of(tmp_path, "Iron rusts.")
    for key, digest in {"old-e5": "0" * 64, "same": read_manifest(workspace).digest}.items():
        (workspace.inputs(key) / "manifest.json").write_bytes(json.dumps({"corpus_digest": digest}).encode())
    index_of(workspace, inputs="same")
    check_before_work(workspace, makes="language model")
    assert said(capsys) == ""
    index_of(workspace, inputs="same", lm={"run": "old-e5-e3-0123abcd"})
    check_before_work(workspace, makes="index")
    assert re.search(MODEL, said(capsys))
    index_of(workspace, inputs="nowhere", lm={"run": "nowhere-e3-0123abcd"})
    check_before_work(workspace, makes="language model")
    assert said(capsys) == "", "not known"


def test_a_corpus_that_is_replaced_while_a_job_runs_is_said(tmp_path: Path) -> None:
    old = corpus_of(tmp_path, "Iron rusts.")
    index_of(old)
    before, digest = current_id(old), read_manifest(old).digest
    corpus_of(tmp_path, "Iron is heavy.")
    with pytest.raises(StorageError, match=r"another corpus was imported while this command ran.*again"):
        publish_beside(old, staged_with(old, "lm/config.json"), {}, ["lm/"], digest)
    assert current_id(old) == before


def test_parts_that_were_read_from_another_corpus_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand under the digest of what they should have been made from."""
    workspace = corpus_of(tmp_path, "Iron rusts.")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(EMBEDDED)))
    work = InputWorker.__call__

    def later(self: InputWorker, task: InputTask) -> Stats:
        corpus_of(tmp_path, "Iron is heavy.")
        return work(self, task)

    monkeypatch.setattr(InputWorker, "__call__", later)
    with pytest.raises(StorageError, match="another corpus was imported while this command ran"):
        preprocess(workspace, EMBEDDED, settings, LocalExecutor())
    assert input_parts(workspace, settings).names() == []
    assert not workspace.inputs("CURRENT").exists()


@pytest.mark.parametrize("cut", ["entities.parquet", "mentions/part-00000.parquet", "manifest.json"])
def test_a_corpus_that_was_cut_is_said_before_the_work(tmp_path: Path, cut: str) -> None:
    workspace = corpus_of(tmp_path, "Iron rusts.")
    file = workspace.corpus / cut
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StorageError, match=rf"corpus/{cut}: .*import the corpus again with --overwrite"):
        check_before_work(workspace, makes="index")
    if cut.startswith("mentions"):
        file.delete()
        with pytest.raises(StorageError, match=r"not the parts that .* lists; import again \(0 of 1 are"):
            check_before_work(workspace, makes="index")


def test_a_bundle_that_is_gone_is_said_before_the_work(tmp_path: Path) -> None:
    workspace = corpus_of(tmp_path, "Iron rusts.")
    index_of(workspace)
    (workspace.bundles / current_id(workspace)).delete()
    with pytest.raises(BundleError, match="the current bundle cannot be built upon"):
        check_before_work(workspace, makes="index")
