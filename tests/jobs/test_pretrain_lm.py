"""Pre-training: what it leaves behind, and a run on real Ray workers that is stopped and goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Regex, normalizers

from engine.corpus.blocks.format import block_parts, open_blocks
from engine.corpus.blocks.settings import BlockSettings
from engine.errors import UserError
from engine.generation.artifacts import open_artifacts
from engine.generation.lists import list_lines, neighbour_lists
from engine.generation.model import LanguageModel
from engine.generation.tokenizers import fingerprint, load_tokenizer
from engine.generation.trie import Trie
from engine.models.hub import EMBEDDED
from engine.retrieval.index import unit
from engine.retrieval.views import hubness
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import open_model
from engine.training.settings import LmSettings
from jobs import pretrain_lm
from jobs.steps.lm_blocks import corpus_tokenizer, make_blocks, neighbours_of
from jobs.steps.lm_pretraining import Start, pretrain, start
from jobs.workers.executor import LocalExecutor
from tests.jobs.conftest import METALS, import_metals
from tests.support.bundles import publish_vectors, write_entities
from tests.support.commands import run_command
from tests.support.train_workers import press_ctrl_c

EPOCHS = 6

TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a corpus, and a bundle of its entities that holds vectors."""
    folder = tmp_path_factory.mktemp("metals")
    import_metals(str(folder / "w"), folder / "raw")
    workspace = Workspace.open(folder / "w")
    vectors = np.eye(len(METALS))
    views = {"mask": vectors, "joint": vectors}
    publish_vectors(workspace, METALS, views, {"joint": np.zeros(len(METALS))})
    published = Bundle.open(workspace).path("entities.parquet")
    workspace.entities.write_bytes(published.read_bytes())  # the same entities, byte by byte
    return folder / "w"


