"""Read a table of entities in any form of rows: names once each, with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.corpus.readers.base import Entity, RefusedRecord
from engine.corpus.readers.delimited import TEXT_COLUMN
from engine.corpus.readers.row_files import RowFile
from engine.corpus.readers.tables import ENTITY_COLUMNS
from engine.corpus.readers.values import entity_of_row
from engine.corpus.text import fault_of_name
from engine.refusals import Code, Refusal
from engine.text.spelling import difference
from engine.vocabulary import MAX_NAME_LENGTH


def entities_of_files(
    files: Sequence[RowFile], columns: Mapping[str, str]
) -> tuple[list[Entity], list[RefusedRecord]]:
    """Return the entities of files, each name once, and what is refused.

    Of a text file every line is a name.

    Args:
        files: the table's.
        columns: names of columns in them, where they are not ours.

    Raises:
        FormatError: the column of names is missing.
    """
    found: dict[str, Entity] = {}
    refused: list[RefusedRecord] = []
    for file in files:
        default = {"name": TEXT_COLUMN} if file.form == "text" else {}
        named = {our: {**default, **columns}.get(our, our) for our in ENTITY_COLUMNS}
        for row, position, text in file.rows(named):
            if isinstance(row, Refusal):
                refused.append(RefusedRecord(file.name, position, row, text, "entity"))
                continue
            one, lost = entity_of_row(row, file.name, position, text)
            refused += lost
            if one is None:
                continue
            fault = fault_of_name(one.name, MAX_NAME_LENGTH)
            if fault is None and one.name in found:
                signs = f" but for {difference(one.given, one.name)}" if one.given != one.name else ""
                place = found[one.name].position
                fault = Refusal(Code.DUPLICATE_ENTITY, f"the same name as in {place}{signs}")
            if fault:
                refused.append(RefusedRecord(file.name, position, fault, one.given, "entity"))
            else:
                found[one.name] = one
    return list(found.values()), refused
