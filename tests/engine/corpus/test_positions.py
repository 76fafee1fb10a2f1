"""Positions print themselves as the quarantine shows them."""

from __future__ import annotations

import pytest

from engine.corpus.positions import (
    AfterPosition,
    KeyPosition,
    LinePosition,
    MentionPosition,
    Position,
    PrintedPosition,
    RowPosition,
    SentencePosition,
    StoredMentionPosition,
)


@pytest.mark.parametrize(
    ("position", "printed"),
    [
        (LinePosition(3, 40), "line 3, byte 40"),
        (MentionPosition(3, 0), "line 3, mention 0"),
        (RowPosition(7), "row 7"),
        (KeyPosition("it's"), '"it\'s"'),
        (SentencePosition("iron", 2), "'iron', sentence 2"),
        (AfterPosition(KeyPosition("iron")), "after 'iron'"),
        (AfterPosition(SentencePosition("iron", 2)), "after 'iron', sentence 2"),
        (AfterPosition(SentencePosition("iron", -1)), "after 'iron'"),
        (AfterPosition(SentencePosition("", -1)), "at its beginning"),
        (AfterPosition(KeyPosition("")), "at its beginning"),
        (
            StoredMentionPosition("part-00001.parquet", 4, 9),
            "mention of entity 9 in part-00001.parquet, row 4",
        ),
        (PrintedPosition("line 4, byte {0}"), "line 4, byte {0}"),
    ],
)
def test_a_position_prints_itself(position: Position, printed: str) -> None:
    assert str(position) == f"{position}" == printed
