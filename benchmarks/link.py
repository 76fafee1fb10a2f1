"""Measure how fast names of a table are found in sentences, and, on a corpus with marks, how well.

Invented names of one to four words, and sentences with one of them each; one in twenty of the names' words is
a word of the sentences, too. Rivals: a dictionary that is asked for every run of words, as keyword libraries
do it, and one regular expression of all names, on few sentences, as it tries every name at every place. The
floor is the automaton alone: the places that are spelt like names, not yet judged. Ours starts from a built
automaton; what building it takes stands in the title.

With --marks, a folder in UltraWiki's layout, the sentences and the first names are its own, and all of it is
linked with its names hidden: a mention is right where the
sentence is one of the entity's. Entities with as many sentences as the most were cut to them, so that others
of their mentions are not marked: they are left out.

    python -m benchmarks.link
    python -m benchmarks.link --names 1000000 --marks wikispeedia
"""

from __future__ import annotations

import json
import random
import re
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.invented import invented_names, invented_sentence, invented_word
from benchmarks.report import medians, report
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.matcher import Matcher, Verdict
from engine.corpus.linking.rules import LinkRules
from engine.text.spelling import fold
from jobs import console
from jobs.steps.link_drawing import COMMON_SENTENCES, DrawSettings

BAR = 10_000
"""Sentences of a corpus that are linked in a second, on one core; of invented ones half: the worst case."""

QUALITY_BAR = 0.9
"""F1 against the marks."""

WORDS_A_NAME = 5
"""The longest run of words that the dictionary is asked for."""

EXPRESSION_SENTENCES, EXPRESSION_NAMES = 20, 50_000
"""Sentences that the regular expression is asked for, and names that it is made of at most."""

SHARED = 0.05
"""Share of the names' words that are words of the sentences."""


def with_dictionary(names: set[str], sentences: list[str]) -> int:
    """Find names, the longest first, by asking for every run of words; return how many."""
    found = 0
    for sentence in sentences:
        words = re.findall(r"\w+|[^\w\s]", sentence)
        at = 0
        while at < len(words):
            for size in range(min(WORDS_A_NAME, len(words) - at), 0, -1):
                if " ".join(words[at : at + size]) in names:
                    found, at = found + 1, at + size - 1
                    break
            at += 1
    return found


def with_expression(names: list[str], sentences: list[str]) -> int:
    """Find names by one regular expression; return how many."""
    longest_first = sorted(names, key=len, reverse=True)
    expression = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    return sum(len(expression.findall(sentence)) for sentence in sentences)


