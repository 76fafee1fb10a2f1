"""Flags of nowhere: drawn at random in the language of ``flags.py``, so that a model can learn to look.

No real flag is copied: every layout, colour and emblem is drawn from a random stream.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from examples.flags import FAMILY, SHADES, Flag, parse_part

HEIGHT, LENGTH = 20, 30
MOST_EMBLEMS = 2


def _stripes(kind: str) -> Callable[[random.Random], str]:
    def draw(rng: random.Random) -> str:
        weights = rng.choice(["1 1 1", "1 1", "1 2 1", "2 1 1", "1 1 1 1 1"]).split()
        colours = _colours(rng, len(weights))
        return " ".join([kind, *(f"{c}:{w}" for c, w in zip(colours, weights, strict=True))])

    return draw


def _field(rng: random.Random) -> str:
    return f"field {_colour(rng)}"


def _cross(rng: random.Random) -> str:
    return f"cross {_colour(rng)} {rng.choice([10, 11, 15])} 10 {rng.uniform(2, 5):.1f}"


def _saltire(rng: random.Random) -> str:
    return f"saltire {_colour(rng)} {rng.uniform(2, 4):.1f}"


def _band(rng: random.Random) -> str:
    ends = rng.choice(["0 20 30 0", "0 0 30 20"])
    return f"band {_colour(rng)} {ends} {rng.uniform(3, 6):.1f}"


GROUNDS = (_field, _stripes("horizontal"), _stripes("vertical"), _cross, _saltire, _band)
"""What a flag is made of; all but the first three lie on a field."""


def _triangle(rng: random.Random) -> str:
    return f"triangle {_colour(rng)} {rng.uniform(8, 15):.1f}"


def _canton(rng: random.Random) -> str:
    return f"canton {_colour(rng)} {rng.uniform(10, 15):.1f} {rng.uniform(8, 11):.1f}"


def _jack(rng: random.Random) -> str:
    return "jack dark-blue white red 0 0 15 10"


def _disc(rng: random.Random) -> str:
    return f"disc {_colour(rng)} {_place(rng)} {rng.uniform(2.5, 6):.1f}"


def _star(rng: random.Random) -> str:
    return f"star {_colour(rng)} {_place(rng)} {rng.uniform(2, 5):.1f} {rng.choice([5, 5, 5, 6, 7])}"


def _crescent(rng: random.Random) -> str:
    x, y = map(float, _place(rng).split())
    r = rng.uniform(3, 6)
    return f"crescent {_colour(rng)} {x} {y} {r:.1f} {x + r / 3:.1f} {y} {0.8 * r:.1f}"


def _ring(rng: random.Random) -> str:
    return f"ring {_colour(rng)} {rng.randint(5, 12)} {_place(rng)} {rng.uniform(3, 6):.1f} 1.2"


def _line(rng: random.Random) -> str:
    return f"line {_colour(rng)} {rng.randint(2, 5)} 8 10 22 10 {rng.uniform(1, 2):.1f}"


def _rays(rng: random.Random) -> str:
    return f"rays {_colour(rng)} {_place(rng)} {rng.uniform(3, 6):.1f} {rng.randint(8, 16)} 0.6"


EMBLEMS = (_triangle, _canton, _jack, _disc, _star, _crescent, _ring, _line, _rays)

KINDS = (
    *("field", "horizontal", "vertical", "cross", "saltire", "band"),
    *(emblem.__name__.removeprefix("_") for emblem in EMBLEMS),
)
FAMILIES = tuple(SHADES)
LABELS = (*KINDS, *FAMILIES)
"""What a flag may have: kinds of parts, and colours whatever their shade."""


def invent(number: int, seed: int = 0) -> Flag:
    """Return the flag with this number, the same on every run."""
    rng = random.Random(f"{seed}:{number}")
    ground = rng.choice(GROUNDS)
    texts = [ground(rng)] if ground in GROUNDS[:3] else [_field(rng), ground(rng)]
    texts += [emblem(rng) for emblem in rng.sample(EMBLEMS, rng.randint(0, MOST_EMBLEMS))]
    return Flag(f"invented {seed}:{number}", HEIGHT, LENGTH, tuple(map(parse_part, texts)), "")


def labels_of(flag: Flag) -> list[float]:
    """Return 1 or 0 for each of :data:`LABELS`."""
    has = flag.kinds() | flag.colours()
    return [float(label in has) for label in LABELS]


def _colour(rng: random.Random) -> str:
    # Families alike often, and then their shades: red has more shades than white, but not more flags.
    return rng.choice(list(SHADES[rng.choice(FAMILIES)]))


def _colours(rng: random.Random, n: int) -> list[str]:
    """Return colours of which no two neighbours are of one family."""
    found = [_colour(rng)]
    while len(found) < n:
        colour = _colour(rng)
        if FAMILY[colour] != FAMILY[found[-1]]:
            found.append(colour)
    return found


def _place(rng: random.Random) -> str:
    return rng.choice(["15 10", "10 10", "7.5 5", "15 6"])
