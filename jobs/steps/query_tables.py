"""Read the queries of a command, in a table whose columns may have names of their own."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, Field

from engine.catalogue.entities import Catalogue
from engine.corpus.readers.row_files import parse_columns
from engine.corpus.readers.source_files import shown
from engine.queries.columns import QueryColumns
from engine.queries.formats import QuerySet, read_queries
from engine.queries.records import FIELDS
from engine.storage.store import Store
from engine.vocabulary import Vocabulary
from jobs import console


class QueryTableSettings(BaseModel):
    """What commands that read queries have in common."""

    columns: str = Field(
        default="",
        description="Columns of the queries that have other names, as id=request,positive=wanted; what else "
        "the table has is then not read.",
    )


def query_columns(given: str) -> QueryColumns:
    """Return the names of columns that ``--columns`` gives.

    Raises:
        FormatError: it is not of that form, or names a field that no query has.
    """
    return QueryColumns(parse_columns(given, FIELDS, "--columns"))


def read_query_table(
    source: str, columns: str, vocabulary: Vocabulary, catalogue: Callable[[], Catalogue] | None = None
) -> QuerySet:
    """Read queries, and say which columns of them are not read.

    Args:
        source: file or folder.
        columns: of ``--columns``.
        vocabulary, catalogue: see :func:`engine.queries.formats.read_queries`, as for what is raised.
    """
    named = query_columns(columns)
    found = read_queries(Store.open(source), vocabulary, catalogue, named)
    say_unread(named)
    return found


def say_unread(columns: QueryColumns) -> None:
    """Say which columns of a table that was read were not."""
    if columns.unread:
        console.say(f"columns that are not read, as --columns names others: {shown(sorted(columns.unread))}")
