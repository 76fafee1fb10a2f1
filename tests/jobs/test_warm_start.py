"""A training begins with an earlier one: its weights, and a head that has room for new entities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import FormatError, UserError
from engine.losses.entity_prediction import EntityHead
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.models.text import TextEncoder
from engine.storage.workspace import Workspace
from engine.training.settings import EncoderSettings
from engine.training.text import EncoderTraining
from engine.training.text_head import read_head, start_head
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.model_input import preprocess
from jobs.workers.executor import LocalExecutor
from tests.jobs.conftest import METALS, import_metals
from tests.support.corpora import run_import, ultrawiki

pytestmark = pytest.mark.usefixtures("alone")

SETTINGS = EncoderSettings(epochs=4, batch_size=16, learning_rate=1e-3, precision="float32")
ONE = SETTINGS.model_copy(update={"epochs": 1})
NEW = {"copper": [f"They saw copper {i} times." for i in range(6)]}


def make_inputs(workspace: Workspace) -> None:
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(embedded_model_path())))
    preprocess(workspace, EMBEDDED, settings, LocalExecutor())


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a trained encoder, whose corpus has one entity more than that saw."""
    folder = tmp_path_factory.mktemp("grown")
    import_metals(str(folder / "w"), folder / "raw")
    workspace = Workspace.open(folder / "w")
    make_inputs(workspace)
    train(workspace, SETTINGS)
    run_import(folder / "w", ultrawiki(folder / "more", NEW), "ultrawiki", append=True)
    make_inputs(Workspace.open(folder / "w"))
    return Workspace.open(folder / "w")


def test_a_head_keeps_what_it_knows_and_new_entities_begin_as_the_mean() -> None:
    torch.manual_seed(0)
    known, head = EntityHead(4, 3), EntityHead(4, 5)
    start_head(head, known.state_dict())
    states = torch.randn(7, 4)
    logits, before = head(states), known(states)
    torch.testing.assert_close(logits[:, :3], before)
    for new in (3, 4):
        torch.testing.assert_close(logits[:, new], before.mean(dim=1))
    with pytest.raises(FormatError, match="a head of 3 entities and 4 numbers cannot begin one of 2 entit"):
        start_head(EntityHead(4, 2), known.state_dict())
    with pytest.raises(FormatError, match="cannot begin one of 3 entities and 8"):
        start_head(EntityHead(8, 3), known.state_dict())


def test_it_goes_on_from_the_earlier_run_as_the_plain_loop_does(grown: Workspace) -> None:
    before = trained_encoder(grown)
    assert before is not None
    warm = train(grown, ONE, warm_start="newest", make_current=False)
    cold = train(grown, ONE, make_current=False)
    assert (warm["warm_start"], cold["warm_start"]) == (before.name, None)
    assert warm["run"] != cold["run"]
    assert abs(warm["losses"][0] - cold["losses"][0]) > 1e-3
    data = frozen_cache(grown, open_inputs(grown), EMBEDDED, executor=LocalExecutor()).open()
    folder = Path(before.folder.path)
    plain = EncoderTraining(TextEncoder.load(str(folder)), data, len(METALS) + 1, ONE, head=read_head(folder))
    for _ in plain.run():
        pass
    np.testing.assert_allclose(warm["losses"], plain.losses, rtol=1e-4)


def test_mistakes(grown: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--warm-start strange: no such run in .*/runs/train_encoder"):
        train(grown, ONE, warm_start="strange")
    with pytest.raises(UserError, match="began with the encoder embedded, and --model other is another"):
        train(grown, ONE, model="other", warm_start="newest")
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    other = Workspace.open(tmp_path / "w")
    make_inputs(other)
    with pytest.raises(UserError, match="--warm-start newest: no such run"):
        train(other, ONE, warm_start="newest")
    train(other, ONE)
    named = ultrawiki(tmp_path / "named", {name: [f"Here is {name}."] for name in reversed(METALS)})
    run_import(tmp_path / "w", named, "ultrawiki", overwrite=True)
    make_inputs(Workspace.open(tmp_path / "w"))
    with pytest.raises(
        UserError, match="did not grow from by `seedset import --append`, so that its ids mean"
    ):
        train(Workspace.open(tmp_path / "w"), ONE, warm_start="newest")
