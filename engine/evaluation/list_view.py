"""Say where a method's language model was trained on lists of another view than the method searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.generation.files import LM_FILES
from engine.retrieval.index import index_file
from engine.stages.base import Pipeline

VIEW_ALONE = {"mask": "retexpan-negative"}
"""Methods that rank by a view alone, where they are not called as the view."""


def list_view_note(pipeline: Pipeline, language_model: Mapping[str, Any]) -> str | None:
    """Return what a report must say of the lists of neighbours that a language model was trained on.

    A model that read lists made of a view knows that view's neighbours. Where a method recalls by another
    view, its gain is partly that of the view of the lists, and has to be compared with it.

    Args:
        pipeline: of the method.
        language_model: the entry ``lm`` of the bundle's settings (``neighbor_lists``, ``neighbor_view``).

    Returns:
        None if the method asks no language model, the model read no lists (or is of a version that did not
        say which), or the method searches the view that the lists were made of.
    """
    view = language_model.get("neighbor_view")
    needed = {name for stage in pipeline.stages for name in stage.needs()}
    if not view or needed.isdisjoint(LM_FILES) or index_file(view) in needed:
        return None
    count, alone = language_model.get("neighbor_lists"), VIEW_ALONE.get(view, view)
    return (
        f"the language model read {count} lists of neighbours an entity, made of the view {view!r}, which "
        f"is not searched here: compare with `{alone}`, or train with --neighbor-view"
    )
