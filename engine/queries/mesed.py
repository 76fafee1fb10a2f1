"""Read queries and truth in the layout of MESED, as records that :mod:`engine.queries.formats` resolves.

::

    query/<class>.txt      the ids of a query's seeds a line; a line EXIT ends the queries
    query_seed=5/…         the same with five seeds
    gt/<class>.txt         id TAB name TAB relevance: the class's entities; 0 is none of them
    entity2id.txt          name TAB id

``gt`` and ``entity2id.txt`` lie in the folder of the queries or beside it. The ids are the layout's own: an
entity is known to us by the name that ``entity2id.txt`` gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from engine.corpus.readers.json_stream import decode, lines
from engine.corpus.readers.mesed import ENTITIES, entity_lines, whole_number
from engine.corpus.readers.source_files import dangling
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.text.spelling import clean_name

SUFFIX = ".txt"
END = "EXIT"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")

RawRecord = tuple[Store, int, Any]
"""A file, a line of it, and the record there; in the place of one that cannot be used a :class:`Refusal`."""


def query_texts(folder: Store) -> list[Store]:
    """Return the files of queries in a folder, by name."""
    return [f for f in folder.files(SUFFIX) if f.path == f"{folder.path}/{f.name}" and f.name != ENTITIES]


def mesed_records(files: Sequence[Store]) -> Iterator[RawRecord]:
    """Yield the queries of files in one folder, and what is wrong in the files beside them.

    Of a class whose truth cannot be read whole the queries come without truth: half of it would measure
    something else.
    """
    known = _beside(files[0], ENTITIES)
    if known is None:
        reason = f"no {ENTITIES} in the folder or beside it, so its ids stand for nothing"
        yield from ((file, 0, Refusal(Code.FILE_MISSING, reason)) for file in files)
        return
    names: dict[int, str] = {}
    for line in entity_lines(known):
        if line.fault:
            yield known, line.number, line.fault
        else:
            names[line.id] = line.name
    for file in files:
        truth: list[str] = []
        if given := _beside(file, f"gt/{file.name}"):
            faults = _read_truth(given, names, truth)
            yield from ((given, number, fault) for number, fault in faults)
            if faults:
                truth = []
        yield from ((file, *one) for one in _queries(file, names, truth))


def _beside(file: Store, name: str) -> Store | None:
    """Return the file of that name in the folder of ``file``, or in the one above; None if there is none."""
    folder = PurePosixPath(file.path).parent
    places = [Store(file.fs, str(parent / name), file.is_local) for parent in (folder, folder.parent)]
    for place in places:
        if reason := dangling(place):
            raise FormatError(f"{place.uri}: {reason}")
    return next((place for place in places if place.size() >= 0), None)


def _text_lines(file: Store) -> Iterator[tuple[int, str, Refusal | None]]:
    """Yield number, text and fault of the lines that are not blank."""
    for line in lines(file):
        text, fault = decode(line)
        if fault or text.strip():
            yield line.number, text, fault


def _queries(file: Store, names: dict[int, str], truth: list[str]) -> Iterator[tuple[int, Any]]:
    label = file.name.removesuffix(SUFFIX)
    query = 0
    for number, text, fault in _text_lines(file):
        if text.strip() == END:
            return
        query_id, query = f"{label}-{query}", query + 1  # a refused query keeps its number
        words = text.split()
        fault = fault or next(filter(None, (_fault_of_id(word, names) for word in words)), None)
        if fault:
            yield number, fault.about(f"query {query_id!r}:")
        else:
            seeds = [names[int(word)] for word in words]
            yield number, {"id": query_id, "class": label, "positive": seeds, "pos_gt": truth}


def _fault_of_id(text: str, names: dict[int, str]) -> Refusal | None:
    entity = whole_number(text)
    if entity is None:
        return Refusal(Code.WRONG_TYPE, f"an id must be a whole number, not {text[:40]!r}")
    if entity not in names:
        return Refusal(Code.UNKNOWN_ENTITY, f"id {entity} is in no usable line of {ENTITIES}")
    return None


def _read_truth(file: Store, names: dict[int, str], truth: list[str]) -> list[tuple[int, Refusal]]:
    """Add the names of a class's entities to ``truth``, and return the lines that are wrong, with reasons."""
    ids = {name: number for number, name in names.items()}
    faults = []
    for number, text, fault in _text_lines(file):
        columns = [column.strip() for column in text.split("\t")]
        if not fault and (len(columns) != 3 or not _NUMBER.fullmatch(columns[2])):
            fault = Refusal(Code.WRONG_LAYOUT, "a line must be id TAB name TAB relevance")
        fault = fault or _fault_of_id(columns[0], names)
        # A name that entity2id.txt spells in another way is no fault; one that it gives to another is.
        if not fault and ids.get(name := clean_name(columns[1]), entity := int(columns[0])) != entity:
            reason = f"{name!r} has the id {ids[name]} in {ENTITIES}, not {entity}"
            fault = Refusal(Code.CONTRADICTING_ID, reason)
        if fault:
            faults.append((number, fault))
        elif float(columns[2]) > 0:
            truth.append(names[int(columns[0])])
    return faults
