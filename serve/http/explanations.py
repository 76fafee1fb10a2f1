"""Explain an entity's place in the answer, and find its sentences and images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.catalogue import Catalogue, MentionSentence
from engine.corpus.importing.images import kind_of
from engine.errors import StorageError
from engine.query import Expansion, Query
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary
from serve.http.requests import numbers

logger = logging.getLogger("seedset.serve")

Json = dict[str, Any]

SIDES = ("positive", "negative")
SENTENCES = 2
"""Sentences of an explanation."""
MAX_SENTENCES = 8
"""Sentences of an entity that are looked at for its images: as many as a bundle holds."""
MAX_IMAGE_BYTES = 8 << 20

IMAGE_TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
"""Media types that browsers show, by :func:`engine.corpus.importing.images.kind_of`."""


def explanations(
    expansion: Expansion, vocabulary: Vocabulary, catalogue: Catalogue
) -> tuple[Expansion, dict[int, Json]]:
    """Turn the columns of the stage that explains into explanations by entity. Reads from the disk.

    Returns:
        The expansion without these columns, and the explanations.
    """
    ranking = expansion.ranking
    ids = ranking.ids.tolist()
    columns = dict(ranking.evidence)
    nearest = {side: _nearest(columns, side, expansion.query, vocabulary, len(ids)) for side in SIDES}
    sentences = catalogue.sentences(ids, SENTENCES)
    explained = {
        entity: {
            **{f"nearest_{side}": nearest[side][place] for side in SIDES},
            "sentences": sentences_of(sentences.get(entity, ())),
            "images": images_of(entity, sentences.get(entity, ())),
        }
        for place, entity in enumerate(ids)
    }
    return replace(expansion, ranking=replace(ranking, evidence=columns)), explained


def _nearest(
    columns: dict[str, Any], side: str, query: Query, vocabulary: Vocabulary, n: int
) -> list[Json | None]:
    """Take a side's columns out, and return each entity's nearest seed of that side."""
    places = columns.pop(f"nearest_{side}", np.full(n, -1, np.float32))
    similarities = columns.pop(f"nearest_{side}_similarity", np.zeros(n, np.float32))
    seeds = query.positive if side == "positive" else query.negative
    names = query.seed_names(seeds, vocabulary.names)
    return [
        {"id": seeds[place] if seeds[place] >= 0 else None, "name": names[place], "similarity": similarity}
        if place >= 0
        else None
        for place, similarity in zip(places.astype(int).tolist(), numbers(similarities.tolist()), strict=True)
    ]


def sentences_of(sentences: Sequence[MentionSentence]) -> list[Json]:
    """Return the JSON objects of sentences; a context that is an image alone has none."""
    return [{"text": one.text, "start": one.start, "end": one.end} for one in sentences if one.text]


def images_of(entity: int, sentences: Sequence[MentionSentence]) -> list[str]:
    """Return where the images of some of an entity's sentences, from the first on, are served."""
    return [f"/v1/images/{entity}/{n}" for n in range(len(_addresses(sentences)))]


def read_image(catalogue: Catalogue, workspace: str, entity: int, n: int) -> tuple[bytes, str] | None:
    """Return an image that the bundle names for an entity, and its media type. Reads from the disk.

    An address is a path, one below the workspace, or in a bucket; what lies there must be an image, so that
    a corpus cannot name other files of this machine.

    Returns:
        None: no such image, or it cannot be read, is too large, or is no image.
    """
    addresses = _addresses(catalogue.sentences([entity], MAX_SENTENCES).get(entity, ()))
    if n >= len(addresses):
        return None
    address = addresses[n]
    try:
        source = Workspace.open(workspace).image(address)
        if not 0 < source.size() <= MAX_IMAGE_BYTES:
            return None
        content = source.read_bytes()
    except (StorageError, OSError, ValueError) as error:  # ValueError: no path at all
        logger.warning("an image cannot be read", extra={"entity": entity, "reason": str(error)})
        return None
    media_type = IMAGE_TYPES.get(kind_of(content))
    return (content, media_type) if media_type else None


def _addresses(sentences: Sequence[MentionSentence]) -> list[str]:
    """Return the addresses of images, each once, in the order of the sentences."""
    return list(dict.fromkeys(one.image for one in sentences if one.image))
