"""Every name of a trie scored in one pass, against one plain forward pass a name."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation import tree_pass
from engine.generation.beam import BeamSearch
from engine.generation.model import LanguageModel
from engine.generation.trie import Trie
from engine.generation.trie_scores import Normalise, name_logprobs
from tests.support.language_models import Family, tiny_model

NAMES = [
    "France", "Spain", "San Marino", "San Jose", "San Jose City", "San Diego", "the river Rhine",
    "the river Rhone", "iron", "irony", "Ünterßee", "a",
]  # fmt: skip
PROMPTS = ["France, Spain and", "iron, copper, aluminum, zinc and", "and"]

Tokens = Sequence[int]


def sequences_of(model: LanguageModel, names: Sequence[str] = NAMES) -> list[list[int]]:
    return model.encode_after([f" {name}.\n" for name in names], "and")


def plain(
    model: LanguageModel, prompt: Tokens, sequence: Tokens, others: Sequence[Tokens], normalise: Normalise
) -> float:
    """log P(sequence | prompt) by one forward pass over the text, token after token."""
    with torch.inference_mode():
        logits_TV = model.model(torch.tensor([[*prompt, *sequence]])).logits[0]
    total = 0.0
    for i, token in enumerate(sequence):
        logits = logits_TV[len(prompt) + i - 1]
        allowed = sorted({o[i] for o in others if list(o[:i]) == list(sequence[:i])})
        if normalise == "vocabulary":
            allowed = list(range(len(logits)))
        total += float(logits[allowed].log_softmax(0)[allowed.index(token)])
    return total


def force_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_pass, "takes_tree_masks", lambda *_: False)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record how each forward pass was run, and with how many rows."""
    seen: list[tuple[str, int]] = []
    for name in ("tree_pass", "level_pass"):
        run = getattr(tree_pass, name)

        def counted(model: Any, trees: Any, rows: Any, name: str = name, run: Any = run) -> Any:
            seen.append((name, len(rows)))
            return run(model, trees, rows)

        monkeypatch.setattr(tree_pass, name, counted)
    return seen


