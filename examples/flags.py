"""Draws the flags of countries from their definitions in ``facts/flags.csv``.

A definition is a list of parts, drawn one over the other, in a small language. ``size`` is ``height:length``
and gives the units of every number; x runs from the hoist, y from the top; angles are degrees, clockwise.

=====================================  ==============================================================
``field C``                            the whole flag
``horizontal C[:n] …`` ``vertical …``  stripes over the whole flag, n parts wide (default 1)
``cross C x y t``                      a cross from edge to edge through (x, y), arms t wide
``plus C x y s t``                     a short cross, s long
``saltire C t``                        both diagonals
``band C x y x2 y2 t``                 a straight stroke between two points
``triangle C d [h]``                   at the hoist, d deep, h high (default: the whole hoist)
``canton C l h``                       the upper corner at the hoist
``box C x y l h``                      a rectangle
``polygon C x y x y …``                any shape with straight sides
``teeth C x d n``                      a part at the hoist with n points, from x - d to x
``disc C x y r``, ``ellipse C x y a b``
``crescent C x y r x2 y2 r2``          a disc without another disc
``star C x y r [n] [turn]``            n points (default 5), one of them up
``star-outline C x y r t n``           strokes that join every second of n points
``ring C n x y R r``                   n stars on a circle
``arc C n x y R r a b``                n stars on a circle from angle a to angle b (0 is up)
``line C n x y x2 y2 r``               n stars in a row
``grid C x y dx dy columns rows r``    stars in columns and rows
``rays C x y r n inner``               a sun or a wheel: n rays, ``inner`` is the body's share of r
``jack C C C x y l h``                 the Union Flag: field, saltire and cross, saltire and cross
``taegeuk C C x y r turn``             the circle of two commas
``trigram C x y turn b b b``           three bars; b = 1: whole, 0: broken
=====================================  ==============================================================

Knows nothing of the sample: it turns a definition into a picture.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from PIL import Image, ImageDraw

from examples.tables import HERE

Point = tuple[float, float]
RGB = tuple[int, int, int]

SHADES: dict[str, dict[str, RGB]] = {
    "red": {
        "red": (206, 17, 38),
        "crimson": (188, 0, 45),
        "dark-red": (150, 30, 50),
        "maroon": (138, 21, 56),
    },
    "blue": {
        "blue": (0, 56, 168),
        "dark-blue": (0, 32, 91),
        "azure": (0, 92, 175),
        "sky-blue": (98, 168, 229),
        "turquoise": (0, 158, 190),
    },
    "green": {"green": (0, 135, 62), "dark-green": (0, 98, 51), "light-green": (30, 181, 58)},
    "yellow": {"yellow": (252, 209, 22), "gold": (240, 180, 30), "saffron": (255, 153, 51)},
    "orange": {"orange": (245, 125, 20)},
    "white": {"white": (255, 255, 255)},
    "black": {"black": (0, 0, 0)},
    "brown": {"brown": (130, 80, 40)},
    "grey": {"grey": (160, 160, 160)},
}
"""The names that definitions use, by the colour that a person would call them."""

COLOURS = {name: rgb for shades in SHADES.values() for name, rgb in shades.items()}
FAMILY = {name: family for family, shades in SHADES.items() for name in shades}

OVERSAMPLING = 3
"""Edges are drawn on a finer grid and averaged, because Pillow draws them hard."""


@dataclass(frozen=True)
class Part:
    """One part of a definition."""

    kind: str
    colours: tuple[str, ...]
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Flag:
    """A flag's definition; ``left_out`` says what of the real flag is not drawn, or plainly."""

    name: str
    height: float
    length: float
    parts: tuple[Part, ...]
    left_out: str

    def kinds(self) -> set[str]:
        """Return the kinds of its parts."""
        return {part.kind for part in self.parts}

    def colours(self) -> set[str]:
        """Return the colours that are drawn, whatever their shade."""
        return {FAMILY[colour] for part in self.parts for colour in part.colours}


