"""The index: its vectors, its bundle, and the same bundle from Ray's actors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, BertModel

from engine.catalogue.opening import open_catalogue
from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import BundleError, UserError
from engine.methods import METHODS, method
from engine.models.fingerprint import model_fingerprint
from engine.models.hub import EMBEDDED
from engine.models.seed_tokens import has_seed_tokens, with_seed_tokens
from engine.models.text import TextEncoder
from engine.query import Query
from engine.retrieval import code_building
from engine.retrieval.entity_sentences import EntitySentences
from engine.retrieval.index import VectorIndex, unit, views_of
from engine.retrieval.mention_states import MentionStates
from engine.retrieval.opening import open_index
from engine.retrieval.shards import ShardedIndex
from engine.retrieval.within_entities import Scatter, within_map
from engine.stages.base import Pipeline
from engine.stages.cgexpan import CGExpan
from engine.storage.bundle import Bundle
from engine.storage.parts import write_pointer
from engine.storage.workspace import Workspace
from engine.training import masked_lm
from engine.training.input_rows import InputRows
from jobs import build_index
from jobs.steps import masked_lm as steps_of_masked_lm
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.index_building import build
from jobs.steps.mask_view import sentence_map
from jobs.steps.masked_lm import MaskedLmUse, mean_states
from jobs.steps.masked_lm import masked_lm as masked_lm_of
from jobs.steps.model_input import preprocess
from jobs.steps.view_builder import BuiltViews
from jobs.workers.encoder import CONTRAST_JOB
from jobs.workers.executor import LocalExecutor
from serve.operations import bundles
from tests.jobs.conftest import METALS, import_metals, prepare_metals
from tests.support.commands import run_command
from tests.support.encoders import letter_tokenizer, tiny_model, write_encoder, write_masked_lm
from tests.support.plain_views import plain_centred, plain_joint


def vectors(bundle: Bundle, view: str) -> np.ndarray:
    return VectorIndex.read(bundle.path(f"index/{view}.faiss")).vectors_ND


def plain_means(workspace: Workspace, encoder: BertModel) -> np.ndarray:
    """Return the unit means of the unit states at the masks of every entity's sentences, [N, D]."""
    rows = InputRows.read(open_inputs(workspace).parts[0].path)
    states = []
    for row in range(len(rows)):
        ids = torch.from_numpy(rows.ids[rows.offsets[row] : rows.offsets[row + 1]].astype(np.int64))
        with torch.no_grad():
            states.append(encoder(ids[None]).last_hidden_state[0, int(rows.mask_index[row])].numpy())
    units = unit(np.stack(states))
    return unit(np.stack([units[rows.entity_id == e].mean(axis=0) for e in range(len(METALS))]))


def test_vectors_are_means_of_the_plain_states_at_the_mask(prepared: Path) -> None:
    workspace = Workspace.open(prepared)
    build(workspace, untrained=True, executor=LocalExecutor())
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
    first = build(workspace, untrained=True, executor=LocalExecutor())
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
    # A language model, images, a trained head, another training, contexts that some entities share and others
    # do not.
    other = (
        "contrast",
        "genexpan",
        "lm-",
        "multi",
        "probexpan",
        "setexpan",
        "case",
        "cgexpan",
        "chat",
        "composed",
        "types",
    )
    retrieving = {n: p for n, p in METHODS.items() if not any(word in n for word in other)}
    for name, pipeline in retrieving.items():
        (answer,) = pipeline.open(bundle)([Query(name, (0,), (1,))])
        assert set(answer.ranking.ids) <= {2, 3, 4, 5}
        assert len(answer.ranking) >= 3, name


