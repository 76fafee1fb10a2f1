"""What is of a former corpus is made anew, once, in order, and answers as if it were made from nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import UserError
from engine.generation.trie import Trie
from engine.losses.settings import UltraFineSettings
from engine.methods import method
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.queries.formats import LabelledQuery, Truth
from engine.query import Query
from engine.retrieval.index import VectorIndex
from engine.storage.bundle import Bundle, current_id
from engine.storage.removal import carry_out
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import ContrastLists, open_lists, publish_lists
from engine.training.settings import ContrastiveSettings, EncoderSettings
from jobs import refresh
from jobs.settings import TrainingProcesses
from jobs.steps.cleaning import plan_cleaning
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.index_building import build
from jobs.steps.lm_pretraining import publish_model
from jobs.steps.mask_view import MaskSumsWorker, SumsTask
from jobs.steps.method_notes import MethodNotes
from jobs.steps.model_input import preprocess
from jobs.steps.refreshing import HowRefreshed, Refresh
from jobs.workers.checkpoint_pace import CheckpointPace
from jobs.workers.encoder import CONTRAST_JOB
from jobs.workers.executor import LocalExecutor
from jobs.workers.summaries import SUMMARY
from tests.jobs.conftest import METALS, import_metals
from tests.support.commands import run_command
from tests.support.corpora import run_import, ultrawiki
from tests.support.kills import Killed, kill_at_local_write
from tests.support.language_models import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("alone")

SETTINGS = EncoderSettings(epochs=2, batch_size=16, learning_rate=1e-3, precision="float32")
HOW = HowRefreshed(1, True, TrainingProcesses(), 1)
NEW = {"copper": [f"They saw copper {i} times." for i in range(6)], "iron": ["It is known that iron rusts."]}


Made = Callable[..., Workspace]


def make_inputs(workspace: Workspace) -> None:
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(embedded_model_path())))
    preprocess(workspace, EMBEDDED, settings, LocalExecutor())


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Workspaces of metals with an index, by whether the encoder is trained; each is made once."""

    @cache
    def base(trained: bool) -> Path:
        folder = tmp_path_factory.mktemp("base")
        import_metals(str(folder / "w"), folder / "raw")
        workspace = Workspace.open(folder / "w")
        make_inputs(workspace)
        if trained:
            train(workspace, SETTINGS)
        build(workspace, untrained=not trained, executor=LocalExecutor())
        return folder

    return base


@pytest.fixture
def made(bases: Callable[[bool], Path]) -> Made:
    """Return copies of them."""

    def copied(folder: Path, trained: bool = True) -> Workspace:
        shutil.copytree(bases(trained), folder, dirs_exist_ok=True)
        return Workspace.open(folder / "w")

    return copied


def append(workspace: Workspace, folder: Path) -> Workspace:
    run_import(workspace.root.path, ultrawiki(folder / "more", NEW), "ultrawiki", append=True)
    return Workspace.open(workspace.root.path)


def refresh_all(workspace: Workspace) -> None:
    for step in Refresh(Workspace.open(workspace.root.path), HOW).steps:
        step.run()


def commands(plan: Refresh) -> list[str]:
    return [step.command for step in plan.steps]