@pytest.mark.parametrize("normalise", ["allowed", "vocabulary"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_equal_to_a_plain_forward_pass_a_name(
    family: Family, normalise: Normalise, passes: list[tuple[str, int]]
) -> None:
    model = tiny_model(family)
    sequences = sequences_of(model)
    some = np.array([1, 2, 3, 4, 5], np.int32)
    whole = Trie.build(sequences)
    tries, members = [whole, whole.restrict(some), whole], [range(len(NAMES)), some, range(len(NAMES))]
    prompts = [model.encode(p) for p in PROMPTS]
    for prompt, member, found in zip(
        prompts, members, name_logprobs(model, prompts, tries, normalise), strict=True
    ):
        others = [sequences[i] for i in member]
        expected = [plain(model, prompt, s, others, normalise) for s in others]
        assert found.ids.tolist() == list(member)
        assert found.lengths.tolist() == [len(s) for s in others]
        assert found.logprobs.dtype == np.float32
        np.testing.assert_allclose(found.logprobs, expected, atol=2e-5)
    assert {way for way, _ in passes} == {"level_pass" if family == "bloom" else "tree_pass"}


@pytest.mark.parametrize("normalise", ["allowed", "vocabulary"])
def test_cut_rows_small_batches_and_the_level_by_level_way_change_nothing(
    normalise: Normalise, monkeypatch: pytest.MonkeyPatch, passes: list[tuple[str, int]]
) -> None:
    model = tiny_model()
    trie = Trie.build(sequences_of(model))
    prompts = [model.encode(p) for p in PROMPTS]
    whole = name_logprobs(model, prompts, [trie] * 3, normalise)
    in_parts = name_logprobs(model, prompts, [trie] * 3, normalise, batch_tokens=40)
    monkeypatch.setattr(tree_pass, "ROW_TOKENS", 1)
    cut = name_logprobs(model, prompts, [trie] * 3, normalise)
    force_levels(monkeypatch)
    by_level = name_logprobs(model, prompts, [trie] * 3, normalise, batch_tokens=10_000)
    by_level_cut = name_logprobs(model, prompts, [trie] * 3, normalise, batch_tokens=150)
    for others in (in_parts, cut, by_level, by_level_cut):
        for a, b in zip(whole, others, strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-5)
    rows = {way: [n for name, n in passes if name == way] for way in ("tree_pass", "level_pass")}
    assert rows["tree_pass"][0] == 3
    assert sum(rows["tree_pass"]) > 6 if normalise == "vocabulary" else len(rows["tree_pass"]) > 3
    assert sum(rows["level_pass"]) > 6


def test_eager_attention_takes_the_same_mask() -> None:
    model, eager = tiny_model(), tiny_model()
    eager.model.set_attn_implementation("eager")
    trie, prompt = Trie.build(sequences_of(model)), model.encode(PROMPTS[0])
    (expected,), (found,) = name_logprobs(model, [prompt], [trie]), name_logprobs(eager, [prompt], [trie])
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=2e-5)


def test_which_models_take_a_mask_of_our_own() -> None:
    def takes(**config: object) -> bool:
        model = tiny_model()
        for name, value in config.items():
            setattr(model.model.config, name, value)
        return tree_pass.takes_tree_masks(model, longest=100)

    assert takes()
    assert takes(sliding_window=100)
    assert not takes(sliding_window=99)
    assert not takes(alibi=True)
    assert not takes(layer_types=["full_attention", "linear_attention"])
    assert not tree_pass.takes_tree_masks(tiny_model("bloom"), 100)


@given(
    st.sets(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=12),
    st.integers(0, 3),
    st.integers(1, 40),
)
@settings(max_examples=30)
def test_probabilities_over_allowed_tokens_sum_to_one(names: set[str], seed: int, batch_tokens: int) -> None:
    model = tiny_model(seed=seed)
    trie = Trie.build(sequences_of(model, sorted(names)))
    (found,) = name_logprobs(model, [model.encode(PROMPTS[0])], [trie], batch_tokens=batch_tokens)
    assert np.exp(found.logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("normalise", ["allowed", "vocabulary"])
def test_equal_to_a_beam_search_with_a_beam_for_every_name(normalise: Normalise) -> None:
    model = tiny_model()
    trie, prompts = Trie.build(sequences_of(model)), [model.encode(p) for p in PROMPTS]
    search = BeamSearch(model, beams=1000, normalise=normalise)
    for scored, found in zip(
        name_logprobs(model, prompts, [trie] * 3, normalise), search(prompts, [trie] * 3), strict=True
    ):
        assert sorted(found.ids) == scored.ids.tolist()
        np.testing.assert_allclose(scored.logprobs[found.ids], found.logprobs, atol=2e-5)


def test_names_that_tokenise_alike_share_the_value() -> None:
    model = tiny_model()
    sequences = sequences_of(model, ["Spain", "France", "Spain"])
    trie = Trie.build(sequences, np.array([7, 3, 5], np.int32))
    (found,) = name_logprobs(model, [model.encode("and")], [trie])
    assert found.ids.tolist() == [3, 5, 7]
    assert found.logprobs[1] == found.logprobs[2] != found.logprobs[0]


def test_a_single_name_is_certain_and_no_names_are_none() -> None:
    model = tiny_model()
    trie = Trie.build(sequences_of(model))
    tries = [trie.restrict(np.array(ids, np.int32)) for ids in ([4], [], [0, 1])]
    one, none, two = name_logprobs(model, [model.encode("and")] * 3, tries)
    assert one.logprobs.tolist() == [0]
    assert len(none.ids) == len(none.logprobs) == 0
    assert len(two.ids) == 2
    assert name_logprobs(model, [], []) == []
    assert len(name_logprobs(model, [model.encode("and")], tries[1:2])[0].ids) == 0


class Body:
    """Its hidden state is the token that was read last."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        use_cache: bool,
    ) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=input_ids[..., None])

    __call__ = forward


class StubModel(LanguageModel):
    """A model after whose token t comes token u with probability table[t, u]."""

    def __init__(self, table_VV: np.ndarray) -> None:
        self.table_VV = torch.from_numpy(table_VV).log()
        self.model = SimpleNamespace(
            base_model=Body(),
            config=SimpleNamespace(vocab_size=len(table_VV), _attn_implementation="sdpa"),
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    def logits(self, hidden_BD: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        logits_BV = self.table_VV[hidden_BD[:, 0]]
        return logits_BV if tokens is None else logits_BV[:, tokens]


def test_by_hand() -> None:
    # Names 1 2, 1 3 4 and 2 4 after token 0.
    table = np.full((5, 5), 0.1)
    table[0] = [0.1, 0.2, 0.6, 0.05, 0.05]
    table[1] = [0.5, 0.1, 0.1, 0.3, 0.0]
    model = StubModel(table / table.sum(1, keepdims=True))
    trie = Trie.build([[1, 2], [1, 3, 4], [2, 4]])
    (allowed,) = name_logprobs(model, [[0]], [trie])
    np.testing.assert_allclose(np.exp(allowed.logprobs), [0.25 * 0.25, 0.25 * 0.75, 0.75], atol=1e-6)
    (whole,) = name_logprobs(model, [[0]], [trie], "vocabulary")
    np.testing.assert_allclose(np.exp(whole.logprobs), [0.2 * 0.1, 0.2 * 0.3 * 0.2, 0.6 * 0.2], atol=1e-6)
    assert whole.lengths.tolist() == [2, 3, 2]
