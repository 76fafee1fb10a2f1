"""Contrastive training of the text encoder: a run trains, resumes, and its encoder makes a view."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from engine.corpus.inputs.masking import load_tokenizer
from engine.errors import StorageError, UserError
from engine.losses.settings import UltraFineSettings
from engine.methods import method
from engine.models.seed_tokens import has_seed_tokens
from engine.models.text import TextEncoder
from engine.query import Query, Scores
from engine.retrieval.discriminant import Sides, discriminant_view
from engine.retrieval.index import Vectors, index_file, map_hubness
from engine.retrieval.opening import open_index
from engine.retrieval.views import hubness
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import ContrastLists, open_lists, publish_lists
from engine.training.settings import ContrastiveSettings
from engine.training.trainer import StepReport, Trainer
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.index_building import build
from jobs.train_encoder import TrainEncoderSettings
from jobs.workers.encoder import CONTRAST_JOB
from jobs.workers.executor import LocalExecutor
from jobs.workers.training_sessions import LocalSession
from tests.jobs.conftest import prepare_metals
from tests.support.encoders import write_encoder

SMALL = UltraFineSettings(
    seed_text=True, contrast_passes=1, lists_per_batch=1, list_entities=2, contrast_learning_rate=1e-2
)
SETTINGS = ContrastiveSettings(
    epochs=2, batch_size=16, learning_rate=1e-3, precision="float32", ultra_fine=SMALL
)


def lists(query_id: str, pos: list[int], neg: list[int]) -> ContrastLists:
    own = [np.array(one, np.int32) for one in (pos[:1], neg[:1], pos, neg, pos + neg)]
    return ContrastLists(query_id, *own)


MINED = [lists("a", [0, 1], [2, 3]), lists("b", [2, 4], [0]), lists("no negative seeds", [0, 1], [])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("contrast")
    write_encoder(folder / "m")
    workspace, _, _ = prepare_metals(folder)
    with pytest.raises(StorageError, match=r"no contrast lists here yet; run `seedset mine-contrast"):
        open_lists(workspace)
    publish_lists(workspace, MINED, {"by": "hand"})
    return workspace


@pytest.mark.usefixtures("alone")
def test_a_run_trains_resumes_and_its_encoder_makes_a_view_that_answers(
    world: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = LocalSession.keep

    def stopped(self: LocalSession, report: StepReport, training: Trainer) -> None:
        keep(self, report, training)
        if report.step == 5:  # within the contrast of the first epoch: 4 steps of prediction, 2 of contrast
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalSession, "keep", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(world, SETTINGS, lists=open_lists(world), checkpoint_seconds=0)
    resumed = train(world, SETTINGS, lists=open_lists(world))
    assert (resumed["resumed_at"], resumed["steps"]) == (5, 12)
    whole = train(world, SETTINGS, lists=open_lists(world), restart=True)
    assert whole["resumed_at"] == 0
    np.testing.assert_allclose(resumed["losses"], whole["losses"], rtol=1e-5)
    assert whole["contrast_lists"] == open_lists(world).key
    # The contrast's steps are those of a loss that lies below entity prediction's, and falls.
    assert np.mean(whole["losses"][10:]) < np.mean(whole["losses"][4:6])

    trained = trained_encoder(world, CONTRAST_JOB)
    assert trained is not None
    trained.check_model()
    assert has_seed_tokens(load_tokenizer(trained.folder.path))
    before, after = (TextEncoder.load(name) for name in (trained.model, trained.folder.path))
    former, learnt = before.last.state_dict(), after.last.state_dict()
    assert any(not torch.equal(former[name], learnt[name]) for name in former)
    # Of a sentence without seeds the cached states are the trained encoder's, too.
    sentence = torch.arange(10)[None], torch.tensor([10])
    assert torch.equal(before.lower_states(*sentence), after.lower_states(*sentence))
    build(world, untrained=True, executor=LocalExecutor())
    bundle = Bundle.open(world)
    for name in ("retexpan+contrast-conditioned", "retexpan+contrast"):
        (answer,) = method(name).open(bundle)([Query(name, (0,), (1,))])
        assert set(answer.ranking.ids) == {2, 3, 4, 5}, name


@pytest.mark.usefixtures("alone")
def test_without_seed_text_the_states_come_out_of_the_cache(
    world: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world, SETTINGS, lists=open_lists(world))  # fills the cache where this test is alone

    def refuse(*_: object) -> None:
        raise AssertionError("a frozen layer runs")

    monkeypatch.setattr(TextEncoder, "lower_states", refuse)
    plain = SETTINGS.model_copy(
        update={"ultra_fine": SMALL.model_copy(update={"seed_text": False}), "epochs": 1}
    )
    summary = train(world, plain, lists=open_lists(world), make_current=False)
    assert summary["steps"] == 6
    with pytest.raises(AssertionError, match="a frozen layer runs"):
        train(world, SETTINGS.model_copy(update={"seed": 1}), lists=open_lists(world), make_current=False)


@pytest.mark.usefixtures("alone")
def test_mistakes_are_named(world: Workspace) -> None:
    with pytest.raises(StorageError, match=r"contrast/nothing: no contrast lists of this key"):
        open_lists(world, "nothing")
    newest = open_lists(world)
    bare = publish_lists(world, [lists("q", [0], [])], {"by": "hand", "negative": False})
    with pytest.raises(UserError, match=r"none of the 1 queries' lists has sentences of both sides"):
        train(world, SETTINGS, lists=open_lists(world, bare))
    strange = publish_lists(world, [lists("q", [0], [77])], {"by": "hand", "strange": True})
    with pytest.raises(UserError, match=r"query 'q': negative names entity 77, and there are 6"):
        train(world, SETTINGS, lists=open_lists(world, strange))
    manifest = world.contrast(newest.key) / "manifest.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(kept.replace(newest.manifest.corpus_digest.encode(), b"0"))
    with pytest.raises(StorageError, match="mined from another corpus"):
        open_lists(world, newest.key)
    manifest.write_bytes(kept)
    publish_lists(world, MINED, {"by": "hand"})


def test_the_options_of_the_contrast_need_it() -> None:
    without = TrainEncoderSettings(workspace="w")
    assert without.unused()["list_entities"] == "without --contrast"
    assert type(without.training()) is not ContrastiveSettings
    chosen = TrainEncoderSettings(workspace="w", contrast="newest", ultra_fine=SMALL)
    assert "list_entities" not in chosen.unused()
    training = chosen.training()
    assert isinstance(training, ContrastiveSettings)
    assert training.ultra_fine == SMALL
    shown = TrainEncoderSettings(workspace="w", contrast="newest", modality="text+image")
    assert shown.unused()["contrast"] == "with images"


@pytest.mark.usefixtures("alone")
def test_the_joint_view_tells_apart_what_seeds_of_mined_lists_tell_apart(
    world: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    key = open_lists(world).key
    plain, read = (views_of_bundle(world, lists) for lists in ("none", None))
    assert plain.settings.get("discriminant") is None
    assert read.settings["discriminant"] == {"lists": key}
    queries = [Sides(one.positive, one.negative) for one in MINED]
    expected = discriminant_view(plain.joint, queries)
    np.testing.assert_allclose(read.joint, expected, atol=1e-6)
    assert not np.allclose(read.joint, plain.joint, atol=1e-3)
    np.testing.assert_allclose(read.hubness, hubness(expected), atol=1e-6)
    with pytest.raises(StorageError, match=r"contrast/nothing: no contrast lists of this key"):
        build(world, untrained=True, executor=LocalExecutor(), lists="nothing")
    manifest = world.contrast(key) / "manifest.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(kept.replace(open_lists(world).manifest.corpus_digest.encode(), b"0"))
    capsys.readouterr()
    np.testing.assert_array_equal(views_of_bundle(world, None).joint, plain.joint)
    assert "made without the seeds of mined lists" in capsys.readouterr().err
    manifest.write_bytes(kept)


class Joint(NamedTuple):
    """What a bundle's joint view is, and what its manifest says."""

    joint: Vectors
    hubness: Scores
    settings: dict[str, Any]


def views_of_bundle(world: Workspace, lists: str | None) -> Joint:
    manifest = build(world, untrained=True, executor=LocalExecutor(), lists=lists)
    bundle = Bundle.open(world)
    vectors = open_index(bundle, "joint").vectors_of(range(len(bundle.vocabulary)))
    penalty = map_hubness(bundle.path(index_file("joint")))
    assert penalty is not None
    return Joint(vectors, np.array(penalty), manifest.settings)
