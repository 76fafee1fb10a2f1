"""Say which processes a kind of fault kills, by what Ray calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.processes import Process

TITLES: Mapping[str, tuple[str, ...]] = {
    "worker": ("ray::MapWorker", "ray::RayTrainWorker"),
    "replica": ("ray::ServeReplica:",),
    "proxy": ("ray::ProxyActor", "ray::SERVE_PROXY_ACTOR"),
}
"""Beginnings of what Ray calls the processes that a kind of fault kills."""


def candidates(kind: str, processes: Iterable[Process]) -> list[Process]:
    """Return what a kind of fault (a key of :data:`TITLES`) may kill, in an order that a rerun has too."""
    found = [process for process in processes if process.title.startswith(TITLES[kind])]
    return sorted(found, key=lambda one: (one.title.partition(".")[0], one.pid))
