"""Types of a workspace's entities: those of a plain loop over sentences, kept, and told by the catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.catalogue.opening import open_catalogue, open_types
from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.entity_types import MIN_PROBABILITY, EntityTypes
from engine.errors import UserError
from engine.methods import METHODS
from engine.models.fingerprint import model_fingerprint
from engine.query import Query
from engine.retrieval.index import VectorIndex, unit
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.typing.mentions import Mention
from engine.typing.model import TypingModel
from jobs import build_index
from jobs.steps import entity_types
from jobs.steps.entity_types import EntityTypingWorker, PairSums, TypingTask, collected, has_own_types
from jobs.steps.index_building import build
from jobs.steps.model_input import preprocess
from jobs.workers.executor import LocalExecutor
from tests.jobs.conftest import METALS, import_metals
from tests.support.commands import run_command
from tests.support.corpora import jsonl, run_import
from tests.support.encoders import write_encoder
from tests.support.plain_views import plain_centred, plain_joint

LABELS = ["metal", "person", "ore", "noble_metal"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A workspace whose index has types, 4 sentences of each entity, and the typing model's folder."""
    folder = tmp_path_factory.mktemp("typed")
    write_encoder(folder / "encoder")
    model = TypingModel.begin(str(folder / "encoder"), LABELS)
    (folder / "model").mkdir()
    model.save(folder / "model")
    import_metals(str(folder / "w"), folder / "raw")
    workspace, encoder = Workspace.open(folder / "w"), str(folder / "encoder")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(encoder)), max_length=64, max_sentences=4)
    preprocess(workspace, encoder, settings, LocalExecutor())
    build(workspace, untrained=True, executor=LocalExecutor(), types=str(folder / "model"))
    return workspace, str(folder / "model")


def test_types_and_view_are_those_of_a_plain_loop(made: tuple[Workspace, str]) -> None:
    workspace, folder = made
    model, bundle = TypingModel.load(folder), Bundle.open(workspace)
    mentions = [row for part in workspace.mentions() for row in pq.read_table(part.path).to_pylist()]
    drawn = np.concatenate(
        [pq.read_table(part.path)["row"].to_numpy() for part in open_inputs(workspace).parts]
    )
    assert len(drawn) == 4 * len(METALS)
    sums, total = np.zeros((len(METALS), len(LABELS))), np.zeros((len(METALS), 0))
    for place in drawn.tolist():
        row = mentions[place]
        text, start, end = row["sentence"], row["start"], row["end"]
        states, scores = model.states_and_scores(
            [Mention(text[:start].rstrip(), text[start:end], text[end:].lstrip())]
        )
        sure = 1 / (1 + np.exp(-scores[0]))
        sums[row["entity_id"]] += np.where(sure >= MIN_PROBABILITY, sure, 0) / 4
        total = total if total.size else np.zeros((len(METALS), states.shape[1]))
        total[row["entity_id"]] += states[0].astype(np.float16)
    types = open_types(bundle)
    assert sorted(types.names) == sorted(LABELS)
    order = [types.names.index(label) for label in LABELS]
    np.testing.assert_allclose(types.rows(range(len(METALS)))[:, order], sums, rtol=2e-3)  # bfloat16
    views = {
        name: VectorIndex.read(bundle.path(f"index/{name}.faiss")).vectors_ND
        for name in ("types", "mask", "description", "lexical", "joint")
    }
    np.testing.assert_allclose(views["types"], plain_centred(unit((total / 4).astype(np.float32))), atol=2e-3)
    texts = [plain_centred(views["mask"]), plain_centred(views["description"]), views["lexical"]]
    np.testing.assert_allclose(views["joint"], plain_joint([*texts, 0.5 * views["types"]]), atol=1e-6)


