"""Training on two processes without Ray: the curve of one, and checkpoints that either goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from tests.support.encoder_workers import train_contrast, train_encoder, train_multimodal
from tests.support.encoders import write_encoder
from tests.support.lm_workers import ADAPTERS, DATA, GPT2, STOP, TrainingResult, seen, train, worker
from tests.support.processes import run_processes
from tests.support.typing_workers import ENCODER, MENTIONS, SETTINGS, train_typing

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def alone(folder: Path) -> TrainingResult:
    return train(1, save=folder / "alone")


@pytest.fixture(scope="module")
def two(alone: TrainingResult, folder: Path) -> list[dict[str, TrainingResult]]:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(folder / "model", max_shard_size="30KB")
    assert len(list((folder / "model").glob("*.safetensors"))) > 2
    write_encoder(folder / ENCODER)
    run_processes(worker, 2, 2, folder)
    return [json.loads((folder / f"worker-{rank}.json").read_text()) for rank in range(2)]


def assert_same_curve(found: TrainingResult, expected: TrainingResult) -> None:
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5)
    np.testing.assert_allclose(found["perplexities"], expected["perplexities"], rtol=1e-4)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_workers_have_the_curve_of_one(stage: int, two: list, alone: TrainingResult) -> None:
    runs = [outcomes[f"stage {stage}"] for outcomes in two]
    for run in runs:
        assert_same_curve(run, alone)
    for epoch in range(2):
        begin = epoch * STEPS_PER_EPOCH
        assert seen(runs, begin, begin + STEPS_PER_EPOCH) == list(range(len(DATA)))


@pytest.mark.parametrize("stage", [1, 3])
def test_two_workers_go_on_where_one_was(stage: int, two: list, alone: TrainingResult) -> None:
    runs = [outcomes[f"resumed at {stage}"] for outcomes in two]
    assert_same_curve(runs[0], alone)
    assert_each_block_once([alone], runs)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3), (3, 1)])
def test_one_worker_goes_on_where_two_were(
    before: int, after: int, two: list, alone: TrainingResult, folder: Path
) -> None:
    resumed = train(after, resume=folder / f"stage {before}")
    assert_same_curve(resumed, alone)
    assert_each_block_once([outcomes[f"stage {before}"] for outcomes in two], [resumed])


@pytest.mark.parametrize("way", ["begun shared", "read shared", "resumed shared"])
def test_a_model_that_no_worker_holds_whole_has_the_curve_of_one(
    way: str, two: list, alone: TrainingResult
) -> None:
    for outcomes in two:
        assert_same_curve(outcomes[way], alone)


def test_workers_write_a_checkpoint_together(two: list, folder: Path) -> None:
    """Each writes about half of it, and its state says what there is of both."""
    written = {path.name: path.stat().st_size for path in (folder / "shared").glob("*.safetensors")}
    assert {name.split("-")[1] for name in written} == {"00000", "00001"}
    assert 0.8 < written["shard-00000-00000.safetensors"] / written["shard-00001-00000.safetensors"] < 1.25
    assert json.loads((folder / "shared" / "state.json").read_text())["files"] == written


def test_narrow_weights_follow_the_curve_and_are_resumed_from_float32(
    two: list, alone: TrainingResult
) -> None:
    whole, resumed = two[0]["bfloat16"], two[0]["resumed bfloat16"]
    np.testing.assert_allclose(whole["losses"], alone["losses"], rtol=2e-3)
    assert whole["losses"] != alone["losses"]
    np.testing.assert_allclose(resumed["losses"], whole["losses"], rtol=1e-5)


def test_adapters_of_two_workers_learn_and_merge_as_those_of_one(two: list, folder: Path) -> None:
    one = train(1, settings=ADAPTERS, merged=folder / "merged-1")
    for outcomes in two:
        assert_same_curve(outcomes["adapted"], one)
        assert_same_curve(outcomes["adapted at 1"], one)
    first, second = (load_file(folder / f"merged-{n}" / "model.safetensors") for n in (1, 2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-5)
    for saved in ("adapted", "adapted at 1"):
        assert_same_curve(train(1, settings=ADAPTERS, resume=folder / saved), one)


def test_typing_on_two_workers_is_what_it_is_on_one_with_the_joined_batch(two: list, folder: Path) -> None:
    """What is drawn and what labels count goes by mention, not by worker."""
    one, runs = train_typing(folder), [outcomes["typing"] for outcomes in two]
    assert len(one["losses"]) == 3 * SETTINGS.epochs
    for run in runs:
        np.testing.assert_allclose(run["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(run["labels"], one["labels"], rtol=1e-3, atol=1e-4)
    for whole, *shares in zip(one["rows"], *(run["rows"] for run in runs), strict=True):
        assert [len(whole[rank::2]) for rank in range(2)] == [len(share) for share in shares]
        assert sorted(whole) == sorted(row for share in shares for row in share)
    assert sorted(row for step in one["rows"][:3] for row in step) == list(range(len(MENTIONS)))


@pytest.mark.parametrize(
    ("kind", "train_one"),
    [
        ("encoder", train_encoder),
        ("contrast", train_contrast),
        ("contrast of cached states", partial(train_contrast, seed_text=False)),
        ("multimodal", train_multimodal),
    ],
)
def test_an_encoder_on_two_workers_that_read_their_own_parts_learns_as_on_one(
    kind: str, train_one: Callable[[Path], dict[str, Any]], two: list, folder: Path
) -> None:
    one, runs = train_one(folder), [outcomes[kind] for outcomes in two]
    for run in runs:
        np.testing.assert_allclose(run["losses"], one["losses"], rtol=5e-5)
        np.testing.assert_allclose(run["weights"], one["weights"], rtol=1e-3, atol=1e-4)
    sizes = [[len(rows) for rows in run["rows"]] for run in runs]
    assert sizes[0] != sizes[1], "workers have more and fewer rows of a batch"
    for whole, *shares in zip(one["rows"], *(run["rows"] for run in runs), strict=True):
        assert sorted(whole) == sorted(row for share in shares for row in share)


def test_what_a_worker_takes_follows_the_arithmetic(two: list) -> None:
    """25M parameters, two workers: a share is 51 MB, and 20 bytes a parameter of it 254 MB."""
    for outcomes in two:
        found = outcomes["memory"]
        share = 4 * found["parameters"] / 2
        assert share < found["opened"] < share + 4 * 4 * found["largest"] + 20e6
        assert found["opened"] < 4 * found["parameters"], "less than the whole model"
        # Between steps: the shares, besides norms' scales and biases, which stage 3 leaves whole.
        assert found["shares"] < found["held"] < 1.02 * found["shares"]
        # The share was there before the steps.
        assert 3 * share < found["stepped"] < found["arithmetic"] - share


def assert_each_block_once(first: list[TrainingResult], then: list[TrainingResult]) -> None:
    """The stop lies in the second epoch: what was read of it before, and what after, is all of it, once."""
    epoch = seen(first, STEPS_PER_EPOCH, STOP) + seen(then, STOP, 2 * STEPS_PER_EPOCH)
    assert sorted(epoch) == list(range(len(DATA)))
    assert min(step for step, _ in then[0]["blocks"]) == STOP + 1
