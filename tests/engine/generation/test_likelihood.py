"""Likelihood of one entity after another: the value, one computation a pair, a bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation import likelihood as module
from engine.generation.likelihood import Likelihood, _PairCache
from engine.generation.model import LanguageModel
from tests.support.language_models import Family, tiny_model

NAMES = [
    "France", "Spain", "San Jose", "San Jose City", "San Diego", "the river Rhine", "iron", "Ünterßee",
    "Spain",
]  # fmt: skip


def ids(*entities: int) -> np.ndarray:
    return np.array(entities, np.int32)


def plain(model: LanguageModel, e: int, target: int) -> float:
    """s(e, e') by a forward pass over the text of the pair alone."""
    prefix = model.encode(f"{NAMES[e]} is similar to")
    (tokens,) = model.encode_after([f" {NAMES[target]}"], "to")
    with torch.inference_mode():
        logprobs_TV = model.model(torch.tensor([prefix + tokens])).logits[0].log_softmax(-1)
    each = logprobs_TV[range(len(prefix) - 1, len(prefix) + len(tokens) - 1), tokens]
    return float(each.mean().exp())


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pairs of each computation that was not answered from memory."""
    counts: list[int] = []
    run = module.logprobs

    def counted(model: Any, trees: Any, *rest: Any) -> Any:
        counts.append(len(trees.last_S))
        return run(model, trees, *rest)

    monkeypatch.setattr(module, "logprobs", counted)
    return counts


@pytest.mark.parametrize("batch_tokens", [4096, 50])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_equal_to_a_plain_forward_pass_a_pair(family: Family, batch_tokens: int) -> None:
    model = tiny_model(family)
    candidates, targets = ids(*range(9)), [3, 1, 2, 8, 6]
    (found,) = Likelihood(model, NAMES, batch_tokens=batch_tokens)([(candidates, targets)])
    expected = [[plain(model, e, target) for target in targets] for e in candidates]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_target_of_one_token_needs_the_prefix_alone() -> None:
    for family in ("llama", "bloom"):
        model = tiny_model(family)
        assert len(model.encode_after([" and"], "to")[0]) == 1
        (found,) = Likelihood(model, ["and", "Spain"])([(ids(1, 0), [0])])
        prefix = model.encode("Spain is similar to")
        with torch.inference_mode():
            logprobs = model.model(torch.tensor([prefix])).logits[0, -1].log_softmax(-1)
        token = model.encode_after([" and"], "to")[0][0]
        assert found[0, 0] == pytest.approx(float(logprobs[token].exp()), rel=1e-5)


def test_every_pair_is_computed_once(computed: list[int]) -> None:
    score = Likelihood(tiny_model(), NAMES)
    requests = [(ids(0, 1, 2), [3, 4]), (ids(2, 0, 0), [4, 5])]
    first = score(requests)
    assert computed == [8]
    again = score(requests)
    assert computed == [8]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    score([(ids(0, 6), [3, 4])])
    assert computed == [8, 2]
    score([(ids(3), [0])])
    assert computed[-1] == 1, "s(e, e') is not s(e', e)"


def test_a_target_that_the_vocabulary_does_not_hold_is_scored_by_its_name(computed: list[int]) -> None:
    model = tiny_model()
    score = Likelihood(model, NAMES)
    by_name, by_id, other = score([(ids(0, 3), ["Spain", 4, "Rhine"]), (ids(3), [1]), (ids(0), ["Rhine"])])
    (plain_rhine,) = Likelihood(model, [*NAMES, "Rhine"])([(ids(0, 3), [9])])
    (known,) = Likelihood(model, NAMES)([(ids(0, 3), [1, 4])])
    np.testing.assert_allclose(by_name, np.concatenate([known, plain_rhine], axis=1), rtol=1e-5)
    np.testing.assert_allclose(by_id, known[1:, :1], rtol=1e-5)
    np.testing.assert_allclose(other, plain_rhine[:1], rtol=1e-5)
    # The same number stands for another new name in the next call, and is not taken for it.
    (again,) = score([(ids(0, 3), ["Danube", 4])])
    (danube,) = Likelihood(model, [*NAMES, "Danube"])([(ids(0, 3), [9])])
    np.testing.assert_allclose(again[:, :1], danube, rtol=1e-5)
    assert computed[0] == 7, "each pair once"
    assert computed[-2:] == [2, 2], "pairs of known entities are remembered, others are not"


def test_pairs_remembered_and_computed_are_counted() -> None:
    score = Likelihood(tiny_model(), NAMES)
    score([(ids(0, 1), [2, 3])])
    mine = score.with_own_counts()
    mine([(ids(0, 1, 4), [2])])
    assert (score.hits, score.misses) == (0, 4)
    assert (mine.hits, mine.misses) == (2, 1)
    score([(ids(4), [2])])
    assert (score.hits, score.misses) == (1, 4), "what one computes the other remembers"


def test_several_requests_equal_one_by_one() -> None:
    requests = [(ids(0, 1, 2), [3, 4]), (ids(2, 5, 0, 7), [4, 5, 6]), (ids(), [1]), (ids(1), [])]
    model = tiny_model()
    together = Likelihood(model, NAMES)(requests)
    for request, found in zip(requests, together, strict=True):
        (alone,) = Likelihood(model, NAMES)([request])
        assert found.shape == alone.shape == (len(request[0]), len(request[1]))
        np.testing.assert_allclose(found, alone, rtol=1e-5)
    assert Likelihood(model, NAMES)([]) == []


def test_many_pairs_are_cut(monkeypatch: pytest.MonkeyPatch, computed: list[int]) -> None:
    model = tiny_model()
    (whole,) = Likelihood(model, NAMES)([(ids(0, 1, 2, 3), [4, 5])])
    monkeypatch.setattr(module, "PART", 3)
    (cut,) = Likelihood(model, NAMES)([(ids(0, 1, 2, 3), [4, 5])])
    assert computed == [8, 3, 3, 2]
    np.testing.assert_allclose(cut, whole, rtol=1e-5)


def test_means_over_the_targets() -> None:
    score = Likelihood(tiny_model(), NAMES)
    requests = [(ids(0, 1, 2), [3, 4, 6]), (ids(5, 6), [])]
    matrix, _ = score(requests)
    means = score.means(requests)
    np.testing.assert_allclose(means[0], matrix.mean(axis=1), rtol=1e-6)
    assert means[1].tolist() == [0, 0]
    assert [m.dtype for m in means] == [np.float32] * 2


def test_the_key_is_the_models() -> None:
    model = tiny_model(seed=3)
    assert Likelihood(model, NAMES).key == model.fingerprint


@pytest.mark.parametrize("remembered", [1, 3, 16])
def test_answers_are_right_where_memory_is_too_small(remembered: int) -> None:
    model = tiny_model()
    (expected,) = Likelihood(model, NAMES)([(ids(*range(8)), [8, 2, 3])])
    small = Likelihood(model, NAMES, cached_pairs=remembered)
    for _ in range(2):
        (found,) = small([(ids(*range(8)), [8, 2, 3])])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert 0 < len(small._cache) <= remembered


@given(st.integers(1, 40), st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=30), max_size=12))
@settings(max_examples=60)
def test_memory_never_tells_another_score_and_never_grows(capacity: int, calls: list[list[int]]) -> None:
    memory = _PairCache(capacity)
    for keys in calls:
        asked = np.unique(np.array(keys, np.int64))
        scores, known = memory.get(asked)
        assert np.array_equal(scores[known], np.sqrt(asked[known]).astype(np.float32))
        memory.put(asked[~known], np.sqrt(asked[~known]).astype(np.float32))
        assert len(memory) <= capacity


def test_memory_keeps_what_was_used_last() -> None:
    memory = _PairCache(8)  # one bucket
    for key in range(8):
        memory.put(np.array([key]), np.array([key], np.float32))
        memory.get(np.array([0]))
    memory.put(np.array([8, 9]), np.array([8, 9], np.float32))
    _, known = memory.get(np.arange(10))
    assert np.flatnonzero(~known).tolist() == [1, 2]


def test_memory_holds_nearly_all_at_half_its_size() -> None:
    memory = _PairCache(1 << 12)
    keys = np.random.default_rng(0).choice(10**10, 1 << 11, replace=False)
    memory.put(keys, np.zeros(len(keys), np.float32))
    assert len(memory) > 0.95 * len(keys)
