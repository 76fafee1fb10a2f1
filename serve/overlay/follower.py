"""Follow a store from one process: bring the overlay of an open bundle up to a version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState
from serve.overlay.encoded import loaded
from serve.overlay.store import DELETE
from serve.stores import Json


class AskStore(Protocol):
    """The way to the store, wherever it is: the name of an operation, and its arguments."""

    async def __call__(self, operation: str, *given: Any) -> Json:
        """Do an operation of :class:`~serve.overlay.store.OverlayStore`.

        Raises:
            UserError: as the operation.
            UnavailableError: the store does not answer now.
        """
        ...


@dataclass(frozen=True)
class _Entry:
    slot: int
    deleted: bool
    entity: AddedEntity | None
    """None: it is deleted, or this bundle's encoders have not read it yet."""


class OverlayFollower:
    """What one process knows of the overlay over one bundle. For one event loop.

    Args:
        ask: the store.
        bundle: id of the bundle.
        layer: that the bundle was provided with; its state is replaced.
        find: returns the id of the bundle's entity of exactly a name, if it has one; None: deletions are
            no business of this process, since queries bring them.
    """

    def __init__(
        self,
        ask: AskStore,
        bundle: str,
        layer: OverlayLayer,
        find: Callable[[str], int | None] | None = None,
    ) -> None:
        self._ask, self._bundle, self.layer, self._find = ask, bundle, layer, find
        self._epoch = -1
        self._entries: dict[str, _Entry] = {}
        self._reading = asyncio.Lock()

    async def at_least(self, version: int) -> OverlayState:
        """Return a state of at least a version, which is read if it is not there yet.

        Raises:
            UnavailableError: the store does not answer.
        """
        if self.layer.state.version < version:
            async with self._reading:
                if self.layer.state.version < version:
                    await self._read()
        return self.layer.state

    @property
    def lacks_vectors(self) -> bool:
        """Whether an entity was written that the encoders of this bundle have not read yet."""
        return any(not one.deleted and one.entity is None for one in self._entries.values())

    async def _read(self) -> None:
        found = await self._ask("changes", self._bundle, self._epoch, self.layer.state.version)
        self.layer.state = await asyncio.to_thread(self._taken, found)

    def _taken(self, found: Mapping[str, Any]) -> OverlayState:
        if found["whole"]:
            self._entries = {}
        self._epoch = found["epoch"]
        for entry in found["entries"]:
            self._entries[entry["name"]] = _entry(entry)
        return self._state(found["version"])

    def _state(self, version: int) -> OverlayState:
        first, find = self.layer.first, self._find
        slots = sorted((one.slot, one.entity) for one in self._entries.values() if one.entity)
        deleted = () if find is None else sorted(self._gone(find))
        return OverlayState(version, {first + slot: entity for slot, entity in slots}, tuple(deleted))

    def _gone(self, find: Callable[[str], int | None]) -> set[int]:
        """Return the bundle's entities that are deleted, or that an added one stands for."""
        names = (name for name, one in self._entries.items() if one.deleted or one.entity)
        return {entity for name in names if (entity := find(name)) is not None}


def _entry(given: Mapping[str, Any]) -> _Entry:
    slot, deleted, data = given["slot"], given["kind"] == DELETE, given["data"]
    if deleted or data is None:
        return _Entry(slot, deleted, None)
    content = given["content"]
    attributes = {name: tuple(values) for name, values in content["attributes"].items()}
    encoded = loaded(given["name"], tuple(content["sentences"]), data)
    about = tuple(content["aliases"]), content["description"], attributes
    return _Entry(slot, False, AddedEntity(encoded, *about))
