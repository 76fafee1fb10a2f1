"""Add and delete entities without a new bundle: encode what is sent, write it, and follow the store.

Knows no Ray. A change is answered once this replica answers by it; the others are told at once, and look for
themselves every :data:`POLL_S`. Stages are told by each query, which names the version that it needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import did_you_mean
from engine.query import Deadline, Expansion, NewEntity, Query
from engine.text.spelling import clean_name, nfc
from engine.vocabulary import Vocabulary
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import ENCODE
from serve.http.errors import Problem, ProblemError, invalid
from serve.http.overlay_requests import UpsertRequest
from serve.http.service import Service
from serve.http.trace import Trace
from serve.overlay.encoded import dumped
from serve.overlay.follower import AskStore, OverlayFollower
from serve.overlay.store import DELETE, PUT
from serve.stores import Json
from serve.telemetry.logs import log_event

logger = logging.getLogger("seedset.serve")

POLL_S = 0.25
"""Seconds between two looks at the store for what other replicas wrote."""

RETRY_S = 5.0
"""Seconds after which what could not be encoded for this bundle is tried again."""

AT_ONCE = 64
"""Entities that are encoded by one call for a new bundle."""

OFF = (
    "this service takes no changes of entities: its workspace is in a bucket, or --overlay says so; start it "
    "with --overlay FILE, on a local disk of the cluster's head"
)

Tell = Callable[[int], Awaitable[int]]
"""Tells the other replicas of a version; returns how many have not confirmed that they have it."""


async def tell_nobody(version: int) -> int:
    """Tell no other replica: there is none."""
    return 0


class OverlayService:
    """The overlay of the bundle that is served. For one event loop.

    Args:
        service: that answers by it.
        ask: the store; None: none is kept.
        tell: see :data:`Tell`.
    """

    def __init__(self, service: Service, ask: AskStore | None = None, tell: Tell = tell_nobody) -> None:
        self._service, self._ask, self._tell = service, ask, tell
        self._followers: dict[str, OverlayFollower] = {}
        self._settled, self._again_at = "", 0.0

    @property
    def store(self) -> AskStore:
        """The store.

        Raises:
            ProblemError: none is kept (404).
        """
        if self._ask is None or self._service.snapshot.layer is None:
            raise ProblemError(Problem("not_available", OFF, 404))
        return self._ask

    def version(self, bundle: str) -> int:
        """Return the version of the overlay over a bundle that this replica answers by."""
        follower = self._followers.get(bundle)
        return follower.layer.state.version if follower else 0

    async def put(self, given: str, asked: UpsertRequest, by: str, trace: Trace) -> Json:
        """Write an entity, and return its id and the version from which on answers know of it.

        Raises:
            ProblemError: its name is another's, a sentence does not mention it, or it cannot be encoded now.
            UserError: the overlay is full, or does not answer.
        """
        store, snapshot = self.store, self._service.snapshot
        name = clean_name(given)
        replaces = _check_name(snapshot, given, name)
        content = {
            "sentences": list(map(nfc, asked.sentences)),
            "aliases": [alias for one in asked.aliases if (alias := clean_name(one))],
            "description": nfc(asked.description),
            "attributes": asked.attributes,
        }
        (encoded,) = await self._encoded(snapshot.id, [(name, content)], trace)
        if isinstance(encoded, Problem):
            raise ProblemError(encoded)
        written = await store("put", name, content, replaces, by, snapshot.id, dumped(encoded))
        first = 0 if snapshot.layer is None else snapshot.layer.first
        told = {"id": first + written["slot"], "name": name, "created": written["created"]}
        return {"bundle": snapshot.id, **told, "replaces": replaces, **await self._known(written["version"])}

    async def delete(self, given: str, by: str) -> Json:
        """Delete an entity of the bundle or of the overlay, by its name.

        Raises:
            ProblemError: there is none of exactly this name (404).
            UserError: the overlay is full, or does not answer.
        """
        store, snapshot = self.store, self._service.snapshot
        vocabulary, name = snapshot.vocabulary, clean_name(given)
        found = vocabulary.find(name)
        if found is None or vocabulary.names[found] != name:
            near = [] if found is None else [vocabulary.names[found]]
            closest = near or await asyncio.to_thread(vocabulary.closest, name)
            message = f"no entity is called {name!r}{did_you_mean(name, closest)}"
            raise ProblemError(Problem("unknown_entity", message, 404, None, tuple(closest)))
        written = await store("delete", name, _exact(snapshot, name) is not None, by)
        return {"bundle": snapshot.id, "deleted": name, **await self._known(written["version"])}

    async def listing(self, offset: int, limit: int) -> Json:
        """Return what was changed, last changed first."""
        found, bundle = await self.store("listing", offset, limit), self._service.snapshot.id
        kept = ("name", "kind", "content", "replaces", "version", "by", "at")
        entries = [{key: one[key] for key in kept} for one in found["entries"]]
        about = {key: found[key] for key in ("counts", "merged", "more")}
        return {"bundle": bundle, "overlay": self.version(bundle), **about, "entries": entries}

    async def _known(self, version: int) -> Json:
        """Bring this replica to a version, and tell the others."""
        await self.follow(version)
        return {"overlay": version, "waiting": await self._tell(version)}

    async def follow(self, version: int) -> None:
        """Bring what is answered here to at least a version."""
        snapshot = self._service.snapshot
        if (follower := self._follower(snapshot)) is not None:
            await follower.at_least(version)

    async def look(self) -> None:
        """Bring what is answered here to what the store has, and encode what no replica has for this bundle.

        Raises:
            UserError: the store does not answer.
        """
        if self._ask is None:
            return
        snapshot = self._service.snapshot
        await self.follow((await self._ask("version"))["version"])
        if self._settled != snapshot.id:
            await self.settle(snapshot, drop=True)
            self._settled = snapshot.id
            self._followers = {name: one for name, one in self._followers.items() if name == snapshot.id}
            return
        follower = self._follower(snapshot)
        if follower and follower.lacks_vectors and time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + RETRY_S
            await self.settle(snapshot)

    async def watch(self) -> None:
        """Look every :data:`POLL_S` seconds, until cancelled."""
        told = ""
        while True:
            try:
                await self.look()
                told = ""
            except Exception as error:
                if (text := f"{type(error).__name__}: {error}") != told:
                    told = text
                    logger.warning("the overlay could not be looked up", exc_info=error)
            await asyncio.sleep(POLL_S)

    async def settle(self, snapshot: BundleSnapshot, drop: bool = False) -> None:
        """Encode for a bundle what was written for others, but for what it holds by now.

        Args:
            snapshot: of the bundle, whose stages are open.
            drop: forget what it holds, and deletions of what it holds not.
        """
        if self._ask is None or snapshot.layer is None:
            return
        pending = (await self._ask("pending", snapshot.id))["entries"]
        merged = [one for one in pending if _is_merged(snapshot, one)]
        names = {one["name"] for one in merged}
        left = [one for one in pending if one["kind"] == PUT and one["name"] not in names]
        for start in range(0, len(left), AT_ONCE):
            await self._encode(snapshot.id, left[start : start + AT_ONCE])
        if drop and merged:
            entries = [(one["name"], one["version"]) for one in merged]
            found = await self._ask("drop", snapshot.id, entries)
            log_event("overlay merged", bundle=snapshot.id, entities=found["dropped"])
        await self.follow_of(snapshot)

    async def follow_of(self, snapshot: BundleSnapshot) -> None:
        """Bring a snapshot that is served, or will be, to what the store has."""
        if self._ask is not None and (follower := self._follower(snapshot)) is not None:
            await follower.at_least((await self._ask("version"))["version"])

    async def _encode(self, bundle: str, entries: Sequence[Mapping[str, Any]]) -> None:
        assert self._ask is not None
        trace = Trace("overlay")
        encoded = await self._encoded(bundle, [(one["name"], one["content"]) for one in entries], trace)
        made = []
        for one, entity in zip(entries, encoded, strict=True):
            if isinstance(entity, Problem):
                log_event("not encoded", level=logging.ERROR, bundle=bundle, reason=entity.message)
            else:
                made.append((one["name"], one["version"], dumped(entity)))
        if made:
            await self._ask("encode", bundle, made)

    async def _encoded(
        self, bundle: str, entities: Sequence[tuple[str, Mapping[str, Any]]], trace: Trace
    ) -> list[NewEntity | Problem]:
        """Return entities with their vectors in a bundle, made as those of new seeds are."""
        if ENCODE not in self._service.snapshot.routes:
            raise ProblemError(
                Problem("not_available", "the bundle has no encoder to read sentences by", 404)
            )
        deadline = Deadline.within(self._service.settings.timeout_s)
        asked = [
            Expansion(Query(trace.request_id or "overlay", (-1,), new=(new,), deadline=deadline))
            for name, content in entities
            for new in [NewEntity(name, tuple(content["sentences"]), hubness={})]
        ]
        found = await self._service.dispatched(ENCODE, bundle, asked, trace)
        return [_encoded_of(one, name) for one, (name, _) in zip(found, entities, strict=True)]

    def _follower(self, snapshot: BundleSnapshot) -> OverlayFollower | None:
        if self._ask is None or snapshot.layer is None:
            return None
        known = self._followers.get(snapshot.id)
        if known is None or known.layer is not snapshot.layer:
            known = OverlayFollower(
                self._ask, snapshot.id, snapshot.layer, lambda name: _exact(snapshot, name)
            )
            self._followers[snapshot.id] = known
        return known


def _base(snapshot: BundleSnapshot) -> Vocabulary:
    """Return the bundle's own vocabulary."""
    return snapshot.bundle.vocabulary


