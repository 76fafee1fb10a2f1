"""See what is in a workspace, and what its bundles were made from, and that in turn.

Everything has a document that names what it was made from: a bundle's manifest, a run's summary, the manifest
of model input. A document names a folder by the folder's own name, or by an address that it is a part of; so
whatever a later version writes into a document counts, too.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs

from engine.external_errors import translated
from engine.storage.parts import CURRENT, MANIFEST
from engine.storage.removal import Journal, Listing
from engine.storage.workspace import Workspace
from jobs.workers.encoder import CONTRAST_JOB, JOB, MULTIMODAL_JOB
from jobs.workers.lm import JOB as LM_JOB
from jobs.workers.summaries import SUMMARY
from jobs.workers.typing import JOB as TYPING_JOB

DAY = 24 * 3600.0

UNFINISHED = "unfinished, and left behind"
"""The reason of what a killed program left."""

JOBS = (JOB, MULTIMODAL_JOB, CONTRAST_JOB, LM_JOB, TYPING_JOB)
"""Jobs with runs that train something."""

SOURCES = ("inputs", "images", "contrast", *(f"runs/{job}" for job in JOBS))
"""Folders with what other things are made from."""

BEGAN_WITH = "warm_start"
"""The entry of a run's summary that names the run it began with; one that has ended needs that no more."""

LISTED = ("bundles", "inputs", "cache", "images", "contrast", "runs", "corpora")
"""Folders that are looked into; corpus, expansions and chat are never touched."""


@dataclass(frozen=True)
class Survey:
    """A workspace as it was at one time.

    Attributes:
        workspace: that was listed.
        top: names directly below its root.
        listing: of :data:`LISTED`, and of hidden names beside these.
        journal: of a removal that did not end.
        now: seconds since the epoch.
        unfinished_s: seconds without a change after which what is unfinished is given up.
        unknown: paths of what is not known, and so is left alone.
    """

    workspace: Workspace
    top: frozenset[str]
    listing: Listing
    journal: Journal
    now: float
    unfinished_s: float = 7 * DAY
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, workspace: Workspace, unfinished_s: float = 7 * DAY, now: float | None = None) -> Survey:
        """Look at a workspace; ``now`` is this moment unless it is given."""
        root = workspace.root
        with translated(root.uri):
            selector = pafs.FileSelector(root.path, allow_not_found=True)
            infos = root.ask(lambda fs: fs.get_file_info(selector))
        top = frozenset(info.base_name for info in infos)
        listing = Listing.of(root, [*LISTED, *(name for name in top if name.startswith("."))])
        now = time.time() if now is None else now
        return cls(workspace, top, listing, Journal.read(root), now, unfinished_s)

    def pointed(self, folder: str) -> str | None:
        """Return the name that the pointer of a folder holds, None: there is no pointer."""
        path = f"{folder}/{CURRENT}"
        if not self.listing.holds(path):
            return None
        return (self.workspace.root / path).read_bytes().decode(errors="replace").strip()

    def document(self, path: str) -> Any:
        """Return the JSON of a file; None: it is not there, or not JSON."""
        content = (self.workspace.root / path).read_if_there() if self.listing.holds(path) else None
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return None

    def given_up(self, path: str, after_s: float = DAY) -> bool:
        """Return whether something unfinished was left behind: nobody wrote into it for so many seconds.

        What an earlier removal left half done is not waited for.
        """
        return self.journal.holds(self.listing, path) or self.now - self.listing.changed(path) >= after_s

    def made_from(self, roots: Iterable[str], documents: Iterable[Any]) -> set[str]:
        """Return which folders of :data:`SOURCES` something was made from, by their paths.

        Args:
            roots: paths of folders (``runs/train_encoder/NAME``), which are in the answer.
            documents: JSON values that name others.
        """
        named: dict[str, list[str]] = defaultdict(list)
        for folder in SOURCES:
            for name in self.listing.children(folder):
                named[name].append(f"{folder}/{name}")
        waiting, found = list(roots), set[str]()
        for document in documents:
            waiting += _named_in(document, named)
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found.add(path)
            # A run's name begins with that of its input; one that has not ended names nothing else.
            waiting += named.get(path.rpartition("/")[2].rpartition("-e")[0], [])
            for file in (f"{path}/{MANIFEST}", f"{path}/{SUMMARY}"):
                document = self.document(file)
                if isinstance(document, dict):
                    document.pop(BEGAN_WITH, None)
                waiting += _named_in(document, named)
        return found


def _named_in(document: Any, named: Mapping[str, list[str]]) -> Iterator[str]:
    for text in _texts(document):
        for name in text.split("/"):
            yield from named.get(name, ())


def _texts(document: Any) -> Iterator[str]:
    """Yield the texts in a JSON value."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)
