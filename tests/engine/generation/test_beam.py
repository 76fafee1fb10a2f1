"""The fast search answers as the plain one does, in every family, setting and batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_search import nested_trie, plain_search
from engine.errors import QueryError
from engine.generation.beam import BeamResult, BeamSearch, Normalise
from engine.generation.model import LanguageModel, State
from engine.generation.trie import Trie
from tests.support.language_models import Family, tiny_model

NAMES = [
    *("France", "Spain", "Portugal", "Germany", "Germania", "German", "Iron", "Iron ore", "Iron oxide"),
    *("San Marino", "San Salvador", "San Jose", "San Diego", "Santiago", "San", "Saint", "River Rhine"),
    *("Rhine", "Rhone", "Danube", "River Danube", "Mathematics", "Math", "Chemistry", "Chemical"),
    *("Dr. No", "Dr", "Dr.", "St. Louis", "St. Lucia", "Zürich", "東京", "aluminum", "aluminium", "zinc"),
    *("a", "b", "c", "ab", "abc", "copper", "copper wire", "Spa", "Spanish Town", "Port", "Porto"),
]
PROMPTS = ["France, Spain and", "iron, copper, aluminum and", "They are all rivers: the Rhine and", "x"]


@cache
def model_of(family: Family) -> LanguageModel:
    torch.set_num_threads(1)
    return tiny_model(family)


def tokens_of(model: LanguageModel, names: Sequence[str] = NAMES) -> list[list[int]]:
    return model.encode_after([f" {name}.\n" for name in names], "and")


class Probabilities(LanguageModel):
    """A stub: the next token's logits depend on the last token alone."""

    max_positions = 100

    def __init__(self, logits: dict[int, dict[int, float]], vocab: int = 16) -> None:
        self.table = torch.full((vocab, vocab), -np.inf)
        for last, row in logits.items():
            self.table[last, list(row)] = torch.tensor(list(row.values()), dtype=torch.float32)
        self.reads = 0

    device = torch.device("cpu")

    def prefill(self, prompts: Sequence[Sequence[int]]) -> State:
        last = torch.tensor([prompt[-1] for prompt in prompts])
        return State(None, torch.ones(len(prompts), 1), self.table[last])

    def advance(self, state: State, rows: torch.Tensor, tokens_BL: torch.Tensor) -> State:
        self.reads += 1
        return State(None, state.mask_BT[rows], self.table[tokens_BL[:, -1]])

    def logits(self, hidden_BD: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        return hidden_BD if tokens is None else hidden_BD[:, tokens]

    def model(self, input_ids: torch.Tensor, **_: Any) -> Any:
        """Return the model of the plain search."""
        return type("Output", (), {"logits": self.table[input_ids]})


def probabilities(**after: dict[int, float]) -> dict[int, dict[int, float]]:
    return {int(last[1:]): {t: float(np.log(p)) for t, p in row.items()} for last, row in after.items()}


def same_as_plain(
    found: BeamResult,
    model: LanguageModel,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    entities: Sequence[int] | None = None,
    **options: Any,
) -> None:
    ids = range(len(sequences)) if entities is None else entities
    plain = plain_search(model, prompt, nested_trie(sequences, ids), **options)
    assert found.ids.tolist() == [entry.entity for entry in plain]
    np.testing.assert_allclose(found.scores, [entry.score for entry in plain], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.logprobs, [entry.logprob for entry in plain], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("normalise", get_args(Normalise))
def test_finds_what_the_plain_search_finds(family: Family, normalise: Normalise) -> None:
    model = model_of(family)
    sequences = tokens_of(model)
    trie = Trie.build(sequences)
    for beams in (1, 2, 7, 40):
        prompt = model.encode(PROMPTS[beams % len(PROMPTS)])
        [found] = BeamSearch(model, beams, normalise=normalise)([prompt], [trie])
        same_as_plain(found, model, prompt, sequences, beams=beams, normalise=normalise)
        assert len(found.ids) == min(beams, len(NAMES)) or beams < 40


@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("normalise", get_args(Normalise))
def test_a_batch_answers_as_each_query_alone(family: Family, normalise: Normalise) -> None:
    """Prompts of different lengths, a trie that two share, and tries of their own."""
    model = model_of(family)
    sequences = tokens_of(model)
    whole = Trie.build(sequences)
    parts = [np.arange(0, 44, 2, dtype=np.int32), np.array([3, 4, 5, 9, 10, 14], np.int32)]
    prompts = [model.encode(text) for text in PROMPTS]
    tries = [whole, whole.restrict(parts[0]), whole, whole.restrict(parts[1])]
    search = BeamSearch(model, 12, normalise=normalise)
    together = search(prompts, tries)
    for found, prompt, trie in zip(together, prompts, tries, strict=True):
        [alone] = search([prompt], [trie])
        assert found.ids.tolist() == alone.ids.tolist()
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
    for place, ids in ((1, parts[0]), (3, parts[1])):
        chosen = [sequences[i] for i in ids]
        same_as_plain(
            together[place], model, prompts[place], chosen, ids.tolist(), beams=12, normalise=normalise
        )


@pytest.mark.parametrize("normalise", get_args(Normalise))
@pytest.mark.parametrize("max_tokens", [1, 3, 6])
def test_what_is_longer_than_max_tokens_is_not_found(normalise: Normalise, max_tokens: int) -> None:
    model = model_of("llama")
    sequences = tokens_of(model)
    prompt = model.encode(PROMPTS[0])
    search = BeamSearch(model, 20, max_tokens, normalise)
    [found] = search([prompt], [Trie.build(sequences)])
    same_as_plain(found, model, prompt, sequences, beams=20, max_tokens=max_tokens, normalise=normalise)
    assert all(len(sequences[i]) <= max_tokens for i in found.ids)
    assert (len(found.ids) == 0) == (max_tokens == 1)


def test_a_name_without_rivals_must_fit_max_tokens_too() -> None:
    trie = Trie.build([[5, 6, 7], [8, 9, 10, 11, 12]])
    for max_tokens, ids in ((2, []), (3, [0]), (4, [0]), (5, [0, 1])):
        [found] = BeamSearch(model_of("llama"), 5, max_tokens)([[5, 6]], [trie])
        assert sorted(found.ids.tolist()) == ids


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("seed", range(2))
def test_stopping_early_changes_nothing(length_penalty: float, seed: int) -> None:
    """Few beams and many lengths: names finish long before the longest could."""
    model = tiny_model("llama", seed=seed)
    random = np.random.default_rng(seed)
    sequences = [[*random.integers(2, 6, random.integers(0, 9)).tolist(), 1] for _ in range(150)]
    prompt = random.integers(2, 300, 5).tolist()
    trie = Trie.build(sequences)
    for beams in (1, 3, 10):
        for normalise in get_args(Normalise):
            [found] = BeamSearch(model, beams, None, normalise, length_penalty)([prompt], [trie])
            options = {"beams": beams, "normalise": normalise, "length_penalty": length_penalty}
            same_as_plain(found, model, prompt, sequences, **options)


def test_stops_when_nothing_alive_can_win() -> None:
    """Two names have probabilities 0.6 and 0.36; the others take ten tokens and share 0.04."""
    after = {1: 0.9, 2: 0.05, 3: 0.05}
    table = probabilities(p0={1: 0.6, 2: 0.4}, p2=after, p3=after)
    sequences = [[1], [2, 1], *([2, 2, *middle, 1] for middle in product((2, 3), repeat=7))]
    trie = Trie.build(sequences)
    reads = {}
    for beams in (2, 3):
        model = Probabilities(table)
        [found] = BeamSearch(model, beams)([[0]], [trie])
        same_as_plain(found, model, [0], sequences, beams=beams)
        reads[beams] = model.reads
    assert reads == {2: 1, 3: 8}


def test_scores_computed_by_hand() -> None:
    """Tokens: 0 the prompt, 9 the end. Names: 1 9, 1 2 9, 3 9 (twice), 4 5 6 9."""
    half = {9: 0.5, 8: 0.5}
    table = probabilities(p0={1: 0.4, 3: 0.2, 4: 0.2, 7: 0.2}, p1={2: 0.3, 9: 0.6, 8: 0.1}, p2=half, p3=half)
    table |= probabilities(p4={5: 1.0}, p5={6: 1.0}, p6={9: 0.25, 8: 0.75})
    sequences = [[1, 9], [1, 2, 9], [3, 9], [4, 5, 6, 9], [3, 9]]
    trie = Trie.build(sequences)
    [found] = BeamSearch(Probabilities(table), 4)([[0]], [trie])
    probability = [0.5 * 2 / 3, 0.5 * 1 / 3, 0.25, 0.25, 0.25]
    lengths = np.array([2, 3, 2, 4, 2])
    scores = np.log(probability) / ((5 + lengths) / 6) ** 0.6
    order = [0, 3, 2, 4, 1]
    assert found.ids.tolist() == order
    np.testing.assert_allclose(found.scores, scores[order], rtol=1e-6)
    np.testing.assert_allclose(found.logprobs, np.log(probability)[order], rtol=1e-6)

    [found] = BeamSearch(Probabilities(table), 4, normalise="vocabulary", length_penalty=0)([[0]], [trie])
    assert found.ids.tolist() == [0, 2, 4, 1, 3]
    np.testing.assert_allclose(np.exp(found.scores), [0.24, 0.1, 0.1, 0.06, 0.05], rtol=1e-6)


def test_ties_go_to_the_earlier_parent_then_the_smaller_token() -> None:
    even = dict.fromkeys((1, 2, 3), 1 / 3)
    table = probabilities(p0=even, p1=even, p2=even, p3=even)
    sequences = [[a, b, c] for a in (3, 2, 1) for b in (3, 2, 1) for c in (3, 2, 1)]
    [found] = BeamSearch(Probabilities(table), 5)([[0]], [Trie.build(sequences)])
    kept = [[1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 1], [1, 2, 2]]
    assert found.ids.tolist() == sorted(sequences.index(s) for s in kept)
    same_as_plain(found, Probabilities(table), [0], sequences, beams=5)


def test_ties_between_names_with_the_same_tokens_and_others_go_by_id() -> None:
    table = probabilities(p0={1: 0.5, 2: 0.5})
    [found] = BeamSearch(Probabilities(table), 2)([[0]], [Trie.build([[1, 9], [2, 9], [1, 9]])])
    assert found.ids.tolist() == [0, 1, 2]


def test_large_logits_do_not_overflow() -> None:
    model = Probabilities({0: {1: 2000.0, 2: 1999.0, 3: -2000.0}})
    [found] = BeamSearch(model, length_penalty=0)([[0]], [Trie.build([[1], [2], [3]])])
    expected = [0, -1, -4000] - np.log1p(np.exp(-1))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6)


def test_a_longer_name_that_ties_with_the_last_place_is_waited_for() -> None:
    """2 3 and 2 4 5 are as likely; the longer one is the smaller id."""
    even = probabilities(p0={1: 0.5, 2: 0.5}, p2={3: 0.5, 4: 0.5}, p4={5: 1.0})
    trie = Trie.build([[2, 4, 5], [1], [2, 3]])
    for normalise in get_args(Normalise):
        [found] = BeamSearch(Probabilities(even), 2, None, normalise, 0)([[0]], [trie])
        assert found.ids.tolist() == [1, 0]


@pytest.mark.parametrize("normalise", get_args(Normalise))
def test_impossible_names_are_dropped(normalise: Normalise) -> None:
    """Token 2 has no probability after 0, and nothing that may follow 3 has any."""
    table = probabilities(p0={1: 0.5, 3: 0.4, 5: 0.1}, p1={2: 0.4, 3: 0.6}, p3={7: 1.0})
    sequences = [[1, 2], [1, 3], [2, 1], [3, 1], [3, 2]]
    model = Probabilities(table)
    [found] = BeamSearch(model, 10, normalise=normalise)([[0]], [Trie.build(sequences)])
    assert found.ids.tolist() == [1, 0]
    assert np.isfinite(found.scores).all()


def test_names_with_the_same_tokens_come_back_together() -> None:
    model = model_of("llama")
    sequences = tokens_of(model, ["France", "Spain", "France", "Iron"])
    entities = np.array([7, 2, 5, 9], np.int32)
    for beams in (1, 4):
        prompt = model.encode(PROMPTS[1])
        [found] = BeamSearch(model, beams)([prompt], [Trie.build(sequences, entities)])
        same_as_plain(found, model, prompt, sequences, entities.tolist(), beams=beams)
    assert found.ids.tolist().index(7) == found.ids.tolist().index(5) + 1


def test_no_names_and_no_queries() -> None:
    model = model_of("llama")
    search = BeamSearch(model)
    empty = Trie.build([[5, 6]]).restrict(np.zeros(0, np.int32))
    sequences = tokens_of(model, ["France", "Spain"])
    nothing, something = search([[5], [6]], [empty, Trie.build(sequences)])
    assert (len(nothing.ids), len(nothing.scores), len(something.ids)) == (0, 0, 2)
    assert nothing.ids.dtype == something.ids.dtype == np.int32
    assert len(search([[5]], [empty])[0].ids) == 0
    assert search([], []) == []


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    model = model_of("gpt2")
    trie = Trie.build([[5, 6, 7], [6, 7, 8]])
    with pytest.raises(QueryError, match="an input of 257 tokens, and the language model takes 256"):
        BeamSearch(model)([[5], [5] * 254], [trie, trie])
    assert len(BeamSearch(model)([[5] * 253], [trie])[0].ids) == 2


names = st.lists(st.lists(st.integers(2, 4), max_size=4).map(lambda s: [*s, 1]), min_size=1, max_size=25)


@settings(max_examples=40)
@given(names, names, st.integers(0, 10))
def test_with_room_for_all_every_name_comes_back(
    first: list[list[int]], second: list[list[int]], extra: int
) -> None:
    """And under "allowed" the probabilities of distinct sequences sum to 1."""
    model = model_of("llama")
    both = [first, second]
    search = BeamSearch(model, max(map(len, both)) + extra)
    for found, sequences in zip(search([[5, 6], [7]], list(map(Trie.build, both))), both, strict=True):
        assert sorted(found.ids.tolist()) == list(range(len(sequences)))
        assert (np.diff(found.scores) <= 0).all()
        distinct = {tuple(sequences[i]): p for i, p in zip(found.ids, found.logprobs, strict=True)}
        assert np.exp(list(distinct.values())).sum() == pytest.approx(1, abs=1e-5)