def _exact(snapshot: BundleSnapshot, name: str) -> int | None:
    """Return the id of the bundle's entity of exactly a name, if it has one."""
    found = _base(snapshot).find(name)
    return found if found is not None and _base(snapshot).names[found] == name else None


def _check_name(snapshot: BundleSnapshot, given: str, name: str) -> bool:
    """Return whether the bundle has an entity of a name.

    Raises:
        ProblemError: it is no name, or finds another entity by an alias or another case.
    """
    if not name:
        raise invalid(f"the name {given!r} has no visible sign", "given")
    if _exact(snapshot, name) is not None:
        return True
    known = snapshot.vocabulary.find(name)
    if known is not None and (other := snapshot.vocabulary.names[known]) != name:
        raise invalid(
            f"{name!r} is in the vocabulary as {other!r}; send it under that name", "given", [other]
        )
    return False


def _is_merged(snapshot: BundleSnapshot, entry: Mapping[str, Any]) -> bool:
    """Return whether a bundle holds what was written for the one before it."""
    entity = _exact(snapshot, entry["name"])
    if entry["kind"] == DELETE:
        return entity is None
    if entity is None:
        return False
    catalogue, content = snapshot.catalogue, entry["content"]
    same = (
        catalogue.description(entity) == content["description"]
        and catalogue.attributes_of(entity).items() >= content["attributes"].items()
        and set(_base(snapshot).aliases[entity]) >= set(content["aliases"])
    )
    return same or not entry["replaces"]


def _encoded_of(found: Expansion | Problem, name: str) -> NewEntity | Problem:
    """Return the only new entity of a query, encoded, or why it is not."""
    if isinstance(found, Problem):
        return replace(found, field="sentences") if found.code == "query" else found
    (encoded,) = found.query.new
    if not encoded.vectors:
        why = "; ".join(found.degraded) or "its sentences could not be read in time"
        return Problem("unavailable", f"{name!r} was not written: {why}", 503, retry_after_s=1)
    return encoded
