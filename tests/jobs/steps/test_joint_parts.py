"""Stages that weigh the views within the joint one know their order: that in which it is built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.retrieval.index import unit
from engine.retrieval.view_weights import parts_of_joint
from jobs.steps import views
from jobs.steps.view_builder import BuiltViews, MentionReader
from jobs.steps.views import ADAPTED, TYPES_VIEW, _joined

SIZES = {"mask": 2, "description": 3, "lexical": 4, "contrast": 5, ADAPTED: 6, TYPES_VIEW: 7}


@pytest.mark.parametrize(
    "more", [(), ("contrast",), (ADAPTED,), (TYPES_VIEW,), ("contrast", ADAPTED, TYPES_VIEW)]
)
def test_parts_are_weighed_in_the_order_in_which_they_are_built(more: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    names = ("mask", "description", "lexical", *more)
    built_views = {name: unit(random.normal(size=(9, SIZES[name]))) for name in names}
    parts = _joined(SimpleNamespace(trained=None), BuiltViews(Path(), built_views))  # type: ignore[arg-type]
    built = tuple(part.vectors_ND.shape[1] for part in parts)
    sizes = {name: SIZES[name] for name in names} | {"joint": sum(built)}
    assert parts_of_joint(SimpleNamespace(settings={"views": sizes})) == (built, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "trained", "told"),
    [
        ((), True, True),
        ((TYPES_VIEW,), True, True),
        ((), False, False),
        ((ADAPTED,), True, False),
        (("multimodal",), True, False),
    ],
)
def test_mentions_are_read_by_a_map_where_that_was_measured(
    more: tuple[str, ...], trained: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(views, "sentence_map", lambda *given: asked.append(given))
    made = BuiltViews(Path(), {name: np.eye(2, dtype=np.float32) for name in ("mask", *more)})
    if trained:
        made.read_mentions = MentionReader("encoder", "cache")  # type: ignore[arg-type]
    views._sentence_map(SimpleNamespace(executor="here"), made)  # type: ignore[arg-type]
    assert asked == ([("encoder", "cache", "here")] if told else [])
