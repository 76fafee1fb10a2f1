"""What a search looks ahead to, against recursion over nested dicts and the plain search."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plain_search import best_below as plain_best_below
from benchmarks.plain_search import nested_trie
from engine.generation.beam import BeamSearch, Normalise
from engine.generation.lookahead import best_below, standardised
from engine.generation.trie import Trie
from tests.engine.generation.test_beam import NAMES, PROMPTS, model_of, same_as_plain, tokens_of

names = st.lists(st.lists(st.integers(2, 4), max_size=5), min_size=1, max_size=30)


def walk(trie: Trie, node: int, nested: dict, scores: dict[int, float], ahead: np.ndarray) -> int:
    """Compare a node and all below it with recursion; return how many there are."""
    assert ahead[node] == plain_best_below(nested, scores)
    _, children, tokens = trie.children(np.array([node]))
    below = zip(children.tolist(), tokens.tolist(), strict=True)
    return 1 + sum(walk(trie, child, nested[token], scores, ahead) for child, token in below)


@given(drawn=names, seed=st.integers(0, 9))
def test_a_node_has_the_best_score_below_it(drawn: list[list[int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    sequences = [[*name, 1] for name in drawn]
    whole = Trie.build(sequences)
    some = np.flatnonzero(random.random(len(sequences)) < 0.5).astype(np.int32)
    for trie in (whole, whole.restrict(some)) if len(some) else (whole,):
        scores = -random.random(trie.n_entities).astype(np.float32)
        ahead = best_below(trie, scores)
        by_id = dict(zip(trie.entity_ids.tolist(), scores.tolist(), strict=True))
        nested = nested_trie([sequences[i] for i in by_id], list(by_id))
        assert walk(trie, 0, nested, by_id, ahead) == len(trie) == len(ahead)
        parent, child, _ = trie.children(np.arange(len(trie)))
        assert (ahead[child] <= ahead[parent]).all(), "a search's bounds rely on it"


@pytest.mark.parametrize("normalise", get_args(Normalise))
@pytest.mark.parametrize("weight", [0.5, 5])
def test_a_steered_search_finds_what_the_plain_one_finds(normalise: Normalise, weight: float) -> None:
    model = model_of("llama")
    sequences = tokens_of(model)
    trie = Trie.build(sequences)
    scores = -weight * np.random.default_rng(4).random(len(NAMES)).astype(np.float32)
    for beams in (1, 7, 40):
        prompt = model.encode(PROMPTS[beams % len(PROMPTS)])
        [found] = BeamSearch(model, beams, normalise=normalise)([prompt], [trie], [best_below(trie, scores)])
        worth = dict(enumerate(scores.tolist()))
        same_as_plain(found, model, prompt, sequences, beams=beams, normalise=normalise, scores=worth)


@pytest.mark.parametrize("competing", [False, True])
def test_of_a_batch_each_query_looks_ahead_by_itself(competing: bool) -> None:
    """Queries that share a trie, one of them without, and one whose look-ahead is zero."""
    model = model_of("llama")
    trie = Trie.build(tokens_of(model))
    scores = -3 * np.random.default_rng(5).random(len(NAMES)).astype(np.float32)
    prompts = [model.encode(text) for text in PROMPTS]
    ahead = [best_below(trie, scores), None, np.zeros(len(trie), np.float32), best_below(trie, scores[::-1])]
    search = BeamSearch(model, 5, competing=competing)
    plain = search(prompts, [trie] * 4)
    steered = search(prompts, [trie] * 4, ahead)
    for place, (one, without) in enumerate(zip(steered, plain, strict=True)):
        if place in (1, 2):
            for name in vars(one):
                assert getattr(one, name).tobytes() == getattr(without, name).tobytes()
        else:
            assert one.ids.tolist() != without.ids.tolist()
            [alone] = search([prompts[place]], [trie], [ahead[place]])
            assert one.ids.tolist() == alone.ids.tolist()


def test_scores_are_deviations_below_the_best_and_what_has_no_vector_is_last() -> None:
    found = standardised(np.array([0.5, 0.1, 0, 0.3], np.float32))
    spread = np.std([0.5, 0.1, 0.3])
    np.testing.assert_allclose(found, np.array([0, -0.4, -0.4, -0.2]) / spread, rtol=1e-5)
    for alike in (0, 0.25):
        np.testing.assert_array_equal(standardised(np.full(3, alike, np.float32)), np.zeros(3))
