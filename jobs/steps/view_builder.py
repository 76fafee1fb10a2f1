"""Say what builders of views read, what they add to, and which settings of the bundle each may make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.errors import UserError
from engine.retrieval.index import Vectors, index_file, read_vectors, write_vectors
from engine.retrieval.views import row_slices
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache
from engine.training.contrast_lists import MinedLists
from jobs.steps.encoder_training import Trained
from jobs.steps.masked_lm import MaskedLmUse
from jobs.workers.executor import Executor


@dataclass(frozen=True)
class Encoders:
    """The encoders of the text views."""

    base: str
    """The encoder before training: frozen layers, and descriptions."""
    last: str | None
    """Folder of the trained encoder, whose last layer makes the mask view; None: the base's own."""

    @property
    def of_mask_view(self) -> str:
        """The encoder that makes the mask view."""
        return self.last or self.base


@dataclass(frozen=True)
class Sources:
    """The inputs that views are made from.

    Attributes:
        workspace: with the corpus.
        cache: states of the frozen layers for every sentence.
        encoders: of texts.
        trained: the run of the text encoder; None: the encoder is as it came.
        descriptions: of each entity, "" where there is none.
        temperature: of predicted distributions.
        distributions: make those of the text.
        masked_lm: what a masked language model is wanted for.
        types: folder of the typing model; None: entities get no types.
        lists: mined lists, of whose queries the joint view tells apart what the seeds tell apart; or None.
        executor: where the work is done.
    """

    workspace: Workspace
    cache: FrozenCache
    encoders: Encoders
    trained: Trained | None
    descriptions: list[str]
    temperature: float
    distributions: bool
    masked_lm: MaskedLmUse
    types: str | None
    lists: MinedLists | None
    executor: Executor


class MentionReader(NamedTuple):
    """A trained encoder that made a view of mentions, and the cache of its frozen layers' states."""

    encoder: str
    cache: FrozenCache


@dataclass
class BuiltViews:
    """The outputs of the builders, which add to it.

    Attributes:
        staged: the bundle's folder, into which files are written as they are made.
        views: vectors [N, D] by view, mapped.
        settings: entries of the bundle's manifest.
        refused_images: addresses of images that could not be used.
        read_mentions: reads mentions as the newest view of them does; None: nothing that was trained.
    """

    staged: Path
    views: dict[str, Vectors] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    refused_images: Sequence[str] = ()
    read_mentions: MentionReader | None = None

    def add(self, name: str, vectors: Vectors) -> None:
        """Write a view, and keep it mapped."""
        self.add_rows(name, [vectors], vectors.shape)

    def add_rows(self, name: str, blocks: Iterable[Vectors], shape: tuple[int, ...]) -> None:
        """Write a view of which no process holds more than some rows.

        Args:
            name: of the view.
            blocks: rows after one another.
            shape: of all together, [N, D].

        Raises:
            UserError: some vectors are no numbers: nothing would be near them. Says how many.
        """
        path, broken = self.staged / index_file(name), 0

        def counted() -> Iterator[Vectors]:
            nonlocal broken
            for block in blocks:
                for some in row_slices(len(block)):
                    broken += int((~np.isfinite(block[some]).all(axis=1)).sum())
                yield block

        write_vectors(path, counted(), shape)
        if broken:
            raise UserError(
                f"view {name!r}: the vectors of {broken} of {shape[0]} entities are no finite numbers; "
                "nothing was published: the encoder that makes them is broken, copy it again, or train it "
                "again with a lower --learning-rate"
            )
        self.views[name] = read_vectors(path, mapped=True)


@dataclass(frozen=True)
class Builder:
    """A builder of a view.

    Attributes:
        build: adds the view.
        setting: the entry of the bundle's manifest that it may make; None: it makes none.
    """

    build: Callable[[Sources, BuiltViews], None]
    setting: str | None = None

    def __call__(self, sources: Sources, made: BuiltViews) -> None:
        """Add the view to what was made before it.

        Raises:
            RuntimeError: an entry of the manifest was made that the builder does not declare: the next
                bundle would keep it, whether it holds the view or not.
        """
        before = set(made.settings)
        self.build(sources, made)
        if undeclared := set(made.settings) - before - {self.setting}:
            raise RuntimeError(f"{self.build.__name__} does not declare the settings {sorted(undeclared)}")
