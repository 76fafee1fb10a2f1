"""Measure constrained beam search against a plain one, transformers' own, and the bare model.

The plain search is that of the authors' program in outline: a dict of dicts, and prompt and beams anew
through the model at each step (it gives the same answers, which is checked). transformers searches by
``generate`` with ``prefix_allowed_tokens_fn``, the same dict of dicts, as many beams and answers, and its
quickest way to stop; its length penalty is another. The floor is the time that our search itself spends in
the model. The share of the trie is the time in the trie and in laying out what it allows.

Names are those of :mod:`benchmarks.trie`; the model is a LLaMA with random weights, float32. All figures
are ratios of times taken in the same run, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.likelihood import TOKENIZER, random_llama
from benchmarks.plain_search import END, nested_trie, plain_search
from benchmarks.report import medians, report
from benchmarks.trie import SHARED, TITLES, titles, tokenised
from engine.generation import beam
from engine.generation.beam import BeamSearch
from engine.generation.model import LanguageModel
from engine.generation.prompts import list_prompt
from engine.generation.trie import Trie
from engine.generation.trie_batch import TrieBatch
from jobs import console

BEAMS, MAX_TOKENS, QUERIES = 40, 20, 8
BARS = {"plain": 10.0, "transformers": 2.0, "trie_share": 0.02}
"""Times that ours must be faster; the trie's part of a search at most."""

MODEL_WORK = [(LanguageModel, name) for name in ("prefill", "advance", "logits")]
TRIE_WORK = [(beam._Search, "_extensions"), (TrieBatch, "tokens_left"), (TrieBatch, "entities_at")]

EXAMPLES = """
  python -m benchmarks.beam_search
  python -m benchmarks.beam_search --large 0 --rounds 1
"""


@contextmanager
def stopwatch(methods: Sequence[tuple[type, str]]) -> Iterator[list[float]]:
    """Collect the seconds of every call of some methods while the block runs."""
    seconds: list[float] = []
    before = [getattr(owner, name) for owner, name in methods]

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            answer = method(*arguments, **options)
            seconds.append(time.perf_counter() - started)
            return answer

        return call

    for (owner, name), method in zip(methods, before, strict=True):
        setattr(owner, name, timed(method))
    try:
        yield seconds
    finally:
        for (owner, name), method in zip(methods, before, strict=True):
            setattr(owner, name, method)


def generated(model: LanguageModel, prompt: Sequence[int], trie: dict[int, Any]) -> Any:
    """Search by transformers' ``generate``."""
    end = model.tokenizer.eos_token_id

    def allowed(_batch: int, ids: torch.Tensor) -> list[int]:
        node = trie
        for token in ids[len(prompt) :].tolist():
            node = node.get(token, {END: []})
        return [end] if END in node else list(node)

    return model.model.generate(
        torch.tensor([prompt]),
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        max_new_tokens=MAX_TOKENS,
        prefix_allowed_tokens_fn=allowed,
        renormalize_logits=True,
        early_stopping=True,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
    )


def check(model: LanguageModel, prompt: Sequence[int], trie: Trie, nested: dict[int, Any]) -> None:
    """Stop the benchmark if the plain search answers otherwise."""
    [found] = BeamSearch(model, BEAMS, MAX_TOKENS)([prompt], [trie])
    plain = plain_search(model, prompt, nested, BEAMS, MAX_TOKENS)
    if found.ids.tolist() != [entry.entity for entry in plain]:
        raise AssertionError("the plain search and ours differ")
    np.testing.assert_allclose(found.scores, [entry.score for entry in plain], atol=1e-4)


def against_rivals(
    model: LanguageModel, prompts: Sequence[list[int]], sequences: Sequence[list[int]], rounds: int
) -> dict[str, float]:
    """Return the median seconds of a search by each program, and of all prompts in two ways."""
    trie, nested = Trie.build(sequences), nested_trie(sequences, range(len(sequences)))
    check(model, prompts[0], trie, nested)
    search = BeamSearch(model, BEAMS, MAX_TOKENS)
    first = prompts[0]
    seconds = medians(
        {
            "ours": lambda: search([first], [trie]),
            "transformers": lambda: generated(model, first, nested),
            "plain": lambda: plain_search(model, first, nested, BEAMS, MAX_TOKENS),
        },
        rounds,
        warm_up=1,
    )
    return seconds | medians(
        {
            "one by one": lambda: [search([prompt], [trie]) for prompt in prompts],
            "batch": lambda: search(prompts, [trie] * len(prompts)),
        },
        rounds,
        warm_up=1,
    )


