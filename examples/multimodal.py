"""The multi-modal part of the sample: flags beside sentences, and queries in MESED's layout.

Which picture stands beside which sentence is drawn at random, seeded by the country's name. The classes of
the queries are worked out from the flags' definitions (what only a picture tells), from the fact table
(what the text tells), or from both.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from examples.flags import Flag, Part, load_flags
from examples.photographs import PICTURES, SEED, photograph
from examples.tables import attributes_of, load_table

COUNTRIES = "countries"
IMAGES = "images"
"""Folder of the pictures, inside the sample."""

PICTURED = 0.6
"""Share of a country's sentences that have a picture beside them."""

PICTURE_CONTEXTS = True
"""Whether some countries get contexts that are a picture without a sentence."""

PICTURE_CONTEXT_SHARE = 0.25
"""Share of the countries with a flag that get one."""

QUERIES = 5
QUERY_FOLDERS = {3: "query", 5: "query_seed=5"}
"""Seeds of a query, and MESED's folder of such queries."""

ONE_STAR = {"star", "star-outline"}
ROWS_OF_STARS = {"ring", "arc", "line"}
CROSSES = {"cross", "saltire", "jack", "plus"}

Facts = Mapping[str, Sequence[str]]
Look = Callable[[Flag], bool]
Tale = Callable[[Facts], bool]


def image_name(name: str, number: int) -> str:
    """Return the path, relative to the sample, of a country's picture."""
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    return f"{IMAGES}/{'-'.join(words)}-{number}.png"


def write_images(output: Path) -> int:
    """Write every picture of every flag and say how many there were."""
    (output / IMAGES).mkdir(parents=True, exist_ok=True)
    for name, flag in load_flags().items():
        for number in range(1, PICTURES + 1):
            # Little compression: it costs more time than drawing, and flags are small either way.
            photograph(flag, number).save(output / image_name(name, number), compress_level=1)
    return PICTURES * len(load_flags())


