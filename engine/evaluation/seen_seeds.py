"""Say of how much of what is measured a bundle's views were told by the seeds of other queries.

Where lists were mined (:mod:`engine.training.contrast_lists`), their queries' seeds train the view of the
contrastive training and tell sides apart in the joint view. Measured on queries of the same classes, that is
what a user gets who mined queries of these classes; it is not what a new class gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.queries.formats import LabelledQuery
from engine.retrieval.discriminant import DISCRIMINANT
from engine.retrieval.entity_sentences import CONTRAST
from engine.retrieval.index import index_file
from engine.stages.base import Pipeline

_READ_BY = {
    DISCRIMINANT: (index_file("joint"),),
    CONTRAST: (index_file("joint"), index_file(CONTRAST), CONTRAST),
}
"""Files of a bundle that the lists named by an entry of its settings go into."""


@dataclass(frozen=True)
class ListSeeds:
    """The seeds of some mined lists.

    Args:
        key: of the lists.
        queries: of which they were mined, as pairs of the positive and the negative seeds.
    """

    key: str
    queries: frozenset[tuple[frozenset[int], frozenset[int]]]

    @property
    def entities(self) -> frozenset[int]:
        """Every seed, of either side."""
        return frozenset().union(*(side for query in self.queries for side in query))


def lists_read(pipeline: Pipeline, settings: Mapping[str, Any]) -> list[str]:
    """Return the keys of the lists whose seeds are in what a method searches.

    Args:
        pipeline: of the method.
        settings: of the bundle. One of a version that did not say which lists it read says nothing here.
    """
    needed = {name for stage in pipeline.stages for name in stage.needs()}
    entries = [settings.get(entry, {}) for entry, files in _READ_BY.items() if not needed.isdisjoint(files)]
    return sorted({entry["lists"] for entry in entries if entry.get("lists")})


def seen_seeds_note(key: str, read: ListSeeds | None, measured: Sequence[LabelledQuery]) -> str | None:
    """Return what a report must say of lists whose seeds are in what a method searches.

    Args:
        key: of the lists.
        read: their seeds; None: they are gone.
        measured: the queries.

    Returns:
        None if no query is among theirs, and no entity that is to be found is a seed of theirs.
    """
    made = f"what is searched was made with the seeds of the mined lists {key}"
    if read is None:
        return f"{made}, which are gone: whether these queries are among theirs cannot be told"
    own = sum((frozenset(q.query.positive), frozenset(q.query.negative)) in read.queries for q in measured)
    seeds, wanted = read.entities, [entity for q in measured for entity in q.positive.ids]
    known = sum(entity in seeds for entity in wanted)
    if not own and not known:
        return None
    share = _percent(known, len(wanted))
    return (
        f"{made}: {own} of the {len(measured)} queries are among theirs, and {share} of the true entities "
        "are seeds there; what a class gets of which nothing was mined is told by a bundle made with "
        "`--lists none`, after a training without lists"
    )


def joined(notes: Iterable[str | None]) -> str | None:
    """Return some notes as one; None: there is none."""
    return "; ".join(note for note in notes if note) or None


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "none"