def parse_part(text: str) -> Part:
    """Return a part of a definition.

    Raises:
        ValueError: the kind is not known, it has no colour, or a word is neither a colour nor a number.
    """
    kind, *words = text.split()
    if kind not in DRAW:
        raise ValueError(f"{text!r}: no such kind of part")
    colours: list[str] = []
    numbers: list[float] = []
    for word in words:
        colour, _, weight = word.partition(":")
        if colour in COLOURS:
            colours.append(colour)
            if kind in ("horizontal", "vertical"):
                numbers.append(float(weight or 1))
        else:
            numbers.append(float(Fraction(word)))
    if not colours:
        raise ValueError(f"{text!r}: no colour")
    return Part(kind, tuple(colours), tuple(numbers))


@cache
def load_flags() -> dict[str, Flag]:
    """Return all flags by country, in the order of the file."""
    with (HERE / "facts" / "flags.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    flags = {}
    for row in rows:
        height, _, length = row["size"].partition(":")
        parts = tuple(parse_part(text) for text in row["parts"].split(";"))
        flags[row["name"]] = Flag(row["name"], float(height), float(length), parts, row["left_out"])
    if len(flags) != len(rows):
        raise ValueError("flags.csv names a country twice")
    return flags


class Canvas:
    """A picture that is drawn on in a flag's units."""

    def __init__(self, height: float, length: float, scale: float) -> None:
        self.height, self.length, self.scale = height, length, scale
        size = (max(1, round(length * scale)), max(1, round(height * scale)))
        self.image = Image.new("RGB", size)
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, colour: str, points: Sequence[Point]) -> None:
        """Fill a polygon."""
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self._draw.polygon(scaled, fill=COLOURS[colour])

    def box(self, colour: str, x: float, y: float, length: float, height: float) -> None:
        """Fill a rectangle."""
        s = self.scale
        left, top, right, bottom = (round(v * s) for v in (x, y, x + length, y + height))
        if right > left and bottom > top:
            self._draw.rectangle((left, top, right - 1, bottom - 1), fill=COLOURS[colour])

    def ellipse(self, colour: str, x: float, y: float, a: float, b: float) -> None:
        """Fill an ellipse with the half axes a and b."""
        self._draw.ellipse(self._around(x, y, a, b), fill=COLOURS[colour])

    def half_disc(self, colour: str, x: float, y: float, r: float, turn: float) -> None:
        """Fill the upper half of a disc, turned clockwise."""
        self._draw.pieslice(self._around(x, y, r, r), 180 + turn, 360 + turn, fill=COLOURS[colour])

    def crescent(self, colour: str, x: float, y: float, r: float, x2: float, y2: float, r2: float) -> None:
        """Fill a disc but for what another disc covers."""
        mask = Image.new("L", self.image.size)
        draw = ImageDraw.Draw(mask)
        draw.ellipse(self._around(x, y, r, r), fill=255)
        draw.ellipse(self._around(x2, y2, r2, r2), fill=0)
        self.image.paste(COLOURS[colour], (0, 0, *self.image.size), mask)

    def band(self, colour: str, x: float, y: float, x2: float, y2: float, width: float) -> None:
        """Fill a straight stroke."""
        across = width / 2 / math.hypot(x2 - x, y2 - y)
        dx, dy = (y - y2) * across, (x2 - x) * across
        self.polygon(colour, [(x + dx, y + dy), (x2 + dx, y2 + dy), (x2 - dx, y2 - dy), (x - dx, y - dy)])

    def star(self, colour: str, x: float, y: float, r: float, points: float = 5, turn: float = 0) -> None:
        """Fill a star; with five or six points its sides meet as those of the points beyond."""
        n = int(points)
        inner = math.cos(2 * math.pi / n) / math.cos(math.pi / n) if n < 8 else 0.6
        self.rays(colour, x, y, r, n, inner, turn)

    def rays(
        self, colour: str, x: float, y: float, r: float, n: float, inner: float, turn: float = 0
    ) -> None:
        """Fill a star of n points whose inner corners lie at ``inner`` of its radius."""
        reach = (r, r * inner)
        corners = [_on_circle(x, y, reach[i % 2], turn + 180 * i / n) for i in range(int(2 * n))]
        self.polygon(colour, corners)

    def _around(self, x: float, y: float, a: float, b: float) -> tuple[float, float, float, float]:
        s = self.scale
        return (x - a) * s, (y - b) * s, (x + a) * s - 1, (y + b) * s - 1