def test_they_are_an_attribute_a_method_and_kept(
    made: tuple[Workspace, str], capsys: pytest.CaptureFixture[str], alone: None
) -> None:
    workspace, folder = made
    bundle = Bundle.open(workspace)
    types, catalogue = open_types(bundle), open_catalogue(bundle)
    held = [name for name, _ in types.of(0)]
    assert held, "a random model holds something by chance, for this seed"
    assert catalogue.attributes_of(0) == {"type": held}
    assert 0 in catalogue.matching((("type", (held[0],)),))
    (answer,) = METHODS["retexpan+types"].open(bundle)([Query("q", (0, 1), (2,))])
    assert sorted(answer.ranking.ids) == [3, 4, 5]
    assert np.isfinite(answer.ranking.evidence["types"]).all()
    arguments = ("--workspace", workspace.root.path, "--untrained", "--types", folder)
    assert run_command(build_index.main, *arguments) == 0
    shown = capsys.readouterr()
    assert "parts are there already and are kept" in shown.err
    assert f"bundle={bundle.id}" in shown.out, "the same bytes"


def test_without_types_the_next_index_has_none(made: tuple[Workspace, str]) -> None:
    workspace, _ = made
    manifest = build(workspace, untrained=True, executor=LocalExecutor())
    assert not {"types.parquet", "typing/labels.json"} & set(manifest.files)
    assert "types" not in manifest.settings["views"]
    assert "types" not in manifest.settings, "a refresh makes what the manifest says"
    assert open_catalogue(Bundle.open(workspace)).attributes_of(0) == {}


def test_a_part_without_sentences_has_no_types(made: tuple[Workspace, str]) -> None:
    workspace, folder = made
    fingerprint = model_fingerprint(folder)
    EntityTypingWorker(workspace.root.uri, folder, fingerprint)(TypingTask("none", 0, np.zeros(0, np.int64)))
    part = workspace.cache(f"types-{fingerprint}") / "part-none.parquet"
    types, view = collected([part], LABELS, 2)
    assert [types.of(e, 0) for e in range(2)] == [[], []]
    assert not view.any()


@pytest.mark.parametrize("waiting", [0, 5, 1000])
def test_sums_of_parts_are_those_of_all_together(monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr(entity_types, "PAIRS", waiting)
    random, sums = np.random.default_rng(0), PairSums(4)
    parts = [(random.integers(0, 3, n), random.integers(0, 4, n), random.random(n)) for n in (6, 0, 9, 2)]
    for entities, types, probabilities in parts:
        sums.add(entities, types.astype(np.int32), probabilities.astype(np.float32))
    together = [np.concatenate(column) for column in zip(*parts, strict=True)]
    plain = EntityTypes.collect("abcd", together[0], together[1], together[2], np.array([4, 3, 0]))
    found = EntityTypes.collect("abcd", *sums.total(), np.array([4, 3, 0]))
    for entity in range(3):
        for ours, expected in zip(found.of(entity, 0), plain.of(entity, 0), strict=True):
            assert (ours[0], ours[1]) == (expected[0], pytest.approx(expected[1], abs=1e-6))


@pytest.mark.parametrize(("attribute", "own"), [("type", True), ("kind", False)])
def test_an_attribute_of_the_same_name_is_seen(tmp_path: Path, attribute: str, own: bool) -> None:
    entities = [{"name": "iron", "attributes": {attribute: "metal"}}, {"name": "Oslo"}]
    source = tmp_path / "raw"
    jsonl(source / "entities.jsonl", entities)
    jsonl(source / "sentences.jsonl", [{"entity": "iron", "sentence": "We melt iron."}])
    run_import(str(tmp_path / "w"), source, "jsonl")
    assert has_own_types(Workspace.open(tmp_path / "w")) == own


@pytest.mark.parametrize("model", ["newest", "encoder"])
def test_what_is_no_typing_model_is_refused_before_work(
    made: tuple[Workspace, str], model: str, tmp_path: Path
) -> None:
    workspace, folder = made
    named = model if model == "newest" else str(Path(folder).parent / model)
    wanted = "no typing model here yet" if model == "newest" else "no labels.json in it"
    with pytest.raises(UserError, match=wanted):
        build(workspace, untrained=True, executor=LocalExecutor(), types=named)