def test_a_corpus_that_grew_is_refreshed_and_a_second_time_nothing_is_stale(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = made(tmp_path)
    before = trained_encoder(workspace)
    words: tuple[object, ...] = ("--workspace", tmp_path / "w", "--pool", 1)
    assert run_command(refresh.main, *words) == 0
    assert "nothing is stale" in capsys.readouterr().err
    append(workspace, tmp_path)
    old = current_id(workspace)
    words = (*words[:2], "--epochs", 1, "--pool", 1)
    assert run_command(refresh.main, *words, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "stale=3" in told
    assert "goes on from it, 1 epochs" in told
    assert current_id(workspace) == old
    assert run_command(refresh.main, *words) == 0
    out = capsys.readouterr().out
    assert "neighbor_overlap=" in out
    bundle = Bundle.open(workspace)
    assert f"bundle={bundle.id}" in out
    assert bundle.vocabulary.names == [*METALS, "copper"]
    assert np.any(VectorIndex.read(bundle.path("index/mask.faiss")).vectors_of([6]))
    after = trained_encoder(workspace)
    assert before is not None
    assert after is not None
    summary = json.loads((workspace.runs("train_encoder") / after.name / "summary.json").read_bytes())
    assert (summary["warm_start"], summary["epochs"]) == (before.name, 1)
    assert run_command(refresh.main, *words) == 0
    assert "stale=0" in capsys.readouterr().out


def test_by_default_the_encoder_stays_and_new_parts_alone_are_read(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = append(made(tmp_path), tmp_path)
    before, trained = Bundle.open(workspace), trained_encoder(workspace)
    read: list[str] = []
    summed = MaskSumsWorker.__call__

    def noted(self: MaskSumsWorker, task: SumsTask) -> None:
        read.append(task.name)
        summed(self, task)

    monkeypatch.setattr(MaskSumsWorker, "__call__", noted)
    words = ("--workspace", tmp_path / "w", "--pool", 1)
    assert run_command(refresh.main, *words) == 0
    assert "it stays, and reads it. `--epochs 1` trains it on" in capsys.readouterr().err
    assert read == open_inputs(workspace).names[-1:], "the part of the sentences that were appended"
    assert trained_encoder(workspace) == trained
    after = Bundle.open(workspace)
    was, now = (VectorIndex.read(one.path("index/mask.faiss")).vectors_ND for one in (before, after))
    told = METALS.index("iron")
    others = [i for i in range(len(METALS)) if i != told]
    np.testing.assert_array_equal(now[others], was[others])
    assert not np.array_equal(now[told], was[told]), "of which there is one sentence more"
    assert np.any(now[len(METALS)])
    assert run_command(refresh.main, *words) == 0
    assert "stale=0" in capsys.readouterr().out


def test_the_index_is_that_of_a_build_from_nothing(made: Made, tmp_path: Path) -> None:
    """With the encoder as it came: what is copied from parts before is what would be computed."""
    workspace = made(tmp_path, trained=False)
    build(workspace, untrained=True, executor=LocalExecutor(), index="ivf-pq")
    append(workspace, tmp_path)
    plan = Refresh(workspace, HOW)
    assert commands(plan) == ["preprocess", "build-index"]
    for step in plan.steps:
        step.run()
    assert Bundle.open(workspace).manifest.settings["index"]["asked"] == "ivf-pq", "as it was before"
    import_metals(str(tmp_path / "v"), tmp_path / "raw")
    other = append(Workspace.open(tmp_path / "v"), tmp_path)
    make_inputs(other)
    build(other, untrained=True, executor=LocalExecutor())
    grown, whole = Bundle.open(workspace), Bundle.open(other)
    assert grown.vocabulary.names == whole.vocabulary.names
    for view in ("mask", "description", "lexical"):
        ours, plain = (VectorIndex.read(one.path(f"index/{view}.faiss")).vectors_ND for one in (grown, whole))
        np.testing.assert_allclose(ours, plain, atol=0.02)


@pytest.mark.parametrize("done", [1, 2])
def test_a_refresh_that_was_stopped_goes_on_where_it_was(made: Made, tmp_path: Path, done: int) -> None:
    workspace = append(made(tmp_path), tmp_path)
    plan = Refresh(workspace, HOW)
    assert commands(plan) == ["preprocess", "train-encoder", "build-index"]
    for step in plan.steps[:done]:
        step.run()
    rest = Refresh(Workspace.open(workspace.root.path), HOW)
    assert commands(rest) == commands(plan)[done:]
    for step in rest.steps:
        step.run()
    assert Bundle.open(workspace).vocabulary.names == [*METALS, "copper"]
    assert not Refresh(workspace, HOW).steps


def test_a_refresh_that_is_killed_at_its_writes_ends_as_if_it_had_not_been(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt is killed four files later than the one before, with a `clean` in between."""
    refreshed, killed = (append(made(tmp_path / name, False), tmp_path / name) for name in ("a", "b"))
    for step in Refresh(refreshed, HOW).steps:
        step.run()
    old, attempts = current_id(killed), 0
    while attempts < 20:
        try:
            with monkeypatch.context() as patch:
                kill_at_local_write(patch, 4 * attempts)
                for step in Refresh(Workspace.open(killed.root.path), HOW).steps:
                    step.run()
            break
        except Killed:
            attempts += 1
        assert current_id(killed) == old
        assert Bundle.open(killed).vocabulary.names == METALS
        carry_out(killed.root, plan_cleaning(killed, 1).removals)
    assert attempts >= 3, "in model input, caches, the bundle"
    assert not Refresh(killed, HOW).steps
    found, wanted = (Bundle.open(one).manifest for one in (killed, refreshed))
    assert found.files == wanted.files, "every file's bytes"
    assert len(list(Path(killed.root.path, "bundles").glob("[!.C]*"))) == 2, "the one before, and this"


def test_a_refresh_that_is_killed_between_checkpoints_ends_as_if_it_had_not_been(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, after two checkpoints each, with a `clean` in between, which leaves them."""
    refreshed, killed = (append(made(tmp_path / name), tmp_path / name) for name in ("a", "b"))
    refresh_all(refreshed)
    old = current_id(killed)
    for life in range(2):
        asked = 0

        def due(self: CheckpointPace) -> bool:
            nonlocal asked
            asked += 1
            if asked == 3:
                raise Killed
            return True

        with monkeypatch.context() as patch:
            patch.setattr(CheckpointPace, "due", due)
            with pytest.raises(Killed):
                refresh_all(killed)
        states = killed.runs("train_encoder").files("/state.json")
        steps = [int(one.parent.name) for one in states if not (one.parent.parent.parent / SUMMARY).exists()]
        assert max(steps) == 2 * (life + 1), "it went on from its last checkpoint"
        assert current_id(killed) == old
        carry_out(killed.root, plan_cleaning(killed, 1).removals)
    refresh_all(killed)
    assert not Refresh(killed, HOW).steps
    found, wanted = (Bundle.open(one).manifest for one in (killed, refreshed))
    assert found.files == wanted.files, "every file's bytes"


def test_a_corpus_that_was_replaced_is_trained_on_from_nothing(made: Made, tmp_path: Path) -> None:
    workspace = made(tmp_path)
    sentences = {name: [f"Here is {name} number {i}." for i in range(4)] for name in reversed(METALS)}
    run_import(tmp_path / "w", ultrawiki(tmp_path / "other", sentences), "ultrawiki", overwrite=True)
    plan = Refresh(Workspace.open(workspace.root.path), HOW)
    assert [step.why for step in plan.steps if step.command == "train-encoder"] == [
        "trained on the corpus before; begins anew, 2 epochs"
    ]
    cold = HowRefreshed(1, False, TrainingProcesses(), 1)
    grown = append(made(tmp_path / "b"), tmp_path / "b")
    assert "begins anew, 2 epochs" in Refresh(grown, cold).steps[1].why


def test_lists_stay_good_and_a_contrastive_training_goes_on(made: Made, tmp_path: Path) -> None:
    workspace = made(tmp_path, trained=False)
    own = [np.array(one, np.int32) for one in ([0], [2], [0, 1], [2, 3], [0, 1, 2, 3])]
    publish_lists(workspace, [ContrastLists("a", *own)], {"by": "hand"})
    small = UltraFineSettings(contrast_passes=1, lists_per_batch=1, list_entities=2)
    settings = ContrastiveSettings(**SETTINGS.model_dump(), ultra_fine=small)
    train(workspace, settings, lists=open_lists(workspace))
    build(workspace, untrained=True, executor=LocalExecutor())
    first = trained_encoder(workspace, CONTRAST_JOB)
    workspace = append(workspace, tmp_path)
    kept = Refresh(workspace, HowRefreshed(0, True, TrainingProcesses(), 1))
    assert commands(kept) == ["preprocess", "build-index"]
    for step in kept.steps:
        step.run()
    bundle = Bundle.open(workspace)
    lists = open_lists(workspace).key
    assert bundle.manifest.settings["contrast"] == {"trained": first.name if first else "", "lists": lists}
    assert bundle.manifest.settings["discriminant"] == {"lists": lists}
    notes = MethodNotes(
        workspace, bundle, [LabelledQuery(Query("a", (0,), (2,)), "x", Truth(frozenset({1})))]
    )
    assert "1 of the 1 queries are among theirs" in (notes.on(method("default")) or "")
    assert notes.on(method("retexpan")) is None
    assert np.any(VectorIndex.read(bundle.path("index/contrast.faiss")).vectors_of([6]))
    plan = Refresh(workspace, HOW)
    assert commands(plan) == ["train-encoder", "build-index"]
    assert not plan.notes
    for step in plan.steps:
        step.run()
    now = trained_encoder(workspace, CONTRAST_JOB)
    assert first is not None
    assert now is not None
    assert now.name != first.name
    assert Bundle.open(workspace).manifest.settings["contrast"] == {"trained": now.name, "lists": lists}


def test_a_language_model_is_kept_with_a_trie_of_all_names(made: Made, tmp_path: Path) -> None:
    workspace = made(tmp_path, trained=False)
    tokenizer = tiny_tokenizer()
    folder = workspace.runs("pretrain_lm") / "tiny" / "model"
    tiny_model().model.save_pretrained(folder.path)
    tokenizer.save_pretrained(folder.path)
    told = dict.fromkeys(("model", "tokenizer", "perplexity_before", "perplexity_after"), "x")
    publish_model(workspace, folder, {"run": "tiny", **told}, open_inputs(workspace).manifest.corpus_digest)
    workspace = append(workspace, tmp_path)
    plan = Refresh(workspace, HOW)
    assert [note for note in plan.notes if "language model tiny: has not read what is new" in note]
    for step in plan.steps:
        step.run()
    bundle = Bundle.open(workspace)
    trie = Trie.load(bundle.path("trie"))
    names = [*METALS, "copper"]
    wanted = [tuple(tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) for name in names]
    assert trie.n_entities == trie.n_sequences == len(set(wanted)) == len(names)
    assert bundle.manifest.settings["lm"]["run"] == "tiny"
    fewer = {name: [f"We know that {name} is here."] for name in names[1:]}
    source = ultrawiki(tmp_path / "fewer", fewer)
    run_import(tmp_path / "w", source, "ultrawiki", update=True, remove_missing=True)
    for step in Refresh(Workspace.open(tmp_path / "w"), HOW).steps:
        step.run()
    last = Bundle.open(workspace)
    assert last.id != bundle.id
    assert Trie.load(last.path("trie")).n_entities == len(names), "a name keeps its id"
    assert last.vocabulary.removed == {0}
    assert last.manifest.settings["lm"]["run"] == "tiny"


@pytest.mark.slow
def test_a_workspace_in_a_bucket_is_refreshed(s3: str, tmp_path: Path) -> None:
    import_metals(f"{s3}/w", tmp_path / "raw")
    workspace = Workspace.open(f"{s3}/w")
    make_inputs(workspace)
    first = train(workspace, SETTINGS)["run"]
    build(workspace, executor=LocalExecutor())
    run_import(f"{s3}/w", ultrawiki(tmp_path / "more", NEW), "ultrawiki", append=True)
    for step in Refresh(Workspace.open(f"{s3}/w"), HOW).steps:
        step.run()
    workspace = Workspace.open(f"{s3}/w")
    assert Bundle.open(workspace).vocabulary.names == [*METALS, "copper"]
    after = trained_encoder(workspace)
    assert after is not None
    summary = json.loads((workspace.runs("train_encoder") / after.name / "summary.json").read_bytes())
    assert summary["warm_start"] == first
    assert not Refresh(workspace, HOW).steps


def test_what_cannot_be_made_anew_is_said(made: Made, tmp_path: Path) -> None:
    workspace = made(tmp_path)
    workspace.inputs(open_inputs(workspace).key).delete()
    workspace = append(workspace, tmp_path)
    told = "\n".join(Refresh(workspace, HOW).notes)
    assert re.search(r"its model input .* is gone; run `seedset preprocess` and `seedset train-enc", told)
    with pytest.raises(UserError, match="no corpus here yet"):
        Refresh(Workspace.open(tmp_path / "empty"), HOW)