def _on_circle(x: float, y: float, r: float, degrees: float) -> Point:
    """Return the point of a circle at an angle, clockwise from the top."""
    angle = math.radians(degrees)
    return x + r * math.sin(angle), y - r * math.cos(angle)


def _stripes(canvas: Canvas, part: Part) -> None:
    start, unit = 0.0, 1 / sum(part.numbers)
    for colour, weight in zip(part.colours, part.numbers, strict=True):
        share = weight * unit
        if part.kind == "horizontal":
            canvas.box(colour, 0, start * canvas.height, canvas.length, share * canvas.height)
        else:
            canvas.box(colour, start * canvas.length, 0, share * canvas.length, canvas.height)
        start += share


def _cross(canvas: Canvas, colour: str, x: float, y: float, width: float) -> None:
    canvas.box(colour, x - width / 2, 0, width, canvas.height)
    canvas.box(colour, 0, y - width / 2, canvas.length, width)


def _plus(canvas: Canvas, colour: str, x: float, y: float, size: float, width: float) -> None:
    canvas.box(colour, x - width / 2, y - size / 2, width, size)
    canvas.box(colour, x - size / 2, y - width / 2, size, width)


def _saltire(canvas: Canvas, colour: str, width: float) -> None:
    canvas.band(colour, 0, 0, canvas.length, canvas.height, width)
    canvas.band(colour, 0, canvas.height, canvas.length, 0, width)


def _triangle(canvas: Canvas, colour: str, depth: float, base: float | None = None) -> None:
    middle, half = canvas.height / 2, (base or canvas.height) / 2
    canvas.polygon(colour, [(0, middle - half), (depth, middle), (0, middle + half)])


def _teeth(canvas: Canvas, colour: str, x: float, depth: float, n: float) -> None:
    step = canvas.height / n
    edge = [(x if i % 2 else x - depth, i * step / 2) for i in range(int(2 * n) + 1)]
    canvas.polygon(colour, [(0, 0), *edge, (0, canvas.height)])


def _star_outline(canvas: Canvas, colour: str, x: float, y: float, r: float, width: float, n: float) -> None:
    corners = [_on_circle(x, y, r, 360 * i / n) for i in range(int(n))]
    for i, corner in enumerate(corners):
        canvas.band(colour, *corner, *corners[(i + 2) % len(corners)], width)


def _ring(canvas: Canvas, colour: str, n: float, x: float, y: float, radius: float, r: float) -> None:
    for i in range(int(n)):
        canvas.star(colour, *_on_circle(x, y, radius, 360 * i / n), r)


def _arc(
    canvas: Canvas, colour: str, n: float, x: float, y: float, radius: float, r: float, a: float, b: float
) -> None:
    for i in range(int(n)):
        canvas.star(colour, *_on_circle(x, y, radius, a + (b - a) * i / (n - 1)), r)


def _line(canvas: Canvas, colour: str, n: float, x: float, y: float, x2: float, y2: float, r: float) -> None:
    for i in range(int(n)):
        canvas.star(colour, x + (x2 - x) * i / (n - 1), y + (y2 - y) * i / (n - 1), r)


def _grid(canvas: Canvas, colour: str, *numbers: float) -> None:
    x, y, dx, dy, columns, rows, r = numbers
    for i in range(int(columns)):
        for j in range(int(rows)):
            canvas.star(colour, x + i * dx, y + j * dy, r)


def _jack(canvas: Canvas, part: Part) -> None:
    """Draw the Union Flag of 30 x 60: the red arms lie beside the middle of the white ones, turning left."""
    blue, white, red = part.colours
    x, y, length, height = part.numbers
    jack = Canvas(30, 60, length * canvas.scale / 60)
    jack.box(blue, 0, 0, 60, 30)
    _saltire(jack, white, 6)
    reach = math.hypot(30, 15)
    for corner_x, corner_y in ((0, 0), (60, 0), (60, 30), (0, 30)):
        dx, dy = (corner_y - 15) / reach, (30 - corner_x) / reach
        jack.band(red, 30 + dx, 15 + dy, corner_x + dx, corner_y + dy, 2)
    _cross(jack, white, 30, 15, 10)
    _cross(jack, red, 30, 15, 6)
    size = (round(length * canvas.scale), round(height * canvas.scale))
    canvas.image.paste(jack.image.resize(size), (round(x * canvas.scale), round(y * canvas.scale)))


