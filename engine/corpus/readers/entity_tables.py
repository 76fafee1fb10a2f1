"""Read a table of entities in any form of rows: names once each, with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.corpus.positions import Position
from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.readers.row_files import RowFile
from engine.corpus.readers.table_files import TableFiles
from engine.corpus.readers.tables import TableReader
from engine.corpus.text import fault_of_name
from engine.refusals import Code, Refusal
from engine.text.spelling import difference
from engine.vocabulary import MAX_NAME_LENGTH


class UniqueNames:
    """Names of entities, and where each stood."""

    def __init__(self) -> None:
        self._places: dict[str, Position] = {}

    def take(self, one: Entity) -> Refusal | None:
        """Take an entity's name, or return why it cannot be one: an earlier entity may have it."""
        fault = fault_of_name(one.name, MAX_NAME_LENGTH)
        if fault is None and one.name in self._places:
            signs = f" but for {difference(one.given, one.name)}" if one.given != one.name else ""
            fault = Refusal(Code.DUPLICATE_ENTITY, f"the same name as in {self._places[one.name]}{signs}")
        if fault is None:
            self._places[one.name] = one.position
        return fault


def entities_of_files(
    files: Sequence[RowFile], columns: Mapping[str, str]
) -> tuple[list[Entity], list[RefusedRecord]]:
    """Return the entities of files, each name once, and what is refused.

    Args:
        files: the table's.
        columns: names of columns in them, where they are not ours.

    Raises:
        FormatError: the column of names, or one that was named, is missing.
    """
    found: list[Entity] = []
    refused: list[RefusedRecord] = []
    names = UniqueNames()
    tables = TableFiles(files[0].file.parent, [], list(files), [])
    for one in TableReader(tables, columns).entities() or ():
        if isinstance(one, RefusedRecord):
            refused.append(one)
        elif fault := names.take(one):
            refused.append(RefusedRecord(one.source, one.position, fault, one.given, "entity"))
        else:
            found.append(one)
    return found, refused
