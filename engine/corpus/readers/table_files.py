"""Find the files of tables of sentences and entities: by their names, or where the user points."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.corpus.readers.arrow_files import ARROW
from engine.corpus.readers.compression import ENDINGS
from engine.corpus.readers.row_files import Form, RowFile, endings_of, find_row_files, form_of, top_of
from engine.corpus.readers.rows import PARQUET
from engine.corpus.readers.source_files import Listing, list_source, refuse_left_out
from engine.errors import FormatError
from engine.storage.sources import source_store
from engine.storage.store import Store

TABLE_FORMS: tuple[Form, ...] = ("jsonl", "parquet", "arrow", "csv", "tsv")
"""Forms of tables; a text file has no columns."""


class TableFiles(NamedTuple):
    """Files of tables.

    Args:
        root: the folder from which paths of images go on.
        sentences, entities: files of the tables.
        unread: files of records beside them that are not read, by their path.
    """

    root: Store
    sentences: list[RowFile]
    entities: list[RowFile]
    unread: list[str]


def find_tables(
    address: str, form: Form | None = None, any_names: bool = False, entities: str = ""
) -> TableFiles:
    """Return the tables of an address.

    Args:
        address: a file or a pattern of names: tables of sentences. A folder: the tables in it, by their
            names; one whose own name is that of a table of sentences is one.
        form: of all files; None: of each by its ending, one of :data:`TABLE_FORMS`.
        any_names: a folder without such tables is itself one of sentences, as one of a Hugging Face data set
            always is.
        entities: address of the tables of entities, in any form; empty: they are found beside the sentences.

    Raises:
        FormatError: there are no sentences, they come in several forms, or a file that belongs to the tables
            would not be read.
        StorageError: nothing is there.
    """
    root, is_pattern = top_of(address)
    place = source_store(root if is_pattern else address)
    apart = find_row_files(entities).files if entities else None
    if is_pattern or place.size() >= 0:
        found = find_row_files(address, form)
        beside = _beside(place, form) if apart is None and not is_pattern else []
        sentences = [one for one in found.files if one.form in TABLE_FORMS]
        if not sentences:
            raise FormatError(f"{address}: {found.files[0].form} has no columns, and so names no entities")
        top = place if is_pattern else place.parent
        return TableFiles(top, sentences, apart or [], [*beside, *found.unread])
    tables = _in_folder(place, form, any_names, apart is not None)
    forms = sorted({one.form for one in tables.sentences})
    if len(forms) > 1:
        raise FormatError(f"{place.uri}: sentences as {' and as '.join(forms)}; name one with --format")
    return tables if apart is None else tables._replace(entities=apart)


def _in_folder(place: Store, form: Form | None, any_names: bool, alone: bool) -> TableFiles:
    """Return the tables in a folder; ``alone``: those of sentences."""
    forms = (form,) if form else TABLE_FORMS
    listing = list_source(place)
    sentences = listing.matching(_of_table("sentences", forms))
    entities = {} if alone else listing.matching(_of_table("entities", forms))
    stems = ["sentences"] if alone else ["sentences", "entities"]
    beside: list[str] = []
    any_names = any_names or listing.is_dataset
    if not sentences and (_is_itself_a_table(place, forms) or (any_names and not entities)):
        sentences, entities = listing.matching(lambda name: form_of(name) in forms), {}
        stems, beside = [""], [] if alone else _beside(place, form)
    left = refuse_left_out(listing, {*sentences, *entities}, stems, _expected(forms))
    if not sentences:
        raise FormatError(_no_sentences(listing, forms))
    found, tables = (
        [RowFile(file, name, form or _table_form(name)) for name, file in some.items()]
        for some in (sentences, entities)
    )
    return TableFiles(place, found, tables, [*beside, *left])


def _table_form(name: str) -> Form:
    form = form_of(name)
    assert form is not None  # of those that were looked for
    return form


def _of_table(table: str, forms: tuple[Form, ...]) -> Callable[[str], bool]:
    """Return whether a path is a file of a table: ``table*.ending``, or in a folder of the table."""

    def is_of(name: str) -> bool:
        form = form_of(name)
        if form not in forms:
            return False
        first, inside, _ = name.lower().partition("/")
        if inside:
            return first in (table, *(table + ending for ending in endings_of(form)))
        return first.startswith(table)

    return is_of


def _is_itself_a_table(place: Store, forms: tuple[Form, ...]) -> bool:
    name = place.name.lower()
    return not name.startswith("entities") and (name == "sentences" or form_of(name) in forms)


def _beside(table: Store, form: Form | None) -> list[str]:
    """Return the tables of entities beside a table that is read alone."""
    endings = [ending for one in ((form,) if form else TABLE_FORMS) for ending in endings_of(one)]
    names = [f"entities{ending}" for ending in ("", *endings)]
    return [f"../{name}" for name in names if (table.parent / name).exists()]


def _expected(forms: tuple[Form, ...]) -> str:
    kinds = [endings_of(form)[0] for form in forms]
    if len(kinds) > 1:
        return f"read are the files of sentences and entities that end in {', '.join(kinds)}"
    (suffix,) = kinds
    packed = f", also compressed ({', '.join(ENDINGS)})" if suffix not in (*PARQUET, *ARROW) else ""
    return (
        f"--format {forms[0]} reads sentences*{suffix}, sentences/*{suffix}, entities*{suffix} and "
        f"entities/*{suffix}{packed}"
    )


def _no_sentences(listing: Listing, forms: tuple[Form, ...]) -> str:
    suffixes = [endings_of(form)[0] for form in forms]
    looked_for = " and ".join(f"no sentences{suffix} and no sentences/*{suffix}" for suffix in suffixes)
    return (
        f"{listing.folder.uri}: {looked_for} here (found: {listing.shown()}); where files have other "
        "names, give --columns; see --help for the formats"
    )