def _taegeuk(canvas: Canvas, part: Part) -> None:
    red, blue = part.colours
    x, y, r, turn = part.numbers
    canvas.ellipse(blue, x, y, r, r)
    canvas.half_disc(red, x, y, r, turn)
    canvas.ellipse(red, *_on_circle(x, y, r / 2, turn - 90), r / 2, r / 2)
    canvas.ellipse(blue, *_on_circle(x, y, r / 2, turn + 90), r / 2, r / 2)


def _trigram(canvas: Canvas, colour: str, x: float, y: float, turn: float, *whole: float) -> None:
    """Draw three bars of 5 x 0.83 units, 0.42 apart; ``turn`` is the way that the bars lie."""
    along, across = _on_circle(0, 0, 1, 90 + turn), _on_circle(0, 0, 1, 180 + turn)
    for i, unbroken in enumerate(whole):
        cx, cy = x + across[0] * (i - 1) * 1.25, y + across[1] * (i - 1) * 1.25
        for a, b in [(-2.5, 2.5)] if unbroken else [(-2.5, -0.21), (0.21, 2.5)]:
            ends = cx + along[0] * a, cy + along[1] * a, cx + along[0] * b, cy + along[1] * b
            canvas.band(colour, *ends, 0.83)


def _one_colour(draw: Callable[..., None]) -> Callable[[Canvas, Part], None]:
    """Return the drawing of a part with one colour, whose numbers are the function's arguments."""
    return lambda canvas, part: draw(canvas, part.colours[0], *part.numbers)


def _corners(canvas: Canvas, colour: str, *numbers: float) -> None:
    canvas.polygon(colour, list(zip(numbers[::2], numbers[1::2], strict=True)))


def _field(canvas: Canvas, colour: str) -> None:
    canvas.box(colour, 0, 0, canvas.length, canvas.height)


def _canton(canvas: Canvas, colour: str, length: float, height: float) -> None:
    canvas.box(colour, 0, 0, length, height)


def _disc(canvas: Canvas, colour: str, x: float, y: float, r: float) -> None:
    canvas.ellipse(colour, x, y, r, r)


DRAW: dict[str, Callable[[Canvas, Part], None]] = {
    "field": _one_colour(_field),
    "horizontal": _stripes,
    "vertical": _stripes,
    "cross": _one_colour(_cross),
    "plus": _one_colour(_plus),
    "saltire": _one_colour(_saltire),
    "band": _one_colour(Canvas.band),
    "triangle": _one_colour(_triangle),
    "canton": _one_colour(_canton),
    "box": _one_colour(Canvas.box),
    "polygon": _one_colour(_corners),
    "teeth": _one_colour(_teeth),
    "disc": _one_colour(_disc),
    "ellipse": _one_colour(Canvas.ellipse),
    "crescent": _one_colour(Canvas.crescent),
    "star": _one_colour(Canvas.star),
    "star-outline": _one_colour(_star_outline),
    "ring": _one_colour(_ring),
    "arc": _one_colour(_arc),
    "line": _one_colour(_line),
    "grid": _one_colour(_grid),
    "rays": _one_colour(Canvas.rays),
    "jack": _jack,
    "taegeuk": _taegeuk,
    "trigram": _one_colour(_trigram),
}
"""How each kind of part is drawn."""


def draw_flag(flag: Flag, length: int, height: int) -> Image.Image:
    """Return the flag, flat, as large as it can be within length x height pixels, in its proportions."""
    scale = min(length / flag.length, height / flag.height)
    canvas = Canvas(flag.height, flag.length, scale * OVERSAMPLING)
    for part in flag.parts:
        DRAW[part.kind](canvas, part)
    size = (round(flag.length * scale), round(flag.height * scale))
    return canvas.image.resize(size, Image.Resampling.BOX)
