"""Measure the search of names as one types, against a look at every name.

Names are invented, from a fixed seed. What is typed is drawn from them: beginnings of names, single words,
parts of words, two words in the other order, and names with two neighbouring letters swapped. The comparison
is rapidfuzz's `process.extract` over all names, which knows no words and no order of kinds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Annotated

import typer
from rapidfuzz import fuzz, process

from benchmarks.invented import invented_names, invented_word
from benchmarks.report import report
from engine.text.spelling import look_key
from engine.vocabulary import Vocabulary
from jobs import console

LIMIT = 10
WORDS_PER_NAME = 0.3
BAR_MS = 20.0
"""Of the median search of 1,000,000 names."""

PLAIN = 10
"""Searches by the comparison, which takes seconds for each."""

EXAMPLES = """
  python -m benchmarks.name_search
  python -m benchmarks.name_search --names 50000
"""


def typed(rng: random.Random, names: list[str]) -> dict[str, str]:
    """Return one text of each kind that people type."""
    name = rng.choice(names)
    words = rng.choice([name for name in rng.sample(names, 50) if " " in name]).split()
    word = max(rng.choice(names).split(), key=len)
    at = rng.randrange(max(1, len(name) - 2))
    swapped = name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :]
    return {
        "beginning": name[: rng.randint(2, max(2, len(name) - 1))],
        "word": word,
        "part of a word": word[1:-1] or word,
        "words in another order": " ".join(reversed(words)),
        "misspelt": swapped,
    }


def main(
    names: Annotated[int, typer.Option(help="Names in the vocabulary.")] = 1_000_000,
    searches: Annotated[int, typer.Option(help="Texts of each kind.")] = 100,
) -> None:
    """Measure the search of names."""
    rng = random.Random(0)
    words = [invented_word(rng) for _ in range(max(100, int(names * WORDS_PER_NAME)))]
    known = invented_names(rng, words, names)
    vocabulary = Vocabulary(known)
    started = time.perf_counter()
    vocabulary.prepare()
    prepared = time.perf_counter() - started
    texts = [typed(rng, known) for _ in range(searches)]
    own = {
        kind: timed([t[kind] for t in texts], lambda t: list(islice(vocabulary.search(t), LIMIT)))
        for kind in texts[0]
    }
    keys = [look_key(name) for name in known]
    some = [text for one in texts for text in one.values()][:PLAIN]
    plain = statistics.median(
        timed(some, lambda t: process.extract(look_key(t), keys, scorer=fuzz.WRatio, limit=LIMIT))
    )
    median = statistics.median([seconds for kind in own.values() for seconds in kind])
    rows = [
        [
            kind,
            f"{1e3 * statistics.median(seconds):.2f}",
            f"{1e3 * statistics.quantiles(seconds, n=20)[-1]:.1f}",
        ]
        for kind, seconds in own.items()
    ]
    rows += [["all", f"{1e3 * median:.2f}", ""], ["every name compared", f"{1e3 * plain:.0f}", ""]]
    holds = 1e3 * median < BAR_MS
    report(
        f"search of {names:,} names, {LIMIT} answers (tables made in {prepared:.1f} s), milliseconds",
        ["typed", "median", "95th percentile"],
        rows,
        name="name_search",
        ratio=plain / median,
        floor_ratio=None,
        names=names,
        median_ms=1e3 * median,
        prepare_s=prepared,
        holds=holds,
    )
    raise typer.Exit(not holds)


def timed(texts: list[str], search: Callable[[str], object]) -> list[float]:
    """Return the seconds of each search."""
    seconds = []
    for text in texts:
        started = time.perf_counter()
        search(text)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    console.run(main, EXAMPLES)
