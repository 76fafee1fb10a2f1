"""Makes pictures of a flag that differ as photographs would: size, angle, wind, background, light.

The first picture of a flag is the flag alone, flat. Every other one has its own random stream, seeded by
the country's name and the picture's number, so that pictures are the same on every run.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from examples.flags import Flag, draw_flag

SEED = 20240229
PICTURES = 4
"""Pictures of a flag."""

LENGTH, HEIGHT = 144, 96
"""Of a picture, in pixels, at most."""

SIZES = ((120, 80), (112, 84), (128, 80), (96, 72))

BACKGROUNDS = (
    ((120, 170, 220), (200, 220, 240)),
    ((70, 110, 160), (190, 200, 205)),
    ((205, 200, 190), (170, 165, 155)),
    ((90, 95, 100), (60, 62, 66)),
    ((150, 120, 95), (110, 85, 65)),
    ((95, 130, 90), (60, 85, 55)),
    ((235, 225, 205), (215, 190, 160)),
)
"""Colours at the top and at the bottom: sky, clouds, walls, wood, trees, evening."""


@dataclass(frozen=True)
class Shot:
    """How one picture is taken; ``wave`` is in shares of the flag's height, ``angle`` in radians."""

    size: tuple[int, int]
    background: tuple[tuple[int, int, int], tuple[int, int, int]]
    share: float
    angle: float
    wave: float
    wave_length: float
    phase: float
    brightness: float
    shift: tuple[float, float]


def choose_shot(name: str, number: int) -> Shot:
    """Return the circumstances of a country's picture with this number."""
    rng = random.Random(f"{SEED}:{name}:{number}")
    return Shot(
        size=rng.choice(SIZES),
        background=rng.choice(BACKGROUNDS),
        share=rng.uniform(0.68, 0.88),
        angle=math.radians(rng.uniform(-8, 8)),
        wave=rng.uniform(0.0, 0.05),
        wave_length=rng.uniform(0.5, 0.9),
        phase=rng.uniform(0, 2 * math.pi),
        brightness=rng.uniform(0.72, 1.12),
        shift=(rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04)),
    )


def photograph(flag: Flag, number: int) -> Image.Image:
    """Return a picture of a flag, 1 to :data:`PICTURES`; the first one is the flag alone."""
    if number == 1:
        return draw_flag(flag, LENGTH, HEIGHT)
    shot = choose_shot(flag.name, number)
    length, height = shot.size
    flat = draw_flag(flag, round(length * shot.share), round(height * shot.share))
    return Image.fromarray(_taken(np.asarray(flat, dtype=np.float32), shot))


def _taken(flat: np.ndarray, shot: Shot) -> np.ndarray:
    """Return the picture, uint8 [height, length, 3], of a flat flag, float32 [h, l, 3]."""
    length, height = shot.size
    flag_height, flag_length = flat.shape[:2]
    x = np.arange(length, dtype=np.float32)[None] - length * (0.5 + shot.shift[0])
    y = np.arange(height, dtype=np.float32)[:, None] - height * (0.5 + shot.shift[1])
    # Where on the flag each pixel of the picture lies.
    cos, sin = math.cos(shot.angle), math.sin(shot.angle)
    along = x * cos + y * sin + flag_length / 2
    swing = 2 * math.pi * along / (shot.wave_length * flag_length) + shot.phase
    down = y * cos - x * sin + flag_height / 2 + np.sin(swing) * (shot.wave * flag_height)
    seen = _between_pixels(flat, along, down) * (1 + 4 * shot.wave * np.cos(swing))[..., None]
    inside = np.clip(np.minimum(along, flag_length - along) + 0.5, 0, 1)
    inside = (inside * np.clip(np.minimum(down, flag_height - down) + 0.5, 0, 1))[..., None]
    top, bottom = np.asarray(shot.background, dtype=np.float32)
    behind = np.linspace(top, bottom, height, dtype=np.float32)[:, None]
    picture = (seen * inside + behind * (1 - inside)) * shot.brightness
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _between_pixels(flat: np.ndarray, along: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return the colours at places between pixels, weighted by nearness (bilinear), [height, length, 3]."""
    rows, columns = flat.shape[:2]
    x, y = np.clip(along - 0.5, 0, columns - 1), np.clip(down - 0.5, 0, rows - 1)
    # One beyond the last pixel stands a copy of it, so that every place has a right and a lower neighbour.
    pixels = np.pad(flat, ((0, 1), (0, 1), (0, 0)), mode="edge").reshape(-1, 3)
    left, above = x.astype(np.int32), y.astype(np.int32)
    place = above * (columns + 1) + left
    dx, dy = (x - left)[..., None], (y - above)[..., None]
    upper, lower = (_mixed(pixels, place + step, dx) for step in (0, columns + 1))
    return upper + (lower - upper) * dy


def _mixed(pixels: np.ndarray, place: np.ndarray, share: np.ndarray) -> np.ndarray:
    here, beside = pixels.take(place, axis=0), pixels.take(place + 1, axis=0)
    return here + (beside - here) * share
