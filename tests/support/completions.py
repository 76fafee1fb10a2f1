"""A stand-in for completions that echo a prompt with its log-probabilities, computed by a model."""

from __future__ import annotations

import json
from typing import Any

import torch

from engine.generation.model import LanguageModel
from tests.support.chat_server import MODEL, Answering, Reply

PATH = "/v1/completions"


def echoed(model: LanguageModel, **changed: Any) -> Answering:
    """Return what answers as vLLM does: the token that begins a text is echoed, too, and counted in places.

    Args:
        model: computes them.
        changed: what each choice says in place of it.
    """

    def reply(asked: dict[str, Any]) -> Reply:
        assert (asked["echo"], asked["logprobs"], asked["max_tokens"]) == (True, 0, 0)
        choices = [{**choice(model, i, text), **changed} for i, text in enumerate(asked["prompt"])]
        tokens = sum(len(model.encode(text)) for text in asked["prompt"])
        usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
        body = {
            "id": "x",
            "object": "text_completion",
            "model": MODEL,
            "choices": choices[::-1],
            "usage": usage,
        }
        return Reply(body=json.dumps(body).encode())

    return reply


@torch.inference_mode()
def choice(model: LanguageModel, index: int, text: str) -> dict[str, Any]:
    """Return one choice."""
    ids = model.encode(text)
    logits_TV = model.model(torch.tensor([ids])).logits[0].double()
    after = logits_TV[:-1].log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]].tolist()
    places = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    begin = model.tokenizer.bos_token
    tokens = [begin, *(text[a:b] for a, b in places)]
    offsets = [0, *(len(begin) + a for a, _ in places)]
    logprobs = {
        "tokens": tokens,
        "token_logprobs": [None, *after],
        "text_offset": offsets,
        "top_logprobs": None,
    }
    return {"index": index, "text": text, "finish_reason": "length", "logprobs": logprobs}