def with_images(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return sentence records of countries, an ``image`` added to some whose country has a flag.

    Pictures are dealt out in turn, so that several sentences share one.
    """
    by_name: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        by_name.setdefault(record["entity"], []).append(place)
    pictures: dict[int, str] = {}
    for name, places in by_name.items():
        if name not in load_flags():
            continue
        rng = random.Random(f"{SEED}:{name}:sentences")
        numbers = rng.sample(range(1, PICTURES + 1), PICTURES)
        for turn, place in enumerate(rng.sample(places, round(PICTURED * len(places)))):
            pictures[place] = image_name(name, numbers[turn % PICTURES])
    return [r | {"image": pictures[i]} if i in pictures else r for i, r in enumerate(records)]


def picture_contexts() -> list[dict[str, Any]]:
    """Return the contexts that are a picture without a sentence (any modality may be missing)."""
    if not PICTURE_CONTEXTS:
        return []
    found = []
    for name in load_flags():
        rng = random.Random(f"{SEED}:{name}:picture")
        if rng.random() < PICTURE_CONTEXT_SHARE:
            found.append({"entity": name, "image": image_name(name, rng.randint(1, PICTURES))})
    return found


def _stripes(kind: str) -> Look:
    """Return whether a flag is three whole stripes of three colours, whatever stands on them."""

    def look(flag: Flag) -> bool:
        first, *others = flag.parts
        three = len(first.colours) == 3 == len(Flag("", 1, 1, (first,), "").colours())
        return first.kind == kind and three and not any(map(_covers_hoist, others))

    return look


def _covers_hoist(part: Part) -> bool:
    """Return whether a part stands at the hoist, where it cuts stripes short."""
    at_edge = part.kind in ("box", "polygon") and 0 in part.numbers[::2]
    return at_edge or part.kind in ("triangle", "canton", "teeth")


def _has_part(*kinds: str) -> Look:
    return lambda flag: not flag.kinds().isdisjoint(kinds)


def _stars(flag: Flag) -> int:
    """Return the number of stars; those that lie one over the other are one."""
    singles = {part.numbers[:2] for part in flag.parts if part.kind in ONE_STAR}
    rows = sum(int(part.numbers[0]) for part in flag.parts if part.kind in ROWS_OF_STARS)
    return (
        len(singles)
        + rows
        + sum(int(part.numbers[4] * part.numbers[5]) for part in flag.parts if part.kind == "grid")
    )


def _has_canton(flag: Flag) -> bool:
    jacks = [part for part in flag.parts if part.kind == "jack"]
    return "canton" in flag.kinds() or any(part.numbers[2] < flag.length for part in jacks)


def _coloured(*colours: str, besides: Sequence[str] = ()) -> Look:
    """Return whether a flag has all these colours, and others only out of ``besides``."""
    return lambda flag: set(colours) <= flag.colours() <= {*colours, *besides}


def _told(attribute: str, value: str) -> Tale:
    return lambda facts: value in facts.get(attribute, ())


_HORIZONTAL = _stripes("horizontal")
_RED_YELLOW_GREEN = _coloured("red", "yellow", "green", besides=["black"])

CLASSES: dict[str, tuple[Look | None, Tale | None]] = {
    "image_horizontal_tricolour": (_HORIZONTAL, None),
    "image_vertical_tricolour": (_stripes("vertical"), None),
    "image_one_star": (lambda flag: _stars(flag) == 1, None),
    "image_several_stars": (lambda flag: _stars(flag) > 1, None),
    "image_crescent": (_has_part("crescent"), None),
    "image_cross_or_saltire": (_has_part(*CROSSES), None),
    "image_canton": (_has_canton, None),
    "image_hoist_triangle": (_has_part("triangle"), None),
    "image_red_white_blue": (_coloured("red", "white", "blue"), None),
    "image_red_yellow_green": (_RED_YELLOW_GREEN, None),
    "text_africa": (None, _told("continent", "Africa")),
    "text_europe": (None, _told("continent", "Europe")),
    "text_monarchy": (None, _told("government", "monarchy")),
    "text_landlocked": (None, _told("sea_access", "landlocked")),
    "both_african_star": (lambda flag: _stars(flag) > 0, _told("continent", "Africa")),
    "both_african_red_yellow_green": (_RED_YELLOW_GREEN, _told("continent", "Africa")),
    "both_asian_crescent": (_has_part("crescent"), _told("continent", "Asia")),
    "both_european_horizontal_tricolour": (_HORIZONTAL, _told("continent", "Europe")),
    "both_landlocked_horizontal_tricolour": (_HORIZONTAL, _told("sea_access", "landlocked")),
    "both_monarchy_cross": (_has_part(*CROSSES), _told("government", "monarchy")),
}
"""What a class' members look like, and what is told of them."""


@cache
def class_members(cls: str) -> tuple[str, ...]:
    """Return the countries of a class, in table order; what a picture must show needs a flag."""
    look, tale = CLASSES[cls]
    found = []
    for name, row in load_table(COUNTRIES).items():
        flag = load_flags().get(name)
        seen = look is None or (flag is not None and look(flag))
        if seen and (tale is None or tale(attributes_of(COUNTRIES, row))):
            found.append(name)
    return tuple(found)


def write_queries(output: Path, names: Sequence[str]) -> int:
    """Write the queries in MESED's layout and say how many there were.

    Args:
        output: folder of the layout, made if missing.
        names: the entities of the whole sample; an entity's id is its place among them.
    """
    ids = {name: number for number, name in enumerate(names)}
    for folder in ("gt", *QUERY_FOLDERS.values()):
        (output / folder).mkdir(parents=True, exist_ok=True)
    _write(output / "entity2id.txt", [f"{name}\t{number}" for name, number in ids.items()])
    for cls in CLASSES:
        members = class_members(cls)
        _write(output / "gt" / f"{cls}.txt", [f"{ids[name]}\t{name}\t1" for name in members])
        for seeds, folder in QUERY_FOLDERS.items():
            drawn = _draw_queries(members, seeds, random.Random(f"{SEED}:{cls}:{seeds}"))
            lines = [" ".join(str(ids[name]) for name in query) for query in drawn]
            _write(output / folder / f"{cls}.txt", [*lines, "EXIT"])
    return QUERIES * len(QUERY_FOLDERS) * len(CLASSES)


def _draw_queries(members: Sequence[str], seeds: int, rng: random.Random) -> list[list[str]]:
    """Return queries of a class, no two with the same seeds."""
    drawn: dict[frozenset[str], list[str]] = {}
    while len(drawn) < QUERIES:
        query = rng.sample(members, seeds)
        drawn.setdefault(frozenset(query), query)
    return list(drawn.values())


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
