"""Open what is imported: a folder of a known layout, or tables wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.corpus.readers.base import CorpusReader
from engine.corpus.readers.compression import ENDINGS
from engine.corpus.readers.mesed import MesedReader
from engine.corpus.readers.row_files import top_of
from engine.corpus.readers.source_files import way_to_hub
from engine.corpus.readers.table_files import TABLE_FORMS, find_tables
from engine.corpus.readers.tables import TableReader
from engine.corpus.readers.ultrawiki import UltraWikiReader
from engine.errors import FormatError, StorageError
from engine.storage.sources import source_store
from engine.storage.store import Store

AUTO = "auto"


class Layout(NamedTuple):
    """A folder of fixed names.

    Args:
        reader: of it.
        signs: files of which one says that a folder is of this layout; none: it must be named.
    """

    reader: Callable[[Store], CorpusReader]
    signs: tuple[str, ...] = ()


LAYOUTS = {
    "ultrawiki": Layout(UltraWikiReader, ("ent2sents.json",)),
    "mesed": Layout(MesedReader, ("entity2id.txt", "sentences.json")),
}
"""A new layout is a reader (:class:`CorpusReader`) and a line here."""


def formats() -> tuple[str, ...]:
    """Return the names of all formats."""
    return (AUTO, *LAYOUTS, *TABLE_FORMS)


@dataclass(frozen=True)
class ImportSource:
    """What is imported.

    Args:
        address: a folder, a file, a pattern of names, or or an address (``s3://``, ``gs://``, …).
        format: one of :func:`formats`; "auto": what the names of the files say.
        columns: names of columns in tables by ours, where they are others.
        entities: address of the table of entities; empty: it is found beside the sentences.
    """

    address: str
    format: str = AUTO
    columns: Mapping[str, str] = field(default_factory=dict)
    entities: str = ""


def open_source(source: ImportSource) -> tuple[str, CorpusReader]:
    """Return the format of a source, and its reader.

    Raises:
        FormatError: no such format, or the files that it needs are not there.
        StorageError: nothing is there.
    """
    form, address = source.format, source.address
    if form not in formats():
        raise FormatError(f"--format {form}: no such format; known are {', '.join(formats())}")
    top, is_pattern = top_of(address)
    place = source_store(top)
    if not place.exists():
        raise StorageError(
            f"{place.uri}: nothing is there; --source takes a folder, a file, a pattern or an s3:// address"
            + way_to_hub(address)
        )
    of_tables = [name for name in ("columns", "entities") if getattr(source, name)]
    if form == AUTO and not is_pattern and not of_tables:
        form = next((name for name, layout in LAYOUTS.items() if _is_of(layout, place)), AUTO)
    if form in LAYOUTS:
        if of_tables:
            raise FormatError(f"--{of_tables[0]}: of tables alone, and --format {form} is none")
        return form, LAYOUTS[form].reader(place)
    wanted = next((one for one in TABLE_FORMS if one == form), None)
    tables = find_tables(address, wanted, bool(source.columns), source.entities)
    return tables.sentences[0].form, TableReader(tables, source.columns)


def _is_of(layout: Layout, place: Store) -> bool:
    return any((place / (sign + ending)).exists() for sign in layout.signs for ending in ("", *ENDINGS))
