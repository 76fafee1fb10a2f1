"""The colours of the page, by WCAG 2.2: 4.5 to 1 for text (1.4.3), 3 to 1 for edges of controls (1.4.11)."""

from __future__ import annotations

import re

import pytest

from serve.http.static import FOLDER

TEXT = 4.5
EDGE = 3.0

PAIRS = [
    *(
        (text, ground, TEXT)
        for text in ("text", "soft", "accent")
        for ground in ("ground", "raised", "sunken")
    ),
    *((text, f"{side}-ground", TEXT) for text in ("text", "soft") for side in ("positive", "negative")),
    *((side, ground, TEXT) for side in ("positive", "negative") for ground in ("ground", "raised", "sunken")),
    ("positive", "positive-ground", TEXT),
    ("negative", "negative-ground", TEXT),
    ("ground", "positive", TEXT),
    ("ground", "negative", TEXT),
    ("on-accent", "accent", TEXT),
    ("text", "mark", TEXT),
    ("edge", "ground", EDGE),
    ("edge", "raised", EDGE),
]


def schemes() -> dict[str, dict[str, str]]:
    """The style sheet's colours: those of the light scheme, and with the dark one's in their place."""
    blocks = re.findall(r":root \{(.*?)\}", (FOLDER / "page.css").read_text(encoding="utf-8"), re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": light | dark}


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_edges_are_told_from_what_is_under_them(scheme: str) -> None:
    colours = schemes()[scheme]
    poor = {}
    for upper, lower, wanted in PAIRS:
        dark, light = sorted([luminance(colours[upper]), luminance(colours[lower])])
        if (ratio := (light + 0.05) / (dark + 0.05)) < wanted:
            poor[f"{upper} on {lower}"] = round(ratio, 2)
    assert poor == {}
