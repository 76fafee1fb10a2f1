"""Hold what an overlay adds to one bundle: entities with their vectors, and which of the bundle's are gone.

An added entity has an id behind those of the bundle: their number, plus its slot. A slot is never given to
another entity, so that an id that an answer holds means the same entity, or none any more. A state never
changes; a :class:`OverlayLayer` is what stages hold, and points to the newest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from engine.query import Ids, NewEntity, Scores
from engine.storage.bundle import Bundle

OVERLAY = "overlay"
"""What a bundle is provided with where it has an overlay: an :class:`OverlayLayer`."""


@dataclass(frozen=True)
class AddedEntity:
    """An entity that the bundle does not hold, or in another form.

    Args:
        encoded: its name, its sentences, and what was made of these: vectors and hubness by view.
        aliases: other names.
        description: "" for none.
        attributes: values by name.
    """

    encoded: NewEntity
    aliases: tuple[str, ...] = ()
    description: str = ""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name."""
        return self.encoded.name


@dataclass(frozen=True, eq=False)
class OverlayState:
    """An overlay at one moment.

    Args:
        version: counts the changes.
        added: entities by id, ascending.
        deleted: ids of the bundle's entities that are gone, or that an added one stands for, ascending.
    """

    version: int = 0
    added: Mapping[int, AddedEntity] = field(default_factory=dict)
    deleted: tuple[int, ...] = ()

    @cached_property
    def ids(self) -> Ids:
        """The ids of the added entities, int32, ascending."""
        return np.fromiter(self.added, np.int32, len(self.added))

    def places(self, ids: Ids) -> Ids:
        """Return the place of each id among :attr:`ids`; -1 for one that is not there."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int32)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1).astype(np.int32)

    def vectors(self, view: str, dimensions: int) -> Scores:
        """Return the vectors of the added entities in a view, [n, dimensions]; zeros for one without."""
        found = np.zeros((len(self.added), dimensions), np.float32)
        for place, one in enumerate(self.added.values()):
            found[place] = one.encoded.vectors.get(view, 0)
        return found

    def hubness(self, view: str) -> Scores:
        """Return their hubness in a view, [n]; 0 where it is not known."""
        own = ((one.encoded.hubness or {}).get(view, 0.0) for one in self.added.values())
        return np.fromiter(own, np.float32, len(self.added))


class OverlayLayer:
    """The newest state of an overlay over a bundle. Replaced by one thread, read by others.

    Args:
        first: the number of the bundle's entities, and so the id of slot 0.
        state: that it begins with.
    """

    def __init__(self, first: int, state: OverlayState | None = None) -> None:
        self.first = first
        self.state = state or OverlayState()


def lay_over(bundle: Bundle) -> OverlayLayer:
    """Provide a bundle with an overlay, empty so far, before any stage opens it; return that."""
    layer = OverlayLayer(count_entities(bundle.path("entities.parquet")))
    bundle.provide(OVERLAY, layer)
    return layer


def overlay_of(bundle: Bundle) -> OverlayLayer | None:
    """Return the overlay that a bundle was provided with; None: it has none."""
    found = bundle.provided(OVERLAY)
    return found if isinstance(found, OverlayLayer) else None


def count_entities(path: Path) -> int:
    """Return the number of entities of ``entities.parquet``, the removed ones among them."""
    return int(pq.read_metadata(path).num_rows)
