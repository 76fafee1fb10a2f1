"""Measure how fast mentions are typed, against the bare encoder in a loop.

The bare loop is what one writes first: the question around each mention as text, the library's tokenizer and
model on batches in the order of the mentions, padded to the longest, the whole last layer, and no label
scored; in float32, and in the products that the processor computes fastest. Ours scores as many labels as
UFET has beside it, by a model without training. The floor is the bare model over the same tokens without any
padding, in these products.

    python -m benchmarks.typing
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModel

from benchmarks.report import medians, report
from engine.corpus.inputs.masking import load_tokenizer
from engine.models.hub import embedded_model_path
from engine.models.text import fast_dtype
from engine.typing.mentions import Mention, TypedMention
from engine.typing.model import TypingModel
from engine.typing.offset import fit_offset
from examples.make_sample import write_sample
from jobs import console

LABELS = 10_331
"""As many as UFET has."""

HELD = 5
"""Types of a mention, for the score that an untrained model begins at: as many as UFET's have."""

BAR = 0.9
"""Ours must type at least so many mentions a second for each of the bare loop's."""


def sample_mentions(most: int) -> list[Mention]:
    """Return mentions of the sample corpus: the first place of the entity's name in each sentence."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder))
        lines = (Path(folder) / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        row = json.loads(line)
        left, name, right = row["sentence"].partition(row["entity"])
        if name:
            found.append(Mention(left.rstrip(), name, right.lstrip()))
    return found[:most]


def word_labels(tokenizer: Any) -> list[str]:
    """Return as many labels as UFET has: whole words of the tokenizer."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii())
    return words[:LABELS]


def products(fast: bool) -> AbstractContextManager[Any]:
    """Return a context of the products that ours computes in, or of float32."""
    dtype = fast_dtype(torch.device("cpu"))
    return torch.autocast("cpu", dtype, enabled=fast and dtype != torch.float32)


def bare_loop(
    mentions: list[Mention], tokenizer: Any, model: Any, batch: int, fast: bool
) -> Callable[[], None]:
    """Return the loop that one writes first."""
    texts = [f"{one.left} [ {one.text} ] (Type: {tokenizer.mask_token}) {one.right}" for one in mentions]

    @torch.inference_mode()
    def run() -> None:
        for start in range(0, len(texts), batch):
            some = tokenizer(
                texts[start : start + batch],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            with products(fast):
                states_BLD = model(**some).last_hidden_state
            _ = states_BLD[some["input_ids"] == tokenizer.mask_token_id]

    return run


def floor(tokens: int, model: Any, batch: int, length: int) -> Callable[[], None]:
    """Return the bare model over so many tokens, in rows of the mean length without padding."""
    ids_RL = torch.randint(1000, 20_000, (max(tokens // length, 1), length))

    @torch.inference_mode()
    def run() -> None:
        for start in range(0, len(ids_RL), batch):
            with products(fast=True):
                model(input_ids=ids_RL[start : start + batch])

    return run


def main(
    mentions: Annotated[int, typer.Option(help="Mentions that are typed.")] = 2000,
    batch: Annotated[int, typer.Option(help="Mentions of a batch of the bare loop.")] = 64,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.")] = 2,
) -> None:
    """Measure the typing of mentions."""
    torch.set_num_threads(threads)
    some, tokenizer = sample_mentions(mentions), load_tokenizer("embedded")
    typing = TypingModel.begin("embedded", word_labels(tokenizer))
    fit_offset(typing, [TypedMention("", one, tuple(typing.labels[:HELD])) for one in some])
    bare = AutoModel.from_pretrained(embedded_model_path(), attn_implementation="sdpa").eval()
    asked = [typing.inputs.assemble(parts) for parts in typing.inputs.tokens(some)]
    tokens = sum(len(one.ids) for one in asked)
    seconds = medians(
        {
            "ours": lambda: typing.types(some),
            "bare": bare_loop(some, tokenizer, bare, batch, fast=False),
            "fast": bare_loop(some, tokenizer, bare, batch, fast=True),
            "floor": floor(tokens, bare, batch, round(tokens / len(some))),
        },
        rounds,
        warm_up=1,
    )
    per_second = {name: len(some) / taken for name, taken in seconds.items()}
    ratio, least = (seconds[name] / seconds["ours"] for name in ("bare", "fast"))
    rows = {
        "ours": "ours",
        "bare": "bare encoder in a loop",
        "fast": "the same, fastest products",
        "floor": "floor",
    }
    report(
        f"typing {len(some)} mentions of {tokens / len(some):.0f} tokens, {len(typing.labels)} labels, "
        f"MiniLM, {threads} threads (median of {rounds})",
        ["", "mentions/s", "against the bare loop"],
        [
            [name, f"{per_second[key]:.0f}", f"{per_second[key] / per_second['bare']:.2f}"]
            for key, name in rows.items()
        ],
        name="typing",
        ratio=ratio,
        ratio_fast=least,
        floor_ratio=seconds["ours"] / seconds["floor"],
        mentions_per_second=per_second["ours"],
        holds=min(ratio, least) >= BAR,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.typing")