@pytest.mark.usefixtures("alone")
def test_a_run_leaves_a_model_a_bundle_and_its_curves_and_is_not_done_twice(
    place: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(place)
    words: tuple[object, ...] = ("--workspace", place, "--init-from-config", config, "--vocab-size", 300)
    words += ("--block", 32)
    words += (
        "--epochs",
        EPOCHS,
        "--held-out",
        0.1,
        "--neighbor-lists",
        3,
        "--precision",
        "float32",
        "--seed",
        6,
    )
    words += ("--learning-rate", 1e-3)
    assert run_command(pretrain_lm.main, *words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    bundle = Bundle.open(workspace)
    assert f"bundle={bundle.id}" in last
    folder = Path(workspace.runs("pretrain_lm").path) / bundle.manifest.settings["lm"]["run"]
    summary = json.loads((folder / "summary.json").read_bytes())
    _check_run(workspace, summary)
    _check_bundle(bundle, summary)
    _check_events(folder, summary)
    texts = BlockSettings(
        tokenizer="",
        vocab_size=0,
        block=32,
        held_out=0.1,
        neighbor_lists=3,
        neighbours=neighbours_of(bundle, "mask"),
        seed=6,
    )
    chosen = pretrain_lm.FROM_SCRATCH.model_dump() | {"epochs": EPOCHS, "learning_rate": 1e-3}
    settings = LmSettings.model_validate(chosen | {"precision": "float32", "seed": 6})
    assert summary["settings"] == settings.model_dump()
    begin = start(workspace, None, str(config), None, 300, texts)
    np.testing.assert_allclose(summary["losses"], _in_one_go(workspace, begin, settings), rtol=1e-4)
    assert run_command(pretrain_lm.main, *words) == 0
    again = capsys.readouterr()
    assert "this run is finished" in again.err
    assert again.out.splitlines()[-1].split(" seconds=")[0] == last.split(" seconds=")[0]
    # The ablation: the same model published as it is, from its own folder.
    base = folder / "lm"
    words = ("--workspace", place, "--model", base, "--block", 32, "--epochs", 0)
    assert run_command(pretrain_lm.main, *words) == 0
    assert "steps=0" in capsys.readouterr().out.splitlines()[-1]
    weights = "model.safetensors"
    assert (Bundle.open(workspace).path("lm") / weights).read_bytes() == (base / weights).read_bytes()


def _check_run(workspace: Workspace, summary: dict[str, Any]) -> None:
    assert summary["steps"] == len(summary["losses"]) == EPOCHS * -(-summary["blocks"] // 16)
    assert summary["perplexity_after"] < summary["perplexity_before"]
    assert len(summary["perplexities"]) == EPOCHS + 1
    blocks = open_blocks(workspace, summary["blocks_key"])
    assert blocks is not None
    *parts, lists = blocks.manifest.parts.values()
    assert sum(part.sentences for part in parts) == 54
    assert (lists.sentences, lists.held_out) == (0, 0)
    assert lists.tokens > 3 * len(METALS) * 8, "a list has eight words and stops at least"
    assert summary["peak_memory_mib"]["process"] > 100
    assert (summary["neighbor_lists"], summary["neighbor_view"]) == (3, "mask")


def _check_bundle(bundle: Bundle, summary: dict[str, Any]) -> None:
    told = bundle.manifest.settings["lm"]
    assert (told["neighbor_lists"], told["neighbor_view"]) == (3, "mask")
    assert bundle.path("index/mask.faiss").is_file(), "the vectors of the bundle before are carried over"
    model = LanguageModel.load(bundle.path("lm"))
    assert model.model.num_parameters() == summary["parameters"]
    trie = Trie.load(bundle.path("trie"))
    (tokens,) = model.encode_after([f" {METALS[2]}.\n"], "and")
    sequence = trie.entity_sequence[2]
    assert trie.tokens[trie.starts[sequence] : trie.starts[sequence + 1]].tolist() == tokens


def _check_events(folder: Path, summary: dict[str, Any], epochs: int = EPOCHS) -> None:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = {e.step: e.value for e in events.Scalars("train/loss")}
    steps = range(1, summary["steps"] + 1)
    assert sorted(found) == list(steps)
    np.testing.assert_allclose([found[step] for step in steps], summary["losses"], rtol=1e-4)
    assert len({e.step for e in events.Scalars("heldout/perplexity")}) == epochs


def test_lists_are_made_of_the_view_that_was_asked_for(tmp_path: Path) -> None:
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    workspace = Workspace.open(tmp_path / "w")
    random = np.random.default_rng(0)
    views = {view: random.normal(size=(len(METALS), 5)) for view in ("mask", "joint")}
    penalty: np.ndarray = random.random(len(METALS))
    bundle = publish_vectors(workspace, METALS, views, {"joint": penalty})
    workspace.entities.write_bytes(bundle.path("entities.parquet").read_bytes())
    penalties: dict[str, np.ndarray] = {"joint": penalty, "mask": hubness(unit(views["mask"]))}
    tokenizer = corpus_tokenizer(workspace, 300, BlockSettings(tokenizer="", vocab_size=300))
    loaded = load_tokenizer(tokenizer)
    read = {}
    for view, vectors in views.items():
        texts = BlockSettings(
            tokenizer=fingerprint(loaded),
            vocab_size=len(loaded),
            block=32,
            neighbor_lists=2,
            neighbor_view=view,
            neighbours=neighbours_of(bundle, view),
        )
        blocks = make_blocks(workspace, tokenizer, texts, LocalExecutor())
        assert blocks.manifest.settings.neighbor_view == view
        *_, name = blocks.manifest.parts
        part = np.load(block_parts(workspace, texts).file(name, ".npy").path)
        read[view] = loaded.decode(part.ravel().tolist(), skip_special_tokens=True)
        drawn = neighbour_lists(unit(vectors), (0.6 * penalties[view]).astype(np.float32), 2, texts.seed)
        lines = list(list_lines(METALS, drawn, texts.seed))
        assert all(line.strip() in read[view] for line in lines if " and " in line)
    assert read["mask"] != read["joint"]
    with pytest.raises(UserError, match=r"--neighbor-view maks: bundle .* it has joint, mask \("):
        neighbours_of(bundle, "maks")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
def test_a_run_that_was_stopped_goes_on_with_fewer_workers(
    place: Path, config: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curve, over two lives with two workers and one, is that of a run in this process."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # a report waits for the next check
    workspace = Workspace.open(place)
    begin = start(
        workspace, None, str(config), None, 300, BlockSettings(tokenizer="", vocab_size=0, block=16)
    )
    settings = LmSettings(epochs=60, learning_rate=1e-3, precision="float32", seed=5)
    handler = signal.getsignal(signal.SIGINT)
    press_ctrl_c(Path(workspace.runs("pretrain_lm").path))
    with pytest.raises(KeyboardInterrupt):
        pretrain(workspace, begin, settings, workers=2, checkpoint_seconds=0.2)
    assert signal.getsignal(signal.SIGINT) is handler
    summary, _ = pretrain(workspace, begin, settings, workers=1, checkpoint_seconds=60)
    assert summary["workers"] == 1
    assert 0 < summary["resumed_at"] < summary["steps"]
    np.testing.assert_allclose(summary["losses"], _in_one_go(workspace, begin, settings), rtol=1e-4)
    folder = Path(workspace.runs("pretrain_lm").path) / summary["run"]
    _check_events(folder, summary, epochs=60)  # what the second life did again stands twice


def _in_one_go(workspace: Workspace, begin: Start, settings: LmSettings) -> list[float]:
    blocks = make_blocks(workspace, begin.tokenizer, begin.blocks)
    tokens = blocks.open(load_tokenizer(begin.tokenizer).bos_token_id)
    run = LmTraining(open_model(begin.origin, settings.seed), *tokens, settings)
    for _ in run.run():
        pass
    return run.losses


@pytest.mark.usefixtures("alone")
def test_a_model_that_is_shared_from_the_start_ends_like_one_that_is_whole(place: Path, config: Path) -> None:
    workspace = Workspace.open(place)
    texts = BlockSettings(tokenizer="", vocab_size=0, block=16)
    begin = start(workspace, None, str(config), None, 300, texts)
    settings = LmSettings(epochs=2, learning_rate=1e-3, precision="float32", seed=11)
    summary, manifest = pretrain(workspace, begin, settings, Layout(zero_stage=3))
    np.testing.assert_allclose(summary["losses"], _in_one_go(workspace, begin, settings), rtol=1e-4)
    # That model again, out of its files.
    written = Workspace.open(place).bundles / manifest.id / "lm"
    again = start(workspace, written.path, None, None, 300, texts)
    short = settings.model_copy(update={"epochs": 1})
    summary, _ = pretrain(workspace, again, short, Layout(zero_stage=3))
    np.testing.assert_allclose(summary["losses"], _in_one_go(workspace, again, short), rtol=1e-4)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("keep", [False, True])
def test_adapters_are_published_merged_or_alone_and_generation_reads_either(
    keep: bool, place: Path, config: Path
) -> None:
    workspace = Workspace.open(place)
    texts = BlockSettings(tokenizer="", vocab_size=0, block=16)
    begin = start(workspace, None, str(config), None, 300, texts)
    with pytest.raises(UserError, match="--lora: a new model has nothing to keep"):
        pretrain(workspace, begin, LmSettings(lora=True))
    _, manifest = pretrain(workspace, begin, LmSettings(epochs=0, seed=2))
    base = (workspace.bundles / manifest.id / "lm").path
    begin = start(workspace, base, None, None, 300, texts)
    chosen = {"learning_rate": 1e-2, "precision": "float32", "lora": True, "keep_adapter": keep}
    summary, manifest = pretrain(workspace, begin, LmSettings.model_validate(chosen))
    assert summary["perplexity_after"] < summary["perplexity_before"]
    assert summary["trained_parameters"] < summary["parameters"]
    bundle = Bundle.open(workspace)
    assert bundle.id == manifest.id
    assert ("lm/adapter_config.json" in bundle.manifest.files) == keep
    found = open_artifacts(bundle)
    assert found.model.model.num_parameters() == summary["parameters"] - summary["trained_parameters"]
    ids = found.model.encode("iron, copper")
    hidden = found.model.prefill([ids]).hidden_BD
    original = LanguageModel.load(base)
    assert not np.allclose(found.model.logits(hidden), original.logits(original.prefill([ids]).hidden_BD))


@pytest.mark.usefixtures("alone")
def test_a_plan_shows_memory_and_checkpoints_and_trains_nothing(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--workspace", tmp_path / "none", "--init-from-config", config, "--plan")
    assert run_command(pretrain_lm.main, *words, "--workers", 4, "--zero-stage", 3) == 0
    shown = capsys.readouterr()
    assert "13B" in shown.out
    assert "this run" in shown.out
    assert "less often where writing would take more than 5% of the time" in shown.err
    # 8192 tokens of 32 numbers twice (no tie in this file), and one layer of four squares and three of 48.
    count = 2 * 8192 * 32 + 4 * 32 * 32 + 3 * 32 * 48 + 3 * 32
    assert f"parameters={count} " in shown.out
    assert not (tmp_path / "none").exists()
    assert run_command(pretrain_lm.main, "--workspace", tmp_path, "--plan") == 2
    assert "give either --model" in capsys.readouterr().err


@pytest.mark.usefixtures("alone")
def test_who_has_blocks_with_descriptions_is_told_how_to_go_on_with_them(
    place: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(place)
    texts = BlockSettings(tokenizer="", vocab_size=0, block=24, descriptions=True)
    begin = start(workspace, None, str(config), None, 300, texts)
    described = make_blocks(workspace, begin.tokenizer, begin.blocks)
    assert "--descriptions" not in capsys.readouterr().err
    alone = begin.blocks.model_copy(update={"descriptions": False})
    blocks = make_blocks(workspace, begin.tokenizer, alone)
    assert "--descriptions goes on with the blocks and runs" in capsys.readouterr().err
    assert blocks.manifest.total("descriptions") == 0
    assert blocks.key != described.key
    make_blocks(workspace, begin.tokenizer, alone)
    assert "--descriptions" not in capsys.readouterr().err, "told once"


@pytest.mark.usefixtures("alone")
def test_a_tokenizer_saved_with_a_truncation_makes_blocks(place: Path, config: Path, tmp_path: Path) -> None:
    workspace, texts = Workspace.open(place), BlockSettings(tokenizer="", vocab_size=0, block=20)
    tokenizer = load_tokenizer(start(workspace, None, str(config), None, 300, texts).tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(16)  # the next call, which the checks make, takes it off
    tokenizer.save_pretrained(tmp_path / "cutting")
    begin = start(workspace, None, str(config), str(tmp_path / "cutting"), 300, texts)
    assert make_blocks(workspace, begin.tokenizer, begin.blocks).manifest.total("blocks")


def test_what_would_fail_after_the_training_is_found_before_it(
    place: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, texts = Workspace.open(place), BlockSettings(tokenizer="", vocab_size=0, block=16)
    with pytest.raises(UserError, match=r"^--tokenizer embedded: the tokenizer drops line breaks"):
        start(workspace, None, str(config), EMBEDDED, 300, texts)
    other = Workspace.open(tmp_path / "w")
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    names = ["iron", "Iron", "long " * 60, *METALS[3:]]
    write_entities(Path(other.entities.path), names)
    with pytest.raises(UserError, match=r"entity 2 \('long .* has \d+ tokens.*\(--vocab-size\)"):
        start(other, None, str(config), None, 300, texts)
    write_entities(Path(other.entities.path), [*names[:2], *METALS[2:]])
    tokenizer = load_tokenizer(start(other, None, str(config), None, 300, texts).tokenizer)
    assert "IRON" not in capsys.readouterr().err
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save_pretrained(tmp_path / "lower")
    start(other, None, str(config), str(tmp_path / "lower"), 300, texts)
    said = capsys.readouterr().err
    assert f"writes 2 of {len(METALS)} names like another's ('iron' = 'Iron')" in said
    write_entities(Path(other.entities.path), ["\u4e2d" * (n + 1) for n in range(len(METALS))])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("\u4e2d+"), "x")
    tokenizer.save_pretrained(tmp_path / "lower")
    with pytest.raises(UserError, match="most names cannot be told apart"):
        start(other, None, str(config), str(tmp_path / "lower"), 300, texts)


def test_mistakes_are_named(place: Path, config: Path, tmp_path: Path) -> None:
    workspace, texts = Workspace.open(place), BlockSettings(tokenizer="", vocab_size=0, block=16)
    with pytest.raises(UserError, match="seedset import"):
        start(Workspace.open(tmp_path), None, "tiny", None, 300, texts)
    with pytest.raises(UserError, match="either --model"):
        start(workspace, None, None, None, 300, texts)
    with pytest.raises(UserError, match=r"--block 65.*takes 64"):
        start(workspace, None, str(config), None, 300, texts.model_copy(update={"block": 65}))
