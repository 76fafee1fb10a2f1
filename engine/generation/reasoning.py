"""Reason by chain of thought: the model names the class of the seeds before it lists more (section 5.2.2).

Decoding is greedy, 20 tokens at most, to the end of the first line or sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.generation.artifacts import Artifacts
from engine.generation.model import LanguageModel
from engine.generation.prompts import CotLevel, attribute_prompt, class_prompt
from engine.query import Query

MAX_TOKENS = 20
MAX_CHARACTERS = 200


def class_names(artifacts: Artifacts, queries: Sequence[Query], cot_level: CotLevel) -> list[str]:
    """Return for each query what its entities are called in the prompt; empty for level "none"."""
    if cot_level == "none" or not queries:
        return [""] * len(queries)
    names, model = artifacts.names, artifacts.model
    positive = [q.seed_names(q.positive, names) for q in queries]
    classes = complete(model, [class_prompt(seeds) for seeds in positive])
    if cot_level == "class":
        return classes
    shared = complete(model, [attribute_prompt(p, c) for p, c in zip(positive, classes, strict=True)])
    described = [f"{c} that {s}" if s else c for c, s in zip(classes, shared, strict=True)]
    if cot_level == "positive":
        return described
    asked = [i for i, q in enumerate(queries) if q.negative]
    negative = [queries[i].seed_names(queries[i].negative, names) for i in asked]
    prompts = [attribute_prompt(seeds, classes[i]) for i, seeds in zip(asked, negative, strict=True)]
    for i, text in zip(asked, complete(model, prompts), strict=True):
        if text:
            described[i] += f" and not ones that {text}"
    return described


def complete(model: LanguageModel, prompts: Sequence[str]) -> list[str]:
    """Return the likeliest continuation of each prompt, token by token, up to the end of its sentence.

    Raises:
        QueryError: a prompt does not fit the model.
    """
    if not prompts:
        return []
    encoded = [model.encode(prompt) for prompt in prompts]
    model.check_length(max(map(len, encoded)) + MAX_TOKENS)
    state = model.prefill(encoded)
    rows = torch.arange(len(prompts), device=model.device)
    columns = []
    for _ in range(MAX_TOKENS):
        token_B = model.logits(state.hidden_BD).argmax(-1)
        columns.append(token_B.cpu())
        state = model.advance(state, rows, token_B)
    texts = model.tokenizer.batch_decode(torch.stack(columns, 1), skip_special_tokens=True)
    return [text.strip().split("\n")[0].split(". ")[0].rstrip(". ")[:MAX_CHARACTERS] for text in texts]
