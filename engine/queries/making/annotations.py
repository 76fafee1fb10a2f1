"""Read what several annotators said of entities' attributes, and tell how far they agree."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from engine.corpus.readers.row_files import find_row_files
from engine.corpus.readers.values import required_text
from engine.errors import FormatError
from engine.queries.making.statistics import fleiss_kappa
from engine.refusals import Refusal

COLUMNS = ("entity", "attribute", "annotator", "value")


def read_agreement(address: str) -> dict[str, dict[str, Any]]:
    """Return the agreement on each attribute: ``{attribute: {items, annotators, kappa}}``.

    Args:
        address: a table, or several, of the columns :data:`COLUMNS`.

    Raises:
        FormatError: a row cannot be used, an annotator judged an entity twice, or entities were judged by
            different numbers of annotators; names the first.
    """
    said: dict[str, dict[str, dict[str, str]]] = {}
    for file in find_row_files(address).files:
        for row, position, _ in file.rows({name: name for name in COLUMNS}):
            place = f"{file.file.uri}, {position}"
            if isinstance(row, Refusal):
                raise FormatError(f"{place}: {row}")
            cells = {name: required_text(row.get(name), name) for name in COLUMNS}
            for cell in cells.values():
                if isinstance(cell, Refusal):
                    raise FormatError(f"{place}: {cell}")
            entity, attribute, annotator, value = (str(cells[name]) for name in COLUMNS)
            judged = said.setdefault(attribute, {}).setdefault(entity, {})
            if annotator in judged:
                raise FormatError(f"{place}: {annotator} judged {attribute} of {entity!r} before")
            judged[annotator] = value
    if not said:
        raise FormatError(f"{address}: no annotation in it")
    return {attribute: _agreement(address, attribute, said[attribute]) for attribute in sorted(said)}


def _agreement(address: str, attribute: str, judged: dict[str, dict[str, str]]) -> dict[str, Any]:
    numbers = Counter(len(by) for by in judged.values())
    usual = numbers.most_common(1)[0][0]
    if len(numbers) > 1 or usual < 2:
        entity, by = next((e, b) for e, b in judged.items() if len(b) != usual or usual < 2)
        raise FormatError(
            f"{address}: {attribute} of {entity!r} has {len(by)} annotators, and others {usual}; every "
            "entity needs as many, two at least"
        )
    categories = sorted({value for by in judged.values() for value in by.values()})
    counts_IC = np.zeros((len(judged), len(categories)), np.int64)
    for row, by in enumerate(judged.values()):
        for value in by.values():
            counts_IC[row, categories.index(value)] += 1
    return {"items": len(judged), "annotators": usual, "kappa": round(fleiss_kappa(counts_IC), 4)}
