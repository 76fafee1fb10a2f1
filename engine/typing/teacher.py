"""Label mentions by a teacher, a finished typing model, for self-training.

The rule and its settings are those of the program of FiveFine's authors: a type that the teacher gives a
probability of 0.9 or more holds, one of 0.01 or less does not, and one between them counts neither way in the
student's loss. (Their program for Dai et al., 2021, "Ultra-Fine Entity Typing with Weak Supervision from a
Masked Language Model", has 0.9 and 0.1.) Theirs also takes a label that the mention came with where the
teacher gives it more than 0.7; here such labels are not read.

Shape letters: n mentions, N labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.storage.store import Store
from engine.typing.mentions import Mention, TypedMention

POSITIVE, NEGATIVE = 0.9, 0.01
"""Probabilities from which on a type holds, and up to which it does not."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("left", pa.string(), nullable=False),
        pa.field("mention", pa.string(), nullable=False),
        pa.field("right", pa.string(), nullable=False),
        pa.field("positive", pa.list_(pa.int32()), nullable=False),
        pa.field("uncertain", pa.list_(pa.int32()), nullable=False),
    ]
)
"""A row a mention, in their order; of each the numbers of types that hold, and of those that do not count."""


class Thresholds(NamedTuple):
    """Probabilities from which on a type holds, and up to which it does not."""

    positive: float = POSITIVE
    negative: float = NEGATIVE

    def check(self) -> None:
        """Refuse what is no rule.

        Raises:
            UserError: a type could both hold and not hold.
        """
        if self.negative >= self.positive:
            raise UserError(
                f"--negative-probability {self.negative:g}: must be below --positive-probability, "
                f"{self.positive:g}; a type between the two does not count"
            )


class Taught(NamedTuple):
    """What a teacher says of a mention: numbers of types that hold, and of those that do not count."""

    positive: npt.NDArray[np.int32]
    uncertain: npt.NDArray[np.int32]


def taught(scores_nN: npt.NDArray[np.float32], thresholds: Thresholds) -> list[Taught]:
    """Return what holds of each mention by a teacher's scores, and what does not count.

    Args:
        scores_nN: logits.
        thresholds: that their probabilities are compared with.
    """
    most, least = (math.log(p / (1 - p)) for p in thresholds)
    return [
        Taught(
            np.flatnonzero(scores_N >= most).astype(np.int32),
            np.flatnonzero((scores_N < most) & (scores_N > least)).astype(np.int32),
        )
        for scores_N in scores_nN
    ]


def write_taught(path: Path, mentions: Sequence[TypedMention], found: Sequence[Taught]) -> None:
    """Write mentions and what a teacher says of each (:data:`SCHEMA`)."""
    columns = {
        "id": [one.id for one in mentions],
        "left": [one.mention.left for one in mentions],
        "mention": [one.mention.text for one in mentions],
        "right": [one.mention.right for one in mentions],
        "positive": [one.positive for one in found],
        "uncertain": [one.uncertain for one in found],
    }
    pq.write_table(pa.table(columns, SCHEMA), path)


def read_taught(file: Store, labels: Sequence[str]) -> list[TypedMention]:
    """Return the mentions that a teacher is sure of a type of, with what it says as labels of a program.

    Args:
        file: that :func:`write_taught` wrote.
        labels: that its numbers stand for.
    """
    with file.open_input() as stream:
        rows = pq.read_table(stream).to_pylist()
    return [
        TypedMention(
            row["id"],
            Mention(row["left"], row["mention"], row["right"]),
            (),
            tuple(labels[place] for place in row["positive"]),
            tuple(labels[place] for place in row["uncertain"]),
        )
        for row in rows
        if row["positive"]
    ]
