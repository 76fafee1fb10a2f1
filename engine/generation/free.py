"""Search by beams without the trie: the ablation of the paper's table 3.

The same search as with the trie (:mod:`engine.generation.beam`, ``competing``), over the whole vocabulary of
tokens. What comes out is text; only what happens to be a name of the vocabulary counts. (The paper does not
say whether other text took places in its lists; its authors' program has no such search.)

Shape letters: B beams, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from engine.generation.beam import BeamResult
from engine.generation.model import LanguageModel
from engine.generation.prompts import LAST_WORD, name_text
from engine.generation.trie import Trie
from engine.query import Scores


class _Beam(NamedTuple):
    """The tokens of a text so far, and its log-probability; its row among the unfinished, -1 if finished."""

    tokens: tuple[int, ...]
    logprob: float
    row: int


class FreeSearch:
    """A search by beams over all texts, which are looked up among the names.

    Args:
        model: gives the probabilities.
        names: of all entities, by id.
        beams: texts kept a step, finished ones among them.
        max_tokens: longer texts are not found.
        length_penalty: p in score = log-probability / ((5 + length) / 6)^p.
    """

    def __init__(
        self,
        model: LanguageModel,
        names: Sequence[str],
        beams: int,
        max_tokens: int,
        length_penalty: float = 0.6,
    ) -> None:
        self._model, self._beams, self._max_tokens = model, beams, max_tokens
        self._length_penalty = length_penalty
        self.forward_passes = 0
        self._ids: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            self._ids.setdefault(name, []).append(i)
        # The last token of the end of a name: after it nothing more belongs to the list.
        self._end = model.encode_after([name_text("a")], LAST_WORD)[0][-1]

    def __call__(
        self, prompts: Sequence[Sequence[int]], tries: Sequence[Trie], lookahead: Sequence[Scores | None] = ()
    ) -> list[BeamResult]:
        """Return what of each prompt's beams is a name of its trie, best first.

        A look-ahead is not used, and ``Generate`` refuses one here: a text that is no name yet has no node.
        """
        return [self._search(prompt, trie) for prompt, trie in zip(prompts, tries, strict=True)]

    def _search(self, prompt: Sequence[int], trie: Trie) -> BeamResult:
        beams = self.texts(prompt)
        decoded = self._model.tokenizer.batch_decode([b.tokens for b in beams], skip_special_tokens=True)
        end = name_text("")[1:]
        found: dict[int, tuple[float, float]] = {}
        for text, beam in zip(decoded, beams, strict=True):
            name, ended, _ = text.partition(end)
            for i in self._ids.get(name.strip(), ()) if ended else ():
                found.setdefault(i, (self._score(beam), beam.logprob))
        ids = np.fromiter(found, np.int32, len(found))
        scores, logprobs = np.array(list(found.values()), np.float32).reshape(-1, 2).T
        wanted = np.isin(ids, trie.entity_ids)
        return BeamResult(ids[wanted], scores[wanted], logprobs[wanted])

    def texts(self, prompt: Sequence[int]) -> list[_Beam]:
        """Return the best texts after a prompt, finished or at their longest, best first."""
        model, end = self._model, self._end
        model.check_length(len(prompt) + self._max_tokens)
        state = model.prefill([prompt])
        self.forward_passes += 1
        beams = [_Beam((), 0.0, 0)]
        for length in range(1, self._max_tokens + 1):
            living = sorted((b for b in beams if b.row >= 0), key=lambda b: b.row)
            logprob_B = torch.tensor([b.logprob for b in living], device=model.device)
            total_BV = logprob_B[:, None] + model.logits(state.hidden_BD).log_softmax(-1)
            best, place = total_BV.flatten().topk(min(self._beams, total_BV.numel()))
            rivals = [b for b in beams if b.row < 0]
            for logprob, at in zip(best.tolist(), place.tolist(), strict=True):
                parent, token = divmod(at, total_BV.shape[1])
                rivals.append(_Beam((*living[parent].tokens, token), logprob, -1 if token == end else parent))
            beams = sorted(rivals, key=self._score, reverse=True)[: self._beams]
            going = [b for b in beams if b.row >= 0]
            if not going or length == self._max_tokens:
                break
            rows, tokens = torch.tensor([b.row for b in going]), torch.tensor([b.tokens[-1] for b in going])
            state = model.advance(state, rows, tokens)
            self.forward_passes += 1
            row = iter(range(len(going)))
            beams = [b._replace(row=next(row)) if b.row >= 0 else b for b in beams]
        return beams

    def _score(self, beam: _Beam) -> float:
        return beam.logprob / ((5 + len(beam.tokens)) / 6) ** self._length_penalty