def shares(model: LanguageModel, prompts: Sequence[list[int]], trie: Trie, rounds: int) -> dict[str, float]:
    """Return which parts of a search's time the model and the trie take, and a step's milliseconds."""
    search = BeamSearch(model, BEAMS, MAX_TOKENS)
    search(prompts[:1], [trie])
    total = steps = 0.0
    with (
        stopwatch(MODEL_WORK) as in_model,
        stopwatch(TRIE_WORK) as in_trie,
        stopwatch([(beam._Search, "step")]) as in_steps,
    ):
        for _ in range(rounds):
            for prompt in prompts:
                started = time.perf_counter()
                search([prompt], [trie])
                total += time.perf_counter() - started
        steps = len(in_steps)
    return {
        "model": sum(in_model) / total,
        "trie": sum(in_trie) / total,
        "step": 1e3 * total / steps,
        "rest of a step": 1e3 * (total - sum(in_model)) / steps,
    }


def main(
    names: Annotated[int, typer.Option(help="Names of the larger trie.")] = 50_000,
    small: Annotated[int, typer.Option(help="Names of the smaller trie, all of them titles.")] = 4_092,
    large: Annotated[int, typer.Option(help="Names of the trie whose share alone is measured; 0: none.")] = (
        1_000_000
    ),
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 2,
) -> None:
    """Measure BeamSearch on list prompts."""
    missing = [p for p in (TOKENIZER, *(SHARED / f"data/{n}.tar.xz" for n in TITLES)) if not p.exists()]
    if missing:
        print(f"skipped: needs ../shared/{missing[0].relative_to(SHARED)}")
        return
    torch.set_num_threads(threads)
    model, real = random_llama(TOKENIZER), titles()
    random = Random(0)
    prompts = [model.encode(list_prompt(random.sample(real, 3))) for _ in range(QUERIES)]
    # The last titles are those of wikispeedia.
    sequences = {small: tokenised(real[-small:], small), names: tokenised(real, names)}
    seconds = {size: against_rivals(model, prompts, sequences[size], rounds) for size in sequences}
    parts = {size: shares(model, prompts, Trie.build(sequences[size]), rounds) for size in sequences}
    if large:
        parts[large] = shares(model, prompts, Trie.build(tokenised(real, large)), rounds)
    show(seconds, parts, rounds)


def show(seconds: dict[int, dict[str, float]], parts: dict[int, dict[str, float]], rounds: int) -> None:
    """Print what was measured, by number of names."""
    ratio = {
        rival: {size: times[rival] / times["ours"] for size, times in seconds.items()}
        for rival in ("plain", "transformers")
    }
    batch = {size: times["one by one"] / times["batch"] for size, times in seconds.items()}
    share = {size: part["trie"] for size, part in parts.items()}
    rows = [
        [f"{name}, ms", *(f"{1e3 * times[name]:.1f}" for times in seconds.values())]
        for name in ("ours", "transformers", "plain")
    ]
    rows += [[f"{name} / ours", *(f"{r:.1f}" for r in by_size.values())] for name, by_size in ratio.items()]
    rows += [[f"{QUERIES} queries one by one / in a batch", *(f"{r:.2f}" for r in batch.values())]]
    rows = [[*row, *[""] * (len(parts) - len(seconds))] for row in rows]
    for label, name, form in (
        ("the model's part of a search", "model", ".1%"),
        ("the trie's part of a search", "trie", ".2%"),
        ("a step, ms", "step", ".2f"),
        ("of it outside the model, ms", "rest of a step", ".2f"),
    ):
        rows.append([label, *(f"{part[name]:{form}}" for part in parts.values())])
    least = {rival: min(by_size.values()) for rival, by_size in ratio.items()}
    report(
        f"constrained search, {BEAMS} beams, up to {MAX_TOKENS} tokens, LLaMA of 24M parameters, float32, "
        f"{torch.get_num_threads()} threads (median of {rounds})",
        ["names", *map(str, parts)],
        rows,
        name="beam_search",
        ratio=least["plain"],
        ratio_transformers=least["transformers"],
        ratio_batch=min(batch.values()),
        floor_ratio=max(1 / part["model"] for part in parts.values()),
        **{f"trie_share_{size}": part for size, part in share.items()},
        holds=least["plain"] >= BARS["plain"]
        and least["transformers"] >= BARS["transformers"]
        and max(share.values()) <= BARS["trie_share"],
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
