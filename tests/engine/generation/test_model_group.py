"""A model split over two processes finds and scores what the whole model does, and ends as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from engine.generation import model_group, tree_pass
from engine.generation.beam import BeamSearch
from engine.generation.forward_check import check_forward
from engine.generation.likelihood import Likelihood
from engine.generation.model import LanguageModel
from engine.generation.model_group import ModelGroup
from engine.generation.trie import Trie
from engine.methods import METHODS
from engine.models import device
from engine.query import Query
from engine.stages.options import change_methods
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors
from tests.support.language_models import tiny_model

NAMES = [
    *("France", "Spain", "San Marino", "San Jose", "San Jose City", "San Diego", "the river Rhine"),
    *("iron", "irony", "Ünterßee", "a", "copper", "copper wire"),
]
PROMPTS = ["France, Spain and", "iron, copper, aluminum, zinc and", "and"]

Pair = tuple[LanguageModel, LanguageModel]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("model")
    made = tiny_model()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    threads = torch.get_num_threads()
    whole = LanguageModel.load(folder)
    yield whole, LanguageModel.load(folder, processes=2)
    group = ModelGroup._of_process
    assert group is not None
    group.close()
    torch.set_num_threads(threads)


def test_a_search_finds_the_same_names(pair: Pair) -> None:
    def found(model: LanguageModel) -> list[Any]:
        trie = Trie.build(model.encode_after([f" {name}.\n" for name in NAMES], "and"))
        prompts = [model.encode(prompt) for prompt in PROMPTS]
        return BeamSearch(model, 4)(prompts, [trie] * len(prompts))

    for own, other in zip(*map(found, pair), strict=True):
        assert own.ids.tolist() == other.ids.tolist()
        np.testing.assert_allclose(own.scores, other.scores, rtol=1e-4)


@pytest.mark.parametrize("in_one_row", [True, False])
def test_scores_are_the_same(pair: Pair, in_one_row: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_one_row:
        monkeypatch.setattr(tree_pass, "takes_tree_masks", lambda *_: False)
    candidates = np.arange(len(NAMES), dtype=np.int32)
    own, other = (Likelihood(model, NAMES)([(candidates, [0, 3, "zinc"])])[0] for model in pair)
    np.testing.assert_allclose(own, other, rtol=1e-4)
    assert own.std() > 0


def test_the_split_model_passes_the_comparison_with_itself(pair: Pair) -> None:
    check_forward(pair[1], "split")
    assert pair[1].takes_tree_masks


def test_a_process_holds_its_share_of_the_matrices_and_the_rest_whole(pair: Pair) -> None:
    def held(model: LanguageModel) -> dict[str, int]:
        named = model.model.named_parameters()
        return {name: (p.to_local() if isinstance(p, DTensor) else p).numel() for name, p in named}

    whole, part = map(held, pair)
    in_layers = {name for name in whole if ".layers." in name and "norm" not in name}
    assert len(in_layers) == 14
    assert part == {name: n // 2 if name in in_layers else n for name, n in whole.items()}


def test_caches_that_are_not_needed_any_more_are_told(pair: Pair) -> None:
    group = ModelGroup._of_process
    assert group is not None
    state = pair[1].prefill([[1, 2]])
    number = state.cache.number
    del state
    assert list(group._dropped) == [number]
    pair[1].prefill([[1]])
    assert number not in group._dropped


def test_a_method_answers_as_with_the_whole_model(pair: Pair, tmp_path: Path) -> None:
    workspace, vectors = Workspace.open(tmp_path), np.random.default_rng(0).normal(size=(len(NAMES), 8))
    publish_vectors(workspace, NAMES, {"mask": vectors, "best": vectors}, model=pair[0])

    def answered(processes: int) -> list[Any]:
        device.split_models(processes)
        try:
            pipeline = change_methods({"": METHODS["genexpan"]}, {"Generate.max_rounds": 3})[""]
            run = pipeline.open(Bundle.open(workspace))
        finally:
            device.split_models(1)
        return [one.ranking for one in run([Query("q", (0, 1), (8,)), Query("r", (7, 11))])]

    for own, other in zip(answered(1), answered(2), strict=True):
        assert own.ids.tolist() == other.ids.tolist()
        assert len(own) > 3
        np.testing.assert_allclose(own.scores, other.scores, rtol=1e-4)


def test_a_process_that_dies_ends_the_leader(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, reasons = threading.Event(), []

    def end(why: str, error: BaseException | None = None) -> None:
        reasons.append(why)
        ended.set()

    monkeypatch.setattr(model_group, "_end_process", end)
    group = ModelGroup._of_process
    assert group is not None
    group._followers[0].kill()
    assert ended.wait(10)
    assert reasons == ["one of 2 processes that share a model ended with status -9"]
    with pytest.raises((RuntimeError, OSError)):
        pair[1].prefill([[1, 2]])
    assert reasons[1:] == ["a call of a model that 2 processes share failed"]
