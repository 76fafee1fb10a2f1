"""Write explanations of entities in an answer as JSON, with the addresses of their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.answering.explanations import Explainer, Nearest
from engine.catalogue.sentences import MentionSentence
from engine.query import Expansion
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.images import ImageAddresses
from serve.http.requests import numbers

Json = dict[str, Any]


def explanations(
    expansion: Expansion, snapshot: BundleSnapshot, images: ImageAddresses
) -> tuple[Expansion, dict[int, Json]]:
    """Turn the columns of the stage that explains into explanations by entity. Reads from the disk.

    Returns:
        The expansion without these columns, and the explanations.
    """
    explainer = Explainer(snapshot.vocabulary, snapshot.catalogue, snapshot.types)
    expansion, explained = explainer.take(expansion)
    return expansion, {
        entity: {
            "nearest_positive": _json_of(one.nearest_positive),
            "nearest_negative": _json_of(one.nearest_negative),
            "sentences": sentences_of(one.sentences),
            "images": images.of(entity, one.sentences),
            "types": one.types,
        }
        for entity, one in explained.items()
    }


def _json_of(nearest: Nearest | None) -> Json | None:
    if nearest is None:
        return None
    return {**nearest._asdict(), "similarity": numbers([nearest.similarity])[0]}


def sentences_of(sentences: Sequence[MentionSentence]) -> list[Json]:
    """Return the JSON objects of sentences; a context that is an image alone has none."""
    return [{"text": one.text, "start": one.start, "end": one.end} for one in sentences if one.text]
