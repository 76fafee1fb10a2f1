"""Measure a whole GenExpan query, all rounds, scoring and re-ranking, against the plain program.

Both run the same rounds on the same draws: generation by 40 beams, selection, in the end the likelihood
of all that was accepted, and segments by the likelihood of the negative seeds. The plain program searches
without a cache and remembers no score, as the authors' does (:mod:`benchmarks.plain_search`,
:func:`benchmarks.likelihood.plain_round`). The lists are equal, which is checked. The model is a LLaMA of
24M parameters with random weights, float32; names are wikispeedia's.

    python -m benchmarks.whole_query
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.likelihood import TOKENIZER, Round, plain_round, random_llama
from benchmarks.plain_search import nested_trie, plain_search
from benchmarks.report import report
from benchmarks.trie import SHARED, TITLES, titles, tokenised
from engine.generation.artifacts import Artifacts
from engine.generation.beam import BeamResult, BeamSearch
from engine.generation.expansion import ExpansionState, Rules, Search, run_rounds
from engine.generation.likelihood import Likelihood, Request
from engine.generation.model import LanguageModel
from engine.generation.reasoning import Reasoning
from engine.generation.trie import Trie
from engine.query import Ids, Query, Scores
from engine.stages.rerank import equal_segments
from jobs import console

BEAMS, MAX_TOKENS, NAMES, SEGMENT = 40, 20, 4_092, 4
BAR = 12.0
"""Ours must be so many times faster."""

EXAMPLES = """
  python -m benchmarks.whole_query
  python -m benchmarks.whole_query --rounds 23
"""


class PlainSearch:
    """Every prompt for itself, by the plain search."""

    def __init__(self, model: LanguageModel, sequences: Sequence[Sequence[int]]) -> None:
        self._model, self._nested = model, nested_trie(sequences, range(len(sequences)))

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        tries: Sequence[Trie],
        lookahead: Sequence[Scores | None] = (),
    ) -> list[BeamResult]:
        """Return what :class:`BeamSearch` finds."""
        return [self._search(prompt) for prompt in prompts]

    def _search(self, prompt: Sequence[int]) -> BeamResult:
        entries = plain_search(self._model, prompt, self._nested, BEAMS, MAX_TOKENS)
        scores = np.array([e.score for e in entries], np.float32)
        logprobs = np.array([e.logprob for e in entries], np.float32)
        return BeamResult(np.array([e.entity for e in entries], np.int32), scores, logprobs)


class PlainLikelihood:
    """Every pair anew, a round in one batch."""

    def __init__(self, model: LanguageModel, names: Sequence[str]) -> None:
        self._model, self._names = model, names

    def means(self, requests: Sequence[Request]) -> list[Scores]:
        """Return what :meth:`Likelihood.means` does."""
        return [
            plain_round(self._model, self._names, Round(ids, [int(seed) for seed in seeds])).mean(axis=1)
            for ids, seeds in requests
        ]


def answer(artifacts: Artifacts, search: Search, query: Query, rounds: int) -> Ids:
    """Return the list of one query after so many rounds."""
    random = np.random.default_rng([13, *query.positive])
    one = ExpansionState(query, artifacts.trie, Reasoning(), NAMES, random)
    for _ in run_rounds(artifacts, search, [one], Rules(max_rounds=rounds), query_batch_size=1):
        pass
    ids, _, _ = one.ranked(NAMES)
    (positive,) = artifacts.likelihood.means([(ids, query.positive)])
    ids = ids[np.lexsort((ids, -positive))]
    (negative,) = artifacts.likelihood.means([(ids, query.negative)])
    return ids[np.lexsort((negative, equal_segments(len(ids), SEGMENT)))]


def timed(run: Callable[[], Ids]) -> tuple[float, Ids]:
    """Return the seconds of a call, and what it returned."""
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of the query.")] = 8,
    repeats: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 2,
) -> None:
    """Measure a whole query."""
    missing = [p for p in (TOKENIZER, *(SHARED / f"data/{n}.tar.xz" for n in TITLES)) if not p.exists()]
    if missing:
        print(f"skipped: needs ../shared/{missing[0].relative_to(SHARED)}")
        return
    torch.set_num_threads(threads)
    model, names = random_llama(TOKENIZER), titles()[-NAMES:]
    sequences = tokenised(names, NAMES)
    query = Query("benchmark", (1, 2, 3), (4, 5, 6))
    likelihood: Any = PlainLikelihood(model, names)
    plain = Artifacts(model, Trie.build(sequences), names, lambda _: "", likelihood)
    slow, quick = PlainSearch(model, sequences), BeamSearch(model, BEAMS, MAX_TOKENS)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    size = 0
    for _ in range(repeats):
        ours = replace(plain, likelihood=Likelihood(model, names))  # nothing remembered yet
        spent, found = timed(lambda ours=ours: answer(ours, quick, query, rounds))  # type: ignore[misc]
        seconds["ours"].append(spent)
        spent, expected = timed(lambda: answer(plain, slow, query, rounds))
        seconds["plain"].append(spent)
        if found.tolist() != expected.tolist():
            raise AssertionError("the plain program and ours give different lists")
        size = len(found)
    middle = {name: float(np.median(values)) for name, values in seconds.items()}
    report(
        f"a whole query, {rounds} rounds, {size} entities, {BEAMS} beams, LLaMA of 24M parameters, float32, "
        f"{threads} threads (median of {repeats})",
        ["program", "seconds", "times ours"],
        [[n, f"{s:.2f}", f"{s / middle['ours']:.1f}"] for n, s in middle.items()],
        name="whole_query",
        ratio=middle["plain"] / middle["ours"],
        holds=middle["plain"] >= BAR * middle["ours"],
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
