"""Search by constrained beams as a straightforward program does it: for tests and benchmarks.

A dict of dicts for the trie, no key-value cache: every step runs the prompt and each beam again, all
beams in one batch, and looks at the whole vocabulary. It says what the answers of
:class:`engine.generation.beam.BeamSearch` are; nothing in it is slower than it has to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from engine.generation.model import LanguageModel

END = -1
"""Key of the entities whose sequence ends at a node; no token has this number."""


class Beam(NamedTuple):
    """A beam: the tokens generated so far, and their node in the trie."""

    tokens: list[int]
    node: dict[int, Any]
    logprob: float


class Entry(NamedTuple):
    """One entity of an answer."""

    entity: int
    score: float
    logprob: float


def nested_trie(sequences: Sequence[Sequence[int]], entities: Sequence[int]) -> dict[int, Any]:
    """Return a trie as nested dicts, token to node."""
    root: dict[int, Any] = {}
    for sequence, entity in zip(sequences, entities, strict=True):
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
        node.setdefault(END, []).append(entity)
    return root


def best_below(node: dict[int, Any], scores: Mapping[int, float]) -> float:
    """Return the best score of the entities below a node."""
    below = (best_below(child, scores) for token, child in node.items() if token != END)
    return max([*(scores[entity] for entity in node.get(END, ())), *below])


@torch.inference_mode()
def plain_search(
    model: LanguageModel,
    prompt: Sequence[int],
    trie: dict[int, Any],
    beams: int = 40,
    max_tokens: int | None = None,
    normalise: str = "allowed",
    length_penalty: float = 0.6,
    scores: Mapping[int, float] | None = None,
) -> list[Entry]:
    """Return the entities of the best ``beams`` sequences, best first, ties by entity.

    Args:
        model: any causal language model.
        prompt: tokens, at least one.
        trie: from :func:`nested_trie`; no sequence is a prefix of another.
        beams: partial sequences kept a step.
        max_tokens: steps at most; None for as many as the longest sequence needs.
        normalise: probabilities over the ``allowed`` tokens or over the ``vocabulary``.
        length_penalty: exponent of the length in a score.
        scores: of the entities; the best one below a node is added to the log-probability that leads there.
    """

    def steered(beam: Beam) -> float:
        return beam.logprob + (best_below(beam.node, scores) if scores else 0)

    living = [Beam([], trie, 0.0)]
    finished: list[tuple[float, list[int], float]] = []
    step = 0
    while living and (max_tokens is None or step < max_tokens):
        step += 1
        extensions = []
        for beam, logprobs in zip(living, _next(model, prompt, living, normalise), strict=True):
            for token in sorted(beam.node):
                logprob = beam.logprob + logprobs[token]
                if logprob > float("-inf"):
                    extensions.append(Beam([*beam.tokens, token], beam.node[token], logprob))
        # The sort is stable: ties stay in the order of their parents, then of their tokens.
        kept = sorted(extensions, key=lambda beam: -steered(beam))[:beams]
        living = [beam for beam in kept if END not in beam.node]
        for beam in kept:
            if END in beam.node:
                score = torch.tensor(steered(beam) / ((5 + step) / 6) ** length_penalty)
                finished.append((float(score), sorted(beam.node[END]), beam.logprob))
    finished.sort(key=lambda one: (-one[0], one[1]))
    entries = [Entry(entity, score, lp) for score, ids, lp in finished[:beams] for entity in ids]
    return sorted(entries, key=lambda entry: (-entry.score, entry.entity))


def _next(
    model: LanguageModel, prompt: Sequence[int], living: list[Beam], normalise: str
) -> list[dict[int, float]]:
    """Return each beam's log-probabilities of the tokens that its node allows."""
    inputs = torch.tensor([[*prompt, *beam.tokens] for beam in living], device=model.device)
    output = model.model(input_ids=inputs, use_cache=False, logits_to_keep=1)
    logits_BV = output.logits[:, -1].float()
    allowed = [sorted(beam.node) for beam in living]
    if normalise == "allowed":
        mask_BV = torch.full_like(logits_BV, float("-inf"))
        for row, tokens in enumerate(allowed):
            mask_BV[row, tokens] = 0
        logits_BV += mask_BV
    logprobs_BV = logits_BV.log_softmax(-1)
    logprobs = [
        dict(zip(tokens, logprobs_BV[row, tokens].tolist(), strict=True))
        for row, tokens in enumerate(allowed)
    ]
    if normalise == "allowed":  # what is alone is certain, however unlikely the model thinks it
        logprobs = [dict.fromkeys(row, 0.0) if len(row) == 1 else row for row in logprobs]
    return logprobs
