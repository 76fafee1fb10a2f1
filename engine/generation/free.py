"""Search by beams without the trie: the ablation of the paper's table 3.

What comes out is text; only what happens to be a name of the vocabulary counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.generation.beam import BeamResult
from engine.generation.model import LanguageModel
from engine.generation.prompts import LAST_WORD, name_text
from engine.generation.trie import Trie


class FreeSearch:
    """A search by transformers' own beams, whose texts are looked up among the names."""

    def __init__(self, model: LanguageModel, names: Sequence[str], beams: int, max_tokens: int) -> None:
        self._model, self._beams, self._max_tokens = model, beams, max_tokens
        self.forward_passes = 0
        self._ids: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            self._ids.setdefault(name, []).append(i)
        # The last token of the end of a name: after it nothing more belongs to the list.
        self._end = model.encode_after([name_text("a")], LAST_WORD)[0][-1]

    def __call__(self, prompts: Sequence[Sequence[int]], tries: Sequence[Trie]) -> list[BeamResult]:
        """Return what of each prompt's beams is a name of its trie, best first."""
        return [self._search(prompt, trie) for prompt, trie in zip(prompts, tries, strict=True)]

    @torch.inference_mode()
    def _search(self, prompt: Sequence[int], trie: Trie) -> BeamResult:
        model = self._model.model
        self._model.check_length(len(prompt) + self._max_tokens)
        ids_1T = torch.tensor([list(prompt)], device=model.device)
        output = model.generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            num_beams=self._beams,
            num_return_sequences=self._beams,
            max_new_tokens=self._max_tokens,
            do_sample=False,
            eos_token_id=self._end,
            pad_token_id=self._end,
            output_scores=True,
            return_dict_in_generate=True,
        )
        self.forward_passes += output.sequences.shape[1] - len(prompt)
        texts = self._model.tokenizer.batch_decode(
            output.sequences[:, len(prompt) :], skip_special_tokens=True
        )
        scores = dict[int, float]()
        for text, score in zip(texts, output.sequences_scores.tolist(), strict=True):
            for i in self._ids.get(text.split("\n")[0].strip().removesuffix("."), ()):
                scores.setdefault(i, score)
        found = np.fromiter(scores, np.int32, len(scores))
        values = np.fromiter(scores.values(), np.float32, len(scores))
        wanted = np.isin(found, trie.entity_ids)
        return BeamResult(found[wanted], values[wanted], values[wanted])
