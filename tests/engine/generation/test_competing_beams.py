"""The search of GenExpan's authors, against a plain one written from its rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from engine.generation.beam import BeamSearch
from engine.generation.free import FreeSearch
from engine.generation.lookahead import best_below
from engine.generation.model import LanguageModel
from engine.generation.trie import Trie
from tests.support.language_models import tiny_model

END = 1


def authors_search(
    model: LanguageModel,
    prompt: list[int],
    names: Sequence[tuple[int, ...]],
    beams: int,
    max_tokens: int,
    worth: Mapping[tuple[int, ...], float] | None = None,
) -> dict[tuple[int, ...], float]:
    """Return the finished names and their scores: no trie, no cache, every prefix compared with every name.

    At each step, all extensions of unfinished beams by a token that some name allows, with probabilities
    over these tokens, and all finished beams are ordered by log P / ((5 + length) / 6) ** 0.6; the best
    ``beams`` stay. What a name is worth besides, the best one that begins so, is added to log P.
    """

    def score(one: tuple[tuple[int, ...], float]) -> float:
        tokens, logprob = one
        ahead = max(worth[n] for n in names if n[: len(tokens)] == tokens) if worth else 0
        return (logprob + ahead) / ((5 + len(tokens)) / 6) ** 0.6

    living: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for length in range(max_tokens):
        rivals = [one for one in living if one[0][-1:] == (END,)]
        going = [one for one in living if one[0][-1:] != (END,)]
        with torch.inference_mode():
            inputs = torch.tensor([[*prompt, *tokens] for tokens, _ in going])
            logits_BV = model.model(inputs).logits[:, -1].double()
        for (tokens, logprob), logits in zip(going, logits_BV, strict=True):
            allowed = sorted({n[length] for n in names if n[:length] == tokens and len(n) > length})
            among = logits[allowed].log_softmax(0).tolist()
            rivals += [((*tokens, t), logprob + p) for t, p in zip(allowed, among, strict=True)]
        rivals.sort(key=lambda one: -score(one))
        living = rivals[:beams]
        if all(tokens[-1] == END for tokens, _ in living):
            break
    return {tokens: score((tokens, logprob)) for tokens, logprob in living if tokens[-1] == END}


@pytest.mark.parametrize(("seed", "ahead"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 6)])
def test_finds_what_the_authors_search_finds(seed: int, ahead: float) -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(seed)
    model = tiny_model("llama", seed=seed % 2)
    drawn = [(*random.integers(2, 6, random.integers(0, 8)).tolist(), END) for _ in range(60)]
    names = sorted(set(drawn))
    trie = Trie.build([list(name) for name in names])
    some = np.sort(random.permutation(len(names))[: len(names) // 2]).astype(np.int32)
    scores = -ahead * random.random(len(names)).astype(np.float32)
    steered = [best_below(trie, scores), best_below(trie.restrict(some), scores[some])] if ahead else []
    worth = dict(zip(names, scores.tolist(), strict=True)) if ahead else None
    prompts = [random.integers(2, 300, 4).tolist(), random.integers(2, 300, 6).tolist()]
    crowded = 0
    for beams, max_tokens in ((1, 20), (3, 20), (8, 20), (8, 4), (80, 20)):
        search = BeamSearch(model, beams, max_tokens, competing=True)
        found = search(prompts, [trie, trie.restrict(some)], steered)
        for one, prompt, own in zip(found, prompts, (names, [names[i] for i in some]), strict=True):
            expected = authors_search(model, prompt, own, beams, max_tokens, worth)
            by_name = {names[i]: score for i, score in zip(one.ids, one.scores, strict=True)}
            assert by_name.keys() == expected.keys()
            assert all(math.isclose(by_name[n], expected[n], abs_tol=1e-4) for n in expected)
            assert (np.diff(one.scores) <= 0).all()
        aside = BeamSearch(model, beams, max_tokens)(prompts[:1], [trie], steered[:1])[0]
        crowded += aside.ids.tolist() != found[0].ids.tolist()
    assert crowded, "the rule makes a difference"


@pytest.mark.parametrize("beams", [1, 5, 12])
def test_without_a_trie_the_same_rule_holds_over_the_whole_vocabulary(beams: int) -> None:
    model, prompt, most = tiny_model("llama"), [5, 80, 7], 4
    search = FreeSearch(model, [], beams, most)
    with torch.inference_mode():
        end = search._end = int(model.model(torch.tensor([prompt])).logits[0, -1].argsort()[-3])
    living: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(most):
        rivals = [one for one in living if one[0][-1:] == (end,)]
        for tokens, logprob in living:
            if tokens[-1:] != (end,):
                with torch.inference_mode():
                    logits = model.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double()
                after = enumerate(logits.log_softmax(0).tolist())
                rivals += [((*tokens, token), logprob + p) for token, p in after]
        living = sorted(rivals, key=lambda one: -one[1] / ((5 + len(one[0])) / 6) ** 0.6)[:beams]
    found = search.texts(prompt)
    assert beams == 1 or any(tokens[-1] == end for tokens, _ in living)
    assert [one.tokens for one in found] == [tokens for tokens, _ in living]
    np.testing.assert_allclose([one.logprob for one in found], [lp for _, lp in living], atol=1e-4)
