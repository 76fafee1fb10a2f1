"""A model split over two processes finds and scores what the whole model does, and ends as a whole.

The leader is a process of its own: a process has one default group of ``torch.distributed``, which tests of
DeepSpeed make as well.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
Check = Callable[..., None]
_pair: list[LanguageModel] = []
"""In the leader's process: the whole model, and its part of the one that is split."""


def _load(folder: Path) -> None:
    _pair[:] = LanguageModel.load(folder), LanguageModel.load(folder, processes=2)


def _checked(check: Check, given: tuple[Any, ...]) -> None:
    check((_pair[0], _pair[1]), *given)


@pytest.fixture(scope="module")
def in_leader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """Run a check in the leader's process."""
    folder = tmp_path_factory.mktemp("model")
    made = tiny_model()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_load, initargs=(folder,)) as leader:
        yield lambda check, *given: leader.submit(_checked, check, given).result()


def check_a_search_finds_the_same_names(pair: Pair) -> None:
    def found(model: LanguageModel) -> list[Any]:
        trie = Trie.build(model.encode_after([f" {name}.\n" for name in NAMES], "and"))
        prompts = [model.encode(prompt) for prompt in PROMPTS]
        return BeamSearch(model, 4)(prompts, [trie] * len(prompts))

    for own, other in zip(*map(found, pair), strict=True):
        assert own.ids.tolist() == other.ids.tolist()
        np.testing.assert_allclose(own.scores, other.scores, rtol=1e-4)


def test_a_search_finds_the_same_names(in_leader: Callable[..., None]) -> None:
    in_leader(check_a_search_finds_the_same_names)


def check_scores_are_the_same(pair: Pair, in_one_row: bool) -> None:
    candidates = np.arange(len(NAMES), dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        if not in_one_row:
            patch.setattr(tree_pass, "takes_tree_masks", lambda *_: False)
        own, other = (Likelihood(model, NAMES)([(candidates, [0, 3, "zinc"])])[0] for model in pair)
    np.testing.assert_allclose(own, other, rtol=1e-4)
    assert own.std() > 0


@pytest.mark.parametrize("in_one_row", [True, False])
def test_scores_are_the_same(in_leader: Callable[..., None], in_one_row: bool) -> None:
    in_leader(check_scores_are_the_same, in_one_row)


def check_the_split_model_passes_the_comparison_with_itself(pair: Pair) -> None:
    check_forward(pair[1], "split")
    assert pair[1].takes_tree_masks


def test_the_split_model_passes_the_comparison_with_itself(in_leader: Callable[..., None]) -> None:
    in_leader(check_the_split_model_passes_the_comparison_with_itself)


def check_a_process_holds_its_share_of_the_matrices_and_the_rest_whole(pair: Pair) -> None:
    def held(model: LanguageModel) -> dict[str, int]:
        named = model.model.named_parameters()
        return {name: (p.to_local() if isinstance(p, DTensor) else p).numel() for name, p in named}

    whole, part = map(held, pair)
    in_layers = {name for name in whole if ".layers." in name and "norm" not in name}
    assert len(in_layers) == 14
    assert part == {name: n // 2 if name in in_layers else n for name, n in whole.items()}


def test_a_process_holds_its_share_of_the_matrices_and_the_rest_whole(in_leader: Callable[..., None]) -> None:
    in_leader(check_a_process_holds_its_share_of_the_matrices_and_the_rest_whole)


def check_caches_that_are_not_needed_any_more_are_told(pair: Pair) -> None:
    group = ModelGroup._of_process
    assert group is not None
    state = pair[1].prefill([[1, 2]])
    number = state.cache.number
    del state
    assert list(group._dropped) == [number]
    pair[1].prefill([[1]])
    assert number not in group._dropped


def test_caches_that_are_not_needed_any_more_are_told(in_leader: Callable[..., None]) -> None:
    in_leader(check_caches_that_are_not_needed_any_more_are_told)


def check_a_method_answers_as_with_the_whole_model(pair: Pair, tmp_path: Path) -> None:
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


def test_a_method_answers_as_with_the_whole_model(in_leader: Callable[..., None], tmp_path: Path) -> None:
    in_leader(check_a_method_answers_as_with_the_whole_model, tmp_path)


def check_a_process_that_dies_ends_the_leader(pair: Pair) -> None:
    ended, reasons = threading.Event(), []

    def end(why: str, error: BaseException | None = None) -> None:
        reasons.append(why)
        ended.set()

    group = ModelGroup._of_process
    assert group is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_group, "_end_process", end)
        group._followers[0].kill()
        assert ended.wait(10)
        assert reasons == ["one of 2 processes that share a model ended with status -9"]
        with pytest.raises((RuntimeError, OSError)):
            pair[1].prefill([[1, 2]])
    assert reasons[1:] == ["a call of a model that 2 processes share failed"]
    group.close()


def test_a_process_that_dies_ends_the_leader(in_leader: Callable[..., None]) -> None:
    in_leader(check_a_process_that_dies_ends_the_leader)
