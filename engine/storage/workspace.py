"""Locate the folders of a workspace: the one module that knows their names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.errors import StorageError
from engine.storage import corpora
from engine.storage.alike_paths import existing
from engine.storage.lock import check_held
from engine.storage.store import Store

_MANIFEST = "manifest.json"
_CORPUS = "corpus"


@dataclass(frozen=True)
class Workspace:
    """A folder or ``s3://`` prefix that holds a corpus and everything made from it.

    ::

        corpus/       entities.parquet, mentions/*.parquet and *.keys, images/*, quarantine/*.jsonl,
                      manifest.json
        corpora/<id>/ the same in a bucket, which can exchange no folder; corpora/CURRENT names the one used
        inputs/<key>/ model input by settings and corpus: a manifest that names its parts; inputs/CURRENT
        inputs/parts-<key>/ those parts, one per mentions part, each under the digest of what it is made from
        cache/<key>/  states of the frozen layers, one part per inputs part
        cache/terms-*/, cache/lexical-*/ counts of words by mentions part, and the weights of them all
        images/<key>/ patch features of the corpus' distinct images by backbone and settings; images/CURRENT
        contrast/<key>/ mined lists of contrastive learning by settings and corpus; contrast/CURRENT
        runs/<job>/   checkpoints, metrics, TensorBoard events, evaluation reports
        bundles/<id>/ published artifacts; bundles/CURRENT names the one that is used
        expansions/   results of batch expansion
        chat/         answers of chat models, and the count of what was spent on them
        locks/        a file for each command that writes here now (engine.storage.lock)
    """

    root: Store

    @classmethod
    def open(cls, uri: str | os.PathLike[str]) -> Workspace:
        """Return the workspace at a local path or an ``s3://`` address; it need not exist yet."""
        return cls(Store.open(uri))

    @cached_property
    def corpus(self) -> Store:
        """The imported corpus; in a bucket the one that was current when it was first asked for.

        Raises:
            StorageError: the pointer in the bucket cannot be read.
        """
        in_place = self.root / _CORPUS
        if self.root.is_local:
            return in_place.in_place_or_aside()
        pointer = self._corpora / "CURRENT"
        name = pointer.read_if_there()
        if name is None:
            return in_place  # of a version that published there, or none yet
        if (folder := corpora.name_in(name)) is None:
            raise StorageError(f"{pointer.uri}: names no corpus; import again with --overwrite")
        return self._corpora / folder

    @property
    def _corpora(self) -> Store:
        return self.root / "corpora"

    def corpus_seen(self) -> bytes | None:
        """Return what tells the corpus that is there now from any other; None: there is none."""
        pointed = None if self.root.is_local else (self._corpora / "CURRENT").read_if_there()
        if pointed is not None:
            return pointed
        manifest = (self.root / _CORPUS).in_place_or_aside() / _MANIFEST
        content = manifest.read_if_there()
        return None if content is None else hashlib.sha256(content).digest()

    @property
    def shares_files(self) -> bool:
        """Whether the next corpus may have files of this one without writing them again: in a bucket.

        Not those of a version that published in place, which are removed with the next import but one.
        """
        return not self.root.is_local and self.corpus.parent == self._corpora

    def corpus_files(self, folder: str, suffix: str = "") -> dict[str, Store]:
        """Return the corpus' files below one of its folders, by their paths below the corpus, sorted."""
        return corpora.files_of(self.corpus, folder, suffix)

    def publish_corpus(self, folder: Path, seen: bytes | None, kept: Iterable[str] = ()) -> None:
        """Make a finished local folder the corpus, in one step: a reader finds the old one or the new.

        In a bucket the corpus before it is kept, as jobs that began with it still read it.

        Args:
            folder: with a manifest; is consumed.
            seen: from :meth:`corpus_seen` when the import began.
            kept: files of the corpus before it that belong to it, too, by their paths below that; only where
                :attr:`shares_files`.

        Raises:
            StorageError: another corpus was published meanwhile, and that one stays; or the lock of this
            command was taken over.
        """
        if self.root.is_local:
            target = self.root / _CORPUS
            with target.locked():
                self._check_still(seen)
                target.publish_folder(folder, last=_MANIFEST)
        else:
            self._publish_in_bucket(folder, seen, kept)
        self.__dict__.pop("corpus", None)

    def _publish_in_bucket(self, folder: Path, seen: bytes | None, kept: Iterable[str]) -> None:
        pointed = (self._corpora / "CURRENT").exists()
        if not corpora.publish(self._corpora, folder, self.corpus, kept, lambda: self._check_still(seen)):
            raise self._replaced()
        if pointed:
            (self.root / _CORPUS).delete()

    def _check_still(self, seen: bytes | None) -> None:
        check_held(self.root)
        if self.corpus_seen() != seen:
            raise self._replaced()

    def _replaced(self) -> StorageError:
        return StorageError(
            f"{self.root.uri}: another import published a corpus here meanwhile, and that one stays; run "
            "this one again with --overwrite to replace it, or name another --workspace"
        )

    @property
    def entities(self) -> Store:
        """The corpus' entity table."""
        return corpora.file_of(self.corpus, "entities.parquet")

    def mentions(self) -> list[Store]:
        """Return the mention parts of the corpus, in order.

        Raises:
            StorageError: no corpus has been imported.
        """
        if not (self.corpus / _MANIFEST).exists():
            raise StorageError(
                f"{self.corpus.uri}: no corpus here yet; run `seedset import --workspace "
                f"{self.root.uri} …` first"
            )
        return list(self.corpus_files("mentions", ".parquet").values())

    def image(self, address: str) -> Store:
        """Return the image of a mention: a path below the workspace, a local path, or an s3:// address.

        Where a local path names nothing, a file whose path is spelt alike is taken, if there is one only.

        Raises:
            StorageError: another scheme, or a bucket that cannot be used.
        """
        if "://" in address or address.startswith("/"):
            store = Store.open(address)
        else:
            in_corpus = address.removeprefix(f"{_CORPUS}/")
            in_root = in_corpus == address
            store = self.root / address if in_root else corpora.file_of(self.corpus, in_corpus)
        # In a bucket to ask whether it is there would double the requests.
        return existing(store) if store.is_local else store

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

    def contrast(self, key: str | None = None) -> Store:
        """Mined lists of contrastive learning, which ``key`` stands for; None: the folder of all."""
        folder = self.root / "contrast"
        return folder if key is None else folder / key

    def runs(self, job: str) -> Store:
        """Checkpoints, metrics and reports of a job."""
        return self.root / "runs" / job

    @property
    def chat(self) -> Store:
        """Answers of chat models that are kept."""
        return self.root / "chat"

    @property
    def locks(self) -> Store:
        """Files of the commands that write into the workspace now."""
        return self.root / "locks"

    @property
    def bundles(self) -> Store:
        """Published bundles and the pointer to the current one."""
        return self.root / "bundles"