def test_codes_are_made_measured_and_noted(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(prepared)
    words = ("--workspace", prepared, "--untrained", "--index", "ivf-sq8")
    assert run_command(build_index.main, *words) == 0
    bundle = Bundle.open(workspace)
    assert bundle.manifest.settings["index"] == {"asked": "ivf-sq8", "codes": {}}
    assert "view 'joint': 6 entities have a vector, so it is searched exactly" in capsys.readouterr().err
    assert isinstance(open_index(bundle, "joint"), VectorIndex)
    monkeypatch.setattr(code_building, "MIN_ENTITIES", 1)
    assert run_command(build_index.main, *words) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"view 'joint': ivf-sq8, 0 MiB of codes, .* recall@200 1\.000, 1\.000 with hubness", said
    )
    assert re.search(r"view 'mask': .* recall@200 1\.000 on 3 queries", said), "it has no hubness"
    coded = Bundle.open(workspace)
    noted = coded.manifest.settings["index"]["codes"]
    assert set(noted) == set(coded.manifest.settings["views"])
    assert noted["joint"]["recall_hubness"] == 1
    assert "index/joint.codes" in coded.manifest.files
    assert isinstance(open_index(coded, "joint"), ShardedIndex)
    before, after = (method("default").open(one)([Query("q", (0,), (1,))]) for one in (bundle, coded))
    assert before[0].ranking.ids.tolist() == after[0].ranking.ids.tolist()
    assert views_of(coded.manifest) == views_of(bundle.manifest)
    assert run_command(bundles.main, "--workspace", prepared) == 0
    assert "joint (ivf-sq8, recall 1.000)" in capsys.readouterr().out


def test_other_inputs_than_the_latest_can_be_encoded(tmp_path: Path) -> None:
    """Descriptions in front at inference alone, or in training alone."""
    write_encoder(tmp_path / "m")
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    workspace, model = Workspace.open(tmp_path / "w"), str(tmp_path / "m")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(model)), max_length=64)
    keys, found = [], []
    for told in (True, False):
        wanted = settings.model_copy(update={"descriptions": told})
        keys.append(preprocess(workspace, model, wanted, LocalExecutor()).key)
    for key in (*keys, None):
        manifest = build(workspace, untrained=True, executor=LocalExecutor(), inputs=key)
        assert manifest.settings["inputs"] == (key or keys[-1])
        found.append(vectors(Bundle.open(workspace), "mask"))
    np.testing.assert_array_equal(found[1], found[2])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with pytest.raises(UserError, match=r"mask-L1: no such model input; run"):
        build(workspace, untrained=True, executor=LocalExecutor(), inputs="mask-L1")


def test_the_contrastive_training_has_a_view_and_its_sentences_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(tmp_path / "m")
    workspace, model, inputs_key = prepare_metals(tmp_path)
    write_contrast_run(workspace, model, inputs_key, seed_text=False)
    unread = _built(workspace)
    assert not any(name.startswith("contrast/") for name in unread.manifest.files)
    with pytest.raises(
        BundleError, match=r"train-encoder --contrast newest --seed-text`, and `seedset build"
    ):
        method("retexpan+contrast-conditioned").open(unread)
    write_contrast_run(workspace, model, inputs_key, seed_text=True)
    bundle = _built(workspace)
    encoder = TextEncoder.load(str(bundle.path("contrast") / "encoder"))
    assert has_seed_tokens(load_tokenizer(bundle.path("contrast") / "encoder"))
    rows = InputRows.read(open_inputs(workspace).parts[0].path)
    ids, lengths = rows.padded_ids(np.arange(len(rows)))
    with torch.no_grad():
        states = encoder.states(ids, lengths)[torch.arange(len(rows)), torch.from_numpy(rows.mask_index)]
    found = states.numpy()
    plain = np.stack([found[rows.entity_id == e].mean(axis=0) for e in range(len(METALS))])
    cache = frozen_cache(workspace, open_inputs(workspace), model, executor=LocalExecutor())
    run = str(Path(workspace.runs(CONTRAST_JOB).path) / "one")
    told = sentence_map(run + "/encoder", cache, LocalExecutor())
    assert told is not None
    expected = within_map([Scatter.of(rows.entity_id, found)])
    assert expected is not None
    whitened = unit(plain @ expected)
    for one in (bundle, unread):
        assert ((vectors(one, "contrast") * unit(plain)).sum(axis=1) > 0.999).all()
        read = unit(vectors(one, "contrast") @ told)
        assert ((read * whitened).sum(axis=1) > 0.99).all()
        parts = [
            plain_centred(read),
            plain_centred(vectors(one, "description")),
            vectors(one, "lexical"),
        ]
        np.testing.assert_allclose(vectors(one, "joint"), plain_joint(parts), atol=1e-5)
    assert np.abs(vectors(bundle, "contrast") - vectors(bundle, "mask")).max() > 0.1
    sentences = EntitySentences.read(bundle.path("contrast") / "sentences")
    assert sentences.counts(np.arange(len(METALS), dtype=np.int32)).tolist() == [10] * len(METALS)
    for name in ("retexpan+contrast-conditioned", "retexpan+contrast", "retexpan+contrast-everything"):
        (answer,) = method(name).open(bundle)([Query(name, (0,), (1,))])
        assert set(answer.ranking.ids) == {2, 3, 4, 5}, name
    # Other inputs than the training's: no view, and a word on it.
    capsys.readouterr()
    other = InputSettings(tokenizer=fingerprint(load_tokenizer(model)), max_length=32)
    preprocess(workspace, model, other, LocalExecutor())
    assert not any(name.startswith("contrast/") for name in _built(workspace).manifest.files)
    assert "run `seedset train-encoder --contrast newest` again on these" in capsys.readouterr().err


