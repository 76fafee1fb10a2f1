"""Name places in files of a corpus; made for every record, printed for refused ones.

Each is a tuple of what the reader knows anyway, so that making one costs next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class LinePosition(NamedTuple):
    """A line of a text file, numbered from 1 (0: unknown), and the byte of the file at which it begins."""

    line: int
    byte: int

    def __str__(self) -> str:
        return f"line {self.line}, byte {self.byte}" if self.line else f"byte {self.byte}"


class MentionPosition(NamedTuple):
    """A mention among those of a line, numbered from 0."""

    line: int
    mention: int

    def __str__(self) -> str:
        return f"line {self.line}, mention {self.mention}"


class RowPosition(NamedTuple):
    """A row of a table, numbered from 0."""

    row: int

    def __str__(self) -> str:
        return f"row {self.row}"


class RecordPosition(NamedTuple):
    """A record of a file of delimited fields: the line on which it begins, numbered from 1."""

    line: int

    def __str__(self) -> str:
        return f"line {self.line}"


class KeyPosition(NamedTuple):
    """A key of a JSON object."""

    key: str

    def __str__(self) -> str:
        return repr(self.key)


class SentencePosition(NamedTuple):
    """A sentence in the list of an entity, numbered from 0."""

    entity: str
    sentence: int

    def __str__(self) -> str:
        return f"{self.entity!r}, sentence {self.sentence}"


class AfterPosition(NamedTuple):
    """The position after the last place that could be read."""

    last: KeyPosition | SentencePosition

    def __str__(self) -> str:
        if isinstance(self.last, SentencePosition) and self.last.sentence < 0:
            return f"after {self.last.entity!r}" if self.last.entity else "at its beginning"
        return f"after {self.last}" if self.last != KeyPosition("") else "at its beginning"


class StoredMentionPosition(NamedTuple):
    """A row of a part of a workspace's mentions, numbered from 0, and the entity there."""

    part: str
    row: int
    entity_id: int

    def __str__(self) -> str:
        return f"mention of entity {self.entity_id} in {self.part}, row {self.row}"


class PrintedPosition(NamedTuple):
    """A place that was printed when the record was handed to another process."""

    text: str

    def __str__(self) -> str:
        return self.text


Position = (
    LinePosition
    | MentionPosition
    | RowPosition
    | RecordPosition
    | KeyPosition
    | SentencePosition
    | AfterPosition
    | StoredMentionPosition
    | PrintedPosition
)
