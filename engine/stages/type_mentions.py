"""Type mentions by the bundle's typing model: an answer ranks types, not entities."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from engine.query import Expansion, Query, Ranking
from engine.stages.base import Stage, Worker
from engine.storage.bundle import Bundle
from engine.typing.labels_file import LabelsFile
from engine.typing.mentions import Mention

if TYPE_CHECKING:  # what only describes a stage loads no model library
    from engine.typing.model import TypingModel

TYPING = "typing"
"""A bundle's folder with the typing model that its entities were typed by."""

LABELS = f"{TYPING}/labels.json"
"""The model's types."""


@dataclass(frozen=True, slots=True)
class MentionQuery(Query):
    """A question for the types of one mention. It has no seeds."""

    positive: tuple[int, ...] = ()
    mention: Mention = field(default_factory=lambda: Mention("", "", ""))

    def __post_init__(self) -> None:
        """Check nothing: what holds of seeds holds of none."""


class TypeMentions(Stage):
    """Rank the types of each query's mention, the surest first (parents of a single one before it).

    Takes :class:`MentionQuery` alone. An id is a type's place in :attr:`LabelsFile.predicted`, a score its
    probability. Which types hold is decided by the model's own rule.
    """

    num_cpus: ClassVar[float] = 0.5  # a few milliseconds a mention
    unit: ClassVar[str] = "characters"
    budget: ClassVar[int] = 16_384  # about 64 mentions in sentences of 50 words

    def cost(self, expansion: Expansion) -> int:
        """Return the length of the mention with its contexts."""
        mention = _mention(expansion)
        return max(1, len(mention.left) + len(mention.text) + len(mention.right))

    def needs(self) -> tuple[str, ...]:
        """Name the typing model."""
        return (TYPING,)

    def open(self, bundle: Bundle) -> Worker:
        """Load the typing model."""
        from engine.models.device import worker_device
        from engine.typing.model import TypingModel

        def read(folder: Path) -> TypingModel:
            return TypingModel.load(folder).to(worker_device())

        model = bundle.once(TYPING, read)
        place = {name: number for number, name in enumerate(model.about.predicted)}

        def run(expansions: list[Expansion]) -> list[Expansion]:
            typed = model.types([_mention(e) for e in expansions])
            rankings = [
                Ranking(
                    np.array([place[one.label] for one in types], np.int32),
                    np.array([one.confidence for one in types], np.float32),
                )
                for types in typed
            ]
            return [replace(e, ranking=r) for e, r in zip(expansions, rankings, strict=True)]

        return run


def open_labels(bundle: Bundle) -> LabelsFile:
    """Return the labels of the bundle's typing model.

    Raises:
        BundleError: it holds none.
    """
    return bundle.once(LABELS, lambda file: LabelsFile.read(file.parent))


def _mention(expansion: Expansion) -> Mention:
    query = expansion.query
    if not isinstance(query, MentionQuery):
        raise TypeError(f"{type(query).__name__} asks for entities, not for the types of a mention")
    return query.mention