def _built(workspace: Workspace) -> Bundle:
    build(workspace, untrained=True, executor=LocalExecutor())
    return Bundle.open(workspace)


def write_contrast_run(workspace: Workspace, model: str, inputs: str, seed_text: bool) -> None:
    """Write what a finished contrastive training leaves: a last layer of its own, and the two tokens."""
    run = Path(workspace.runs(CONTRAST_JOB).path) / "one"
    encoder, tokenizer = with_seed_tokens(TextEncoder.load(model), load_tokenizer(model))
    torch.manual_seed(1)
    for parameter in encoder.last.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    encoder.save(run / "encoder")
    tokenizer.save_pretrained(run / "encoder")
    settings = {"ultra_fine": {"seed_text": seed_text}}
    about = {"model": model, "inputs": inputs, "model_fingerprint": model_fingerprint(model)}
    (run / "summary.json").write_text(json.dumps({**about, "settings": settings}))
    write_pointer(workspace.runs(CONTRAST_JOB), "one")


ASKED = MaskedLmUse(class_names=True, sentences=50)


def test_an_adapted_encoder_is_half_of_the_mask_views_place(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "LEAST", 1)
    workspace = Workspace.open(prepared)
    both = MaskedLmUse(adapt=True, class_names=True, sentences=40)
    build(workspace, untrained=True, executor=LocalExecutor(), masked_lm=both)
    bundle = Bundle.open(workspace)
    views = {
        name: VectorIndex.read(bundle.path(f"index/{name}.faiss")).vectors_ND
        for name in ("adapted", "mask", "description", "lexical", "joint")
    }
    means = MentionStates.read(bundle.path("probing/mentions")).means()
    np.testing.assert_allclose(views["adapted"], plain_centred(means), atol=1e-5)
    half = [np.sqrt(0.5) * one for one in (plain_centred(views["mask"]), views["adapted"])]
    texts = [plain_centred(views["description"]), views["lexical"]]
    np.testing.assert_allclose(views["joint"], plain_joint([*half, *texts]), atol=1e-6)
    # Without the states of all mentions the means are the same, but not to the last bit.
    cache = frozen_cache(workspace, open_inputs(workspace), EMBEDDED, executor=LocalExecutor())
    model = masked_lm_of(workspace, EMBEDDED, both)
    np.testing.assert_allclose(mean_states(cache, model, len(METALS), LocalExecutor()), means, atol=1e-6)
    alone = MaskedLmUse(adapt=True, sentences=40)
    manifest = build(workspace, untrained=True, executor=LocalExecutor(), masked_lm=alone)
    assert "adapted" in manifest.settings["views"]
    assert not any(name.startswith("probing/") for name in manifest.files)


