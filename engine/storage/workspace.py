"""Locate the folders of a workspace: the one module that knows their names."""

from __future__ import annotations

import os
from dataclasses import dataclass

from engine.errors import StorageError
from engine.storage.store import Store


@dataclass(frozen=True)
class Workspace:
    """A folder or ``s3://`` prefix that holds a corpus and everything made from it.

    ::

        corpus/       entities.parquet, mentions/*.parquet, images/*, quarantine/*.jsonl, manifest.json
        inputs/<key>/ model input by settings and corpus: a manifest that names its parts; inputs/CURRENT
        inputs/parts-<key>/ those parts, one per mentions part, each under the digest of what it is made from
        cache/<key>/  states of the frozen layers, one part per inputs part
        images/<key>/ patch features of the corpus' distinct images by backbone and settings; images/CURRENT
        runs/<job>/   checkpoints, metrics, TensorBoard events, evaluation reports
        bundles/<id>/ published artifacts; bundles/CURRENT names the one that is used
        expansions/   results of batch expansion
    """

    root: Store

    @classmethod
    def open(cls, uri: str | os.PathLike[str]) -> Workspace:
        """Return the workspace at a local path or an ``s3://`` address; it need not exist yet."""
        return cls(Store.open(uri))

    @property
    def corpus(self) -> Store:
        """The imported corpus."""
        return self.root / "corpus"

    @property
    def entities(self) -> Store:
        """The corpus' entity table."""
        return self.corpus / "entities.parquet"

    def mentions(self) -> list[Store]:
        """Return the mention parts of the corpus, in order.

        Raises:
            StorageError: no corpus has been imported.
        """
        if not (self.corpus / "manifest.json").exists():
            raise StorageError(
                f"{self.corpus.uri}: no corpus here yet; run `seedset import --workspace "
                f"{self.root.uri} …` first"
            )
        return (self.corpus / "mentions").files(".parquet")

    def image(self, address: str) -> Store:
        """Return the image of a mention: a path below the workspace, a local path, or an s3:// address.

        Raises:
            StorageError: another scheme, or a bucket that cannot be used.
        """
        relative = "://" not in address and not address.startswith("/")
        return self.root / address if relative else Store.open(address)

    def inputs(self, key: str | None = None) -> Store:
        """Model input made with the settings that ``key`` stands for; None: the folder of all."""
        folder = self.root / "inputs"
        return folder if key is None else folder / key

    def cache(self, key: str) -> Store:
        """States of the frozen layers for the same settings."""
        return self.root / "cache" / key

    def images(self, key: str) -> Store:
        """Patch features of the corpus' images by backbone and settings, which ``key`` stands for."""
        return self.root / "images" / key

    def runs(self, job: str) -> Store:
        """Checkpoints, metrics and reports of a job."""
        return self.root / "runs" / job

    @property
    def bundles(self) -> Store:
        """Published bundles and the pointer to the current one."""
        return self.root / "bundles"
