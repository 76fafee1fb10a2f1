"""What the page calls stages: each one that a method is made of has a plain name."""

from __future__ import annotations

import re

from engine.methods import METHODS
from serve.http.static import FOLDER


def test_every_stage_that_is_served_has_a_plain_name() -> None:
    text = (FOLDER / "words.js").read_text(encoding="utf-8")
    (stages,) = re.findall(r"const STAGES = \{(.*?)\n\};", text, re.DOTALL)
    named = dict(re.findall(r"^ +(\w+): \"([^\"]+)\",$", stages, re.MULTILINE))
    used = {stage.name for pipeline in METHODS.values() for stage in pipeline.stages}
    assert used | {"Select", "Explain", "EncodeNewEntities"} <= named.keys()
    assert not any(name in words for name in named for words in named.values())