def memory_mib() -> int:
    """Return the memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() >> 20


def quality(folder: Path, rules: LinkRules, too_common: float) -> dict[str, float]:
    """Return precision, recall and F1 of a corpus whose names are hidden, and the share of its marks asked.

    Args:
        folder: in UltraWiki's layout.
        rules: by which it is linked.
        too_common: the share of sentences above which an ordinary word is left out, with its marks.
    """
    names = (folder / "entities.txt").read_text(encoding="utf-8").splitlines()
    by_name = json.loads((folder / "ent2sents.json").read_text(encoding="utf-8"))
    marks: dict[str, set[int]] = {}
    for entity, name in enumerate(names):
        for sentence in by_name.get(name, ()):
            marks.setdefault(sentence, set()).add(entity)
    most = max(map(len, by_name.values()))
    cut = {entity for entity, name in enumerate(names) if len(by_name.get(name, ())) == most}
    lexicon = Lexicon(names, [[]] * len(names))
    matcher = Matcher(lexicon, rules)
    places = {s: [p for p in matcher.find(s) if p.verdict is Verdict.LINKED] for s in marks}
    counts = Counter(place.key for some in places.values() for place in some)
    most_used = max(too_common * len(marks), COMMON_SENTENCES)
    common = {key for key, n in counts.items() if lexicon.is_word(key) and n > most_used and too_common < 1}
    out = cut | {place.entities[0] for some in places.values() for place in some if place.key in common}
    right = found = marked = 0
    for sentence, truth in marks.items():
        own = {place.entities[0] for place in places[sentence]} - out
        right, found, marked = right + len(own & truth), found + len(own), marked + len(truth - out)
    return {
        "precision": right / found,
        "recall": right / marked,
        "f1": 2 * right / (found + marked),
        "marks": marked / sum(map(len, marks.values())),
    }


def _invented(names: int, sentences: int) -> tuple[list[str], list[str]]:
    """Return names and sentences."""
    rng = random.Random(7)
    words = [invented_word(rng) for _ in range(20_000)]
    own = [invented_word(rng) for _ in range(names)]
    table = invented_names(rng, [*own, *words[: int(SHARED * names)]], names)
    return table, [invented_sentence(rng, words, rng.choice(table)) for _ in range(sentences)]


def _real(folder: Path, names: int, sentences: int) -> tuple[list[str], list[str]]:
    """Return the names of a corpus, filled up with invented ones, and some of its sentences."""
    own = (folder / "entities.txt").read_text(encoding="utf-8").splitlines()
    by_name = json.loads((folder / "ent2sents.json").read_text(encoding="utf-8"))
    texts = sorted({text for some in by_name.values() for text in some})
    filled = dict.fromkeys([*own, *_invented(names, 0)[0]])
    return list(filled)[:names], random.Random(7).sample(texts, min(sentences, len(texts)))


def main(
    names: Annotated[int, typer.Option(help="Names of the table.")] = 50_000,
    sentences: Annotated[int, typer.Option(help="Sentences that are linked.")] = 5000,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 5,
    marks: Annotated[Path | None, typer.Option(help="Folder in UltraWiki's layout, for the quality.")] = None,
) -> None:
    """Measure the linking of sentences, on one core."""
    table, texts = _invented(names, sentences) if marks is None else _real(marks, names, sentences)
    before, started = memory_mib(), time.perf_counter()
    matcher = Matcher(Lexicon(table, [[]] * names), LinkRules())
    built, memory = time.perf_counter() - started, memory_mib() - before
    found = sum(place.verdict is Verdict.LINKED for text in texts for place in matcher.find(text))
    known, folded = set(table), [fold(text) for text in texts]
    seconds = medians(
        {
            "ours": lambda: [matcher.find(text) for text in texts],
            "dictionary": lambda: with_dictionary(known, texts),
            "floor": lambda: [matcher.spelt_like_names(text) for text in folded],
        },
        rounds,
        warm_up=1,
    )
    expression = 0.0
    if names <= EXPRESSION_NAMES:
        started = time.perf_counter()
        with_expression(table, texts[:EXPRESSION_SENTENCES])
        expression = (time.perf_counter() - started) / EXPRESSION_SENTENCES * sentences
    quality_of = {}
    if marks is not None:
        quality_of = quality(marks, LinkRules(), DrawSettings().too_common)
        everything = quality(marks, LinkRules(), 1)
        shown = Table("", "precision", "recall", "F1", "of all marks", title="against marks", box=None)
        for title, one in (("as by default", quality_of), ("with ordinary words", everything)):
            shown.add_row(title, *(f"{one[name]:.3f}" for name in ("precision", "recall", "f1", "marks")))
        console.Console(highlight=False).print(shown)
    per_second = sentences / seconds["ours"]
    rows = {"ours": seconds["ours"], "dictionary of runs of words": seconds["dictionary"]}
    rows |= {"one regular expression": expression} if expression else {}
    rows["the automaton alone"] = seconds["floor"]
    report(
        f"linking {sentences} sentences, {names:,} names, one core (median of {rounds}); {found} mentions; "
        f"built in {built:.1f} s, {memory} MiB",
        ["", "sentences/s", "seconds of ours"],
        [
            [name, f"{sentences / taken:,.0f}", f"{taken / seconds['ours']:.2f}"]
            for name, taken in rows.items()
        ],
        name="link",
        ratio=seconds["dictionary"] / seconds["ours"],
        ratio_expression=expression / seconds["ours"],
        floor_ratio=seconds["ours"] / seconds["floor"],
        sentences_per_second=per_second,
        build_seconds=built,
        build_mib=memory,
        **quality_of,
        holds=per_second >= (BAR if marks else BAR / 2) and quality_of.get("f1", 1) >= QUALITY_BAR,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.link")
