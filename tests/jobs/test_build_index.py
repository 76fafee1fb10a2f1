"""The index on real Ray actors: its vectors, its bundle, and the whole way in a bucket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.catalogue import open_catalogue
from engine.corpus.inputs.format import open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.methods import METHODS
from engine.models.hub import EMBEDDED
from engine.models.text import TextEncoder
from engine.query import Query
from engine.retrieval.index import VectorIndex, unit
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.cache import InputRows
from jobs import build_index
from jobs.build_index import build
from tests.jobs.conftest import METALS, import_metals
from tests.support.commands import run_command

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def vectors(bundle: Bundle, view: str) -> np.ndarray:
    return VectorIndex.read(bundle.path(f"index/{view}.faiss")).vectors_ND


def test_vectors_are_means_of_the_plain_states_at_the_mask(prepared: Path) -> None:
    workspace = Workspace.open(prepared)
    build(workspace, untrained=True)
    found = vectors(Bundle.open(workspace), "mask")
    rows = InputRows.read(open_inputs(workspace).parts[0].path)
    encoder = TextEncoder.load(EMBEDDED)
    ids, lengths = rows.padded_ids(np.arange(len(rows)))
    with torch.no_grad():
        states = encoder.states(ids, lengths)[torch.arange(len(rows)), torch.from_numpy(rows.mask_index)]
    plain = np.stack([states[rows.entity_id == e].mean(dim=0).numpy() for e in range(len(METALS))])
    # The cached states are bfloat16: a cosine may differ in the third place.
    assert ((found * unit(plain)).sum(axis=1) > 0.999).all()


def test_a_bundle_holds_all_that_retrieval_reads_and_is_the_same_again(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(prepared)
    first = build(workspace, untrained=True)
    assert run_command(build_index.main, "--workspace", prepared, "--untrained") == 0
    assert f"bundle={first.id}" in capsys.readouterr().out.splitlines()[-1]
    bundle = Bundle.open(workspace)
    assert bundle.vocabulary.names == METALS
    shown = open_catalogue(bundle).sentences(range(len(METALS)), 8)
    assert {e: {s.text[s.start : s.end] for s in own} for e, own in shown.items()} == {
        e: {name} for e, name in enumerate(METALS)
    }
    encoder = TextEncoder.load(str(bundle.path("encoder")))
    assert encoder.dim == vectors(bundle, "mask").shape[1]
    assert (
        fingerprint(load_tokenizer(bundle.path("encoder")))
        == open_inputs(workspace).manifest.settings.tokenizer
    )
    described = vectors(bundle, "description").any(axis=1)
    assert described.tolist() == [True] * 5 + [False], "silver has no description"
    other = ("genexpan", "lm-", "multi")  # a language model, images
    retrieving = {n: p for n, p in METHODS.items() if not any(word in n for word in other)}
    for name, pipeline in retrieving.items():
        (answer,) = pipeline.open(bundle)([Query(name, (0,), (1,))])
        assert set(answer.ranking.ids) <= {2, 3, 4, 5}
        assert len(answer.ranking) >= 3, name


CHAIN = """
from cluster.session import session
from jobs import build_index, preprocess, train_encoder
from tests.support.commands import run_command

with session():  # one start of Ray for all three
    for main, *words in (
        (preprocess.main,),
        (train_encoder.main, "--epochs", 1, "--batch-size", 32),
        (build_index.main,),
    ):
        if status := run_command(main, "--workspace", "{workspace}", *words):
            raise SystemExit(status)
"""


def test_the_whole_way_runs_in_a_bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As commands, on a Ray of their own: its workers must get the bucket's address and keys."""
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    import_metals(f"{s3}/w", tmp_path / "raw")
    chain = [sys.executable, "-c", CHAIN.format(workspace=f"{s3}/w")]
    done = subprocess.run(chain, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    workspace = Workspace.open(f"{s3}/w")
    bundle = Bundle.open(workspace)
    trained = bundle.manifest.settings["trained"]
    (answer,) = METHODS["default"].open(bundle)([Query("q", (0, 1), (2,))])
    assert sorted(answer.ranking.ids) == [3, 4, 5]
    events = (workspace.runs("train_encoder") / trained / "tensorboard").files()
    assert len(events) == 1
