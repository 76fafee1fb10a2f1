"""Other weights under a model's path: nothing that was made with the former ones is taken for theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import StorageError, UserError
from engine.images.selection.results import SelectionFolder
from engine.images.selection.settings import SelectionSettings
from engine.models.text import TextEncoder
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.lm_models import Origin, existing
from engine.training.settings import EncoderSettings
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.frozen_cache import StateWorker, frozen_cache
from jobs.steps.index_building import build
from jobs.steps.model_input import preprocess
from jobs.workers.executor import LocalExecutor
from tests.jobs.conftest import import_metals, no_cluster
from tests.support.encoders import write_encoder

SETTINGS = EncoderSettings(epochs=1, batch_size=32, precision="float32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with inputs of a model folder beside it."""
    root = tmp_path_factory.mktemp("identity")
    import_metals(str(root / "w"), root / "raw")
    write_encoder(root / "m")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(root / "m")), max_length=64)
    preprocess(Workspace.open(root / "w"), str(root / "m"), settings, LocalExecutor())
    return root


@pytest.fixture
def root(made: Path) -> Iterator[Path]:
    """The same, with the first weights in the model's folder."""
    write_encoder(made / "m")
    with no_cluster():
        yield made


def test_new_weights_are_trained_and_old_ones_found_again(root: Path) -> None:
    workspace = Workspace.open(root / "w")
    first = train(workspace, SETTINGS)
    write_encoder(root / "m", seed=1)
    second = train(workspace, SETTINGS)
    assert second["run"] != first["run"]
    assert second["losses"] != first["losses"]
    trained = trained_encoder(workspace)
    assert trained is not None
    before, after = TextEncoder.load(str(root / "m")), TextEncoder.load(trained.folder.path)
    assert after.lower_fingerprint() == before.lower_fingerprint(), "its lower layers are those of now"
    write_encoder(root / "m")
    assert train(workspace, SETTINGS)["run"] == first["run"], "the former files: the former run"


def test_other_settings_of_the_states_are_another_run(root: Path) -> None:
    workspace = Workspace.open(root / "w")
    assert train(workspace, SETTINGS, dtype="float32")["run"] != train(workspace, SETTINGS)["run"]


@pytest.mark.parametrize("kept", [True, False], ids=["with a fingerprint", "of an earlier version"])
def test_a_trained_layer_is_not_set_on_other_lower_layers(root: Path, kept: bool) -> None:
    workspace = Workspace.open(root / "w")
    name = train(workspace, SETTINGS)["run"]
    file = workspace.runs("train_encoder") / name / "summary.json"
    summary = json.loads(file.read_bytes())
    assert summary["model_fingerprint"]
    if not kept:
        file.write_bytes(json.dumps({k: v for k, v in summary.items() if k != "model_fingerprint"}).encode())
    published = build(workspace, executor=LocalExecutor())
    write_encoder(root / "m", seed=1)
    with pytest.raises(UserError, match=r"trained on the encoder .*m as it was then; .*train-encoder"):
        build(workspace, executor=LocalExecutor())
    assert (workspace.bundles / "CURRENT").read_bytes().decode().strip() == published.id


def test_cached_states_are_of_weights_and_of_how_they_are_used(root: Path) -> None:
    workspace = Workspace.open(root / "w")
    inputs = open_inputs(workspace)

    def place() -> str:
        return frozen_cache(workspace, inputs, str(root / "m"), executor=LocalExecutor()).states[0].path

    first = place()
    config = root / "m" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"num_attention_heads": 1}))
    fewer_heads = place()
    write_encoder(root / "m", seed=1)
    assert len({first, fewer_heads, place()}) == 3


def test_a_machine_with_other_weights_fills_no_cache(root: Path) -> None:
    workspace = str(root / "w")
    with pytest.raises(UserError, match="has other weights on the machine"):
        StateWorker(workspace, str(root / "m"), "bfloat16", "key", "0123")


def test_a_language_model_goes_by_its_content_and_a_new_one_by_its_configuration(root: Path) -> None:
    first = existing(str(root / "m"))
    assert existing(str(root / "m")).identity == first.identity
    write_encoder(root / "m", seed=1)
    assert existing(str(root / "m")).identity != first.identity
    begun = Origin(name="tiny", config={"model_type": "llama"})
    assert begun.identity == begun.model_dump_json(exclude={"fingerprint"}), (
        "runs that exist keep their names"
    )


def test_a_choice_by_other_models_of_the_same_names_is_not_gone_on_with(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    record = {"entity": "iron", "sentence": "We know iron.", "images": ["a.png"]}
    table.write_text(json.dumps(record) + "\n")
    folder, source = SelectionFolder(Store.open(tmp_path / "out")), Store.open(table)
    settings = SelectionSettings(clip="clip")
    first = folder.begin(source, settings, models={"clip": "0"})
    assert folder.begin(source, settings, models={"clip": "0"}) == first
    with pytest.raises(
        StorageError, match="models of the same names whose files were others; add --overwrite"
    ):
        folder.begin(source, settings, models={"clip": "1"})
    assert folder.begin(source, settings, overwrite=True, models={"clip": "1"}).models == {"clip": "1"}
