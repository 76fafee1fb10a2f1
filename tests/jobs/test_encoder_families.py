"""An encoder of another family than BERT's, with settings of its own, from sentences to vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import UserError
from engine.models.text import TextEncoder
from engine.retrieval.index import VectorIndex, unit
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.input_rows import InputRows
from engine.training.text import EncoderSettings
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.index_building import build
from jobs.steps.model_input import preprocess
from jobs.workers.executor import LocalExecutor
from tests.jobs.conftest import METALS, import_metals
from tests.support.encoders import letter_tokenizer, tiny_model, write_encoder

SETTINGS = EncoderSettings(epochs=1, batch_size=30, learning_rate=1e-2, precision="float32")


def write_modernbert(folder: Path) -> str:
    """Write one whose texts are read at their first token, and no further than eight."""
    tiny_model("modernbert").save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [{"idx": i, "path": p, "type": f"sentence_transformers.{k}"} for i, (p, k) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    return str(folder)


def vectors(bundle: Bundle, view: str) -> np.ndarray:
    return VectorIndex.read(bundle.path(f"index/{view}.faiss")).vectors_ND


@pytest.mark.usefixtures("alone")
def test_a_modernbert_is_trained_and_makes_the_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    workspace, model = Workspace.open(tmp_path / "w"), write_modernbert(tmp_path / "model")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(model)), max_length=64)
    preprocess(workspace, model, settings, LocalExecutor())
    assert train(workspace, SETTINGS, dtype="float32")["steps"] == 2
    trained = trained_encoder(workspace)
    assert trained is not None
    before, after = TextEncoder.load(model), TextEncoder.load(trained.folder.path)
    assert before.lower_fingerprint() == after.lower_fingerprint()
    changed = [
        not torch.equal(a, b) for a, b in zip(before.last.parameters(), after.last.parameters(), strict=True)
    ]
    assert all(changed), "the last layer and the norm behind it have learnt"

    build(workspace, executor=LocalExecutor())
    bundle = Bundle.open(workspace)
    rows = InputRows.read(open_inputs(workspace).parts[0].path)
    ids, lengths = rows.padded_ids(np.arange(len(rows)))
    told = letter_tokenizer()([f"{name} is a metal." for name in METALS[:-1]], truncation=True, max_length=8)
    with torch.no_grad():
        at_mask = after.states(ids, lengths)[torch.arange(len(rows)), torch.from_numpy(rows.mask_index)]
        first = before.states(torch.tensor(told["input_ids"]), torch.full((5,), 8))[:, 0]
    means = np.stack([at_mask[rows.entity_id == e].mean(dim=0).numpy() for e in range(len(METALS))])
    # The cache that the index reads is bfloat16, and so are descriptions where that is fast.
    assert ((vectors(bundle, "mask") * unit(means)).sum(axis=1) > 0.999).all()
    assert ((vectors(bundle, "description")[:-1] * unit(first.numpy())).sum(axis=1) > 0.99).all()
    assert "5 descriptions have more than the 8 tokens that are read" in capsys.readouterr().err


def test_an_encoder_with_another_tokenizer_is_refused(prepared: Path, tmp_path: Path) -> None:
    write_encoder(tmp_path)
    workspace = Workspace.open(prepared)
    with pytest.raises(UserError, match=r"made with the tokenizer of 'embedded'.*leave --model out"):
        frozen_cache(workspace, open_inputs(workspace), str(tmp_path), executor=LocalExecutor())
