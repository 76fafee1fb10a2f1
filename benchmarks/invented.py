"""Invent words, names and sentences, from a seed."""

from __future__ import annotations

import random
from collections import deque

WORDS_PER_SENTENCE = 25

_ONSETS = [*"bcdfghjklmnprstvwz", "br", "ch", "dr", "gl", "kl", "pr", "st", "tr"]
_VOWELS = [*"aeiouéü", "ai", "ea", "ou"]
_CODAS = ["", "", "n", "r", "s", "l", "nd", "rt", "m", "x"]


def invented_word(rng: random.Random) -> str:
    """Return a word of one to three syllables."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(1, 3))
    )


def invented_names(rng: random.Random, words: list[str], count: int) -> list[str]:
    """Return distinct names of 1 to 4 words; some hold another one, some hold regex characters."""
    names: dict[str, None] = {}
    last: deque[str] = deque(maxlen=50)
    while len(names) < count:
        size = rng.choices((1, 2, 3, 4), (3, 5, 2, 1))[0]
        name = " ".join(rng.choice(words).capitalize() for _ in range(size))
        kind = rng.random()
        if kind < 0.02:
            name += rng.choice((" (film)", "++", " & Co.", " [1]", "?"))
        elif kind < 0.08 and names:
            name = f"{rng.choice(last)} {name}"
        if name not in names:
            last.append(name)
        names[name] = None
    return list(names)


def invented_sentence(rng: random.Random, words: list[str], name: str, mean: int = WORDS_PER_SENTENCE) -> str:
    """Return a sentence of about so many invented words with a name among them."""
    count = max(6, int(rng.gauss(mean, 7)))
    text = rng.choices(words, k=count)
    text[rng.randrange(count)] = name.lower() if rng.random() < 0.03 else name
    return " ".join(text) + "."
