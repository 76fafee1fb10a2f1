"""Find the files of a typing data set in a folder or file that a user named."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import MissingFileError
from engine.storage.store import Store

TRAIN = ("train.json", "train.jsonl", "crowd/train.json")
"""Names of the mentions to train on in a folder; the last is UFET's own layout."""
TYPES = ("types.txt", "type_vocab.txt", "ontology/types.txt")
"""Names of the list of labels in a folder, in the same order of layouts."""


@dataclass(frozen=True)
class TypingData:
    """A file of mentions, and the list of labels that lies beside it, if one does."""

    mentions: Store
    labels: Store | None


def find_data(given: str, option: str = "--data") -> TypingData:
    """Return the files of a data set.

    Args:
        given: a file of JSON lines; or a folder with one of :data:`TRAIN`, and maybe one of :data:`TYPES`.
        option: that gave it, for errors.

    Raises:
        MissingFileError: there is no such file, or none of the names in the folder.
    """
    place = Store.open(given)
    if place.name.endswith((".json", ".jsonl")) or any(
        place.name.endswith((f".json{end}", f".jsonl{end}")) for end in (".gz", ".zst", ".bz2", ".xz")
    ):
        if not place.exists():
            raise MissingFileError(f"{option} {given}: no such file")
        beside = place.parent
        roots = [beside, beside.parent]
    else:
        there = [place / name for name in TRAIN if (place / name).exists()]
        if not there:
            raise MissingFileError(
                f"{option} {given}: no {', '.join(TRAIN[:-1])} or {TRAIN[-1]} in it; name a file of mentions "
                "(JSON lines), or a folder with one of these"
            )
        place, roots = there[0], [place]
    labels = [root / name for root in roots for name in TYPES if (root / name).exists()]
    return TypingData(place, labels[0] if labels else None)