def test_what_cgexpan_asks_is_made_where_wanted_and_the_model_is_kept(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "LEAST", 500)
    workspace = Workspace.open(prepared)
    without = build(workspace, untrained=True, executor=LocalExecutor())
    assert not any(name.startswith("probing/") for name in without.files)
    first, second = (
        build(workspace, untrained=True, executor=LocalExecutor(), masked_lm=ASKED) for _ in range(2)
    )
    assert first.id == second.id
    said = capsys.readouterr().err
    assert said.count("nats a mask") == said.count("masked language model: kept from before") == 1
    bundle = Bundle.open(workspace)
    mentions = MentionStates.read(bundle.path("probing/mentions"))
    assert mentions.counts_N.tolist() == [10] * len(METALS)
    model = BertForMaskedLM.from_pretrained(bundle.path("probing/model")).eval()
    np.testing.assert_allclose(
        (mentions.means() * plain_means(workspace, model.bert)).sum(axis=1), 1, atol=1e-2
    )
    (answer,) = Pipeline((CGExpan(draws=1, iterations=1),)).open(bundle)([Query("metals", (0,), (1,))])
    assert answer.degraded == (), "the trained model names a class"
    assert set(answer.ranking.ids.tolist()) == {2, 3, 4, 5}


def test_an_encoder_with_its_own_head_is_asked_as_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_masked_lm(tmp_path / "m")
    workspace, model, _ = prepare_metals(tmp_path)
    build(workspace, untrained=True, executor=LocalExecutor(), masked_lm=ASKED)
    assert "masked language model" not in capsys.readouterr().err, "nothing is trained"
    bundle = Bundle.open(workspace)
    asked, came = (BertForMaskedLM.from_pretrained(f) for f in (bundle.path("probing/model"), model))
    torch.testing.assert_close(asked.state_dict(), came.state_dict())
    means = MentionStates.read(bundle.path("probing/mentions")).means()
    np.testing.assert_allclose((means * plain_means(workspace, came.bert)).sum(axis=1), 1, atol=1e-2)


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_with_its_own_head_is_adapted_from_it(
    tied: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_masked_lm(tmp_path / "m", tied=tied)
    monkeypatch.setattr(masked_lm, "LEAST", 200)
    trained: list[BertForMaskedLM] = []

    def train(model: BertForMaskedLM, *given: Any) -> list[float]:
        trained.append(model)
        return masked_lm.train(model, *given)

    monkeypatch.setattr(steps_of_masked_lm, "train", train)
    workspace, came, _ = prepare_metals(tmp_path)
    use = MaskedLmUse(adapt=True, class_names=True, sentences=40)
    for _ in range(2):
        build(workspace, untrained=True, executor=LocalExecutor(), masked_lm=use)
    said = capsys.readouterr().err
    assert said.count("nats a mask") == said.count("masked language model: kept from before") == 1
    (model,) = trained
    bundle = Bundle.open(workspace)
    asked = BertForMaskedLM.from_pretrained(bundle.path("probing/model"))
    torch.testing.assert_close(asked.state_dict(), model.state_dict())
    weight = "cls.predictions.transform.dense.weight"
    moved = asked.state_dict()[weight] - BertForMaskedLM.from_pretrained(came).state_dict()[weight]
    assert 0 < moved.abs().max() < 0.05, "it went on from the head that it came with"
    means = MentionStates.read(bundle.path("probing/mentions")).means()
    np.testing.assert_allclose((means * plain_means(workspace, asked.bert)).sum(axis=1), 1, atol=1e-2)
    assert vectors(bundle, "adapted").shape == means.shape


def test_an_encoder_of_another_family_is_not_adapted(tmp_path: Path) -> None:
    tiny_model("distilbert").save_pretrained(tmp_path / "m")
    letter_tokenizer().save_pretrained(tmp_path / "m")
    workspace, _, _ = prepare_metals(tmp_path)
    with pytest.raises(UserError, match=r"--adapt: the encoder .* is of the family distilbert"):
        build(workspace, untrained=True, executor=LocalExecutor(), masked_lm=MaskedLmUse(adapt=True))


def test_vectors_that_are_no_numbers_are_not_published(tmp_path: Path) -> None:
    broken = np.array([[1, 0], [np.nan, 0], [0, np.inf]], np.float32)
    made = BuiltViews(tmp_path)
    made.add("lexical", np.eye(3, dtype=np.float32))
    with pytest.raises(UserError, match=r"view 'mask': the vectors of 2 of 3 entities are no finite numbers"):
        made.add("mask", broken)
    assert list(made.views) == ["lexical"]
