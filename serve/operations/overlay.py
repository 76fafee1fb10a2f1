"""Write what was added and deleted while a bundle was served as a source for ``seedset import``.

``seedset overlay --workspace W --output CHANGES``
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.errors import UserError
from serve.overlay.store import DELETE, OverlayStore, overlay_file
from serve.settings import ServeSettings

EXAMPLES = """
  seedset overlay --workspace work --output changes
  seedset import --workspace work --source changes --update
  seedset refresh --workspace work
"""

PAGE = 1000
"""Entries that are read at a time."""


class OverlaySettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder with the bundle that is served.")
    output: str = Field(description="Folder to write entities.jsonl and sentences.jsonl to.")
    overlay: str | None = Field(
        default=None, description="The service's file, if it was started with --overlay."
    )


@command(EXAMPLES)
def main(settings: OverlaySettings) -> None:
    """Write added and deleted entities for `seedset import --update`, on the machine that has the file.

    The service may run on: what it is sent meanwhile is in the next export. The bundle that is built after
    the import holds them, and the service then drops them from its file by itself.
    """
    file = overlay_file(ServeSettings(workspace=settings.workspace, overlay=settings.overlay))
    if file is None or not file.exists():
        place = settings.workspace if file is None else file
        raise UserError(f"{place}: nothing was added or deleted here; a service started with --overlay names")
    store = OverlayStore(file)
    try:
        added, deleted = export(entries_of(store), Path(settings.output))
    finally:
        store.close()
    print(f"{settings.output}: {added} entities added, {deleted} deleted; next:")
    print(f"  seedset import --workspace {settings.workspace} --source {settings.output} --update")


def entries_of(store: OverlayStore) -> list[dict[str, Any]]:
    """Return all entries of a store, oldest first."""
    entries: list[dict[str, Any]] = []
    while True:
        page = store.listing(len(entries), PAGE)
        entries += page["entries"]
        if not page["more"]:
            return entries[::-1]


def export(entries: Iterable[Mapping[str, Any]], folder: Path) -> tuple[int, int]:
    """Write entries as tables of entities and sentences; return how many are added, and deleted.

    Of entities that were added and deleted again, nothing is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    added = deleted = 0
    with (
        (folder / "entities.jsonl").open("w", encoding="utf-8") as entities,
        (folder / "sentences.jsonl").open("w", encoding="utf-8") as sentences,
    ):
        for one in entries:
            if one["kind"] == DELETE:
                if one["replaces"]:
                    entities.write(_line({"name": one["name"], "removed": True}))
                    deleted += 1
                continue
            content = dict(one["content"])
            for text in content.pop("sentences"):
                sentences.write(_line({"entity": one["name"], "sentence": text}))
            entities.write(_line({"name": one["name"], **content}))
            added += 1
    return added, deleted


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main.run()
