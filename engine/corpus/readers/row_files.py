"""Find files of rows wherever they lie, in whatever form: a file, a folder, or a pattern of names.

The form of a file follows from its ending, without that of a compressed one; columns may have other names
than ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.readers.arrow_files import ARROW, arrow_columns, read_arrow
from engine.corpus.readers.compression import is_compressed, without_ending
from engine.corpus.readers.delimited import CSV, TSV, header_of, read_csv, read_lines, read_tsv
from engine.corpus.readers.rows import (
    JSONL,
    PARQUET,
    BrokenFileError,
    Piece,
    Read,
    Row,
    Wanted,
    read_jsonl,
    read_parquet,
)
from engine.corpus.readers.source_files import list_source, partition_of, refuse_left_out, way_to_hub
from engine.corpus.readers.values import Values, from_cells
from engine.errors import FormatError, StorageError
from engine.refusals import Refusal
from engine.storage.sources import source_store
from engine.storage.store import Store

Form = Literal["jsonl", "parquet", "arrow", "csv", "tsv", "text"]
FORMS: tuple[Form, ...] = get_args(Form)

_ENDINGS: dict[Form, tuple[str, ...]] = {
    "jsonl": JSONL,
    "parquet": PARQUET,
    "arrow": ARROW,
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "text": (".txt", ".text"),
}
_READ: dict[Form, Read] = {
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "csv": read_csv,
    "tsv": read_tsv,
    "text": read_lines,
}
TEXT_COLUMN = "text"
"""What the lines of a text file are, where nobody says what else."""

PIECE_ROWS = 50_000
"""Rows of Parquet that one process reads at least, but for the last."""

PIECE_BYTES = 64 << 20
"""Bytes of a file of lines that one process reads."""

_WILD = re.compile(r"[*?\[]")
_READABLE = ", ".join(ending for endings in _ENDINGS.values() for ending in endings)


class RowFile(NamedTuple):
    """A file of rows.

    Args:
        file: where it lies.
        name: its path from where the user pointed.
        form: how it is read.
    """

    file: Store
    name: str
    form: Form

    def rows(self, columns: Mapping[str, str], piece: Piece | None = None) -> Iterator[Row]:
        """Yield the rows, by our names of the columns; of a broken file a last refusal, that of the file.

        Args:
            columns: their names in the file by ours, the required one first.
            piece: one of :meth:`pieces`; None: all.

        Raises:
            FormatError: the required column is missing.
        """
        wanted = Wanted((*columns.values(),), partition_of(self.name), piece)
        try:
            for values, position, text in _READ[self.form](self.file, wanted):
                if isinstance(values, Refusal):
                    yield values, position, text
                    continue
                row: Values = {our: values.get(their) for our, their in columns.items()}
                yield from_cells(row) if self.form in ("csv", "tsv") else row, position, text
        except BrokenFileError as error:
            yield error.refusal, error.position, ""

    def pieces(self) -> Iterator[tuple[Piece | None, int]]:
        """Yield pieces that can be read by different processes, with their bytes; None: the whole file.

        Row groups of Parquet, about :data:`PIECE_ROWS` rows together; of a file of lines that is not
        compressed :data:`PIECE_BYTES`. CSV has line breaks in its fields, and an Arrow stream no list of its
        batches: they are one piece.
        """
        size = self.file.size()
        if self.form == "parquet":
            yield from self._row_groups() or [(None, size)]
        elif self.form in ("jsonl", "text") and size > PIECE_BYTES and not is_compressed(self.file):
            for first in range(0, size, PIECE_BYTES):
                end = min(first + PIECE_BYTES, size)
                yield (first, end), end - first
        else:
            yield None, size

    def _row_groups(self) -> list[tuple[Piece | None, int]]:
        """Return neighbouring row groups; none where the file cannot be read, which :meth:`rows` says."""
        try:
            with self.file.open_input() as stream:
                about = pq.read_metadata(stream)
        except (pa.ArrowException, OSError):
            return []
        found: list[tuple[Piece | None, int]] = []
        first = rows = size = 0
        for group in range(about.num_row_groups):
            rows += about.row_group(group).num_rows
            size += about.row_group(group).total_byte_size
            if rows >= PIECE_ROWS or group == about.num_row_groups - 1:
                found.append(((first, group + 1), size))
                first, rows, size = group + 1, 0, 0
        return found

    @property
    def has_header(self) -> bool:
        """Whether the file says which columns it has."""
        return self.form in ("parquet", "arrow", "csv", "tsv")

    def columns(self) -> list[str] | None:
        """Return the columns that it has: of JSON lines those of the first record that can be read.

        None where the file cannot be read; :meth:`rows` says why.
        """
        try:
            return [*self._columns(), *partition_of(self.name)]
        except (BrokenFileError, pa.ArrowException, OSError, UnicodeDecodeError):
            return None

    def _columns(self) -> Iterable[str]:
        if self.form == "text":
            return [TEXT_COLUMN]
        if self.form == "parquet":
            with self.file.open_input() as stream:
                return list(pq.read_schema(stream).names)
        if self.form == "arrow":
            return arrow_columns(self.file)
        if self.form == "jsonl":
            rows = (values for values, *_ in read_jsonl(self.file, Wanted(("", ""))))
            return next((row for row in rows if not isinstance(row, Refusal)), {})
        return header_of(self.file, CSV if self.form == "csv" else TSV)


class RowFiles(NamedTuple):
    """Files of rows, and files of records beside them that are not read."""

    files: list[RowFile]
    unread: list[str]


def find_row_files(address: str, form: Form | None = None) -> RowFiles:
    """Return the files of an address: a file, all files of a folder, or those that a pattern names.

    Args:
        address: a local path or an address (``s3://``, ``gs://``, …); ``*``, ``?`` and ``[`` make a pattern,
            in which a ``*`` may stand for folders, too.
        form: of all of them; None: of each by its ending.

    Raises:
        StorageError: nothing is there.
        FormatError: no file of it, or not every one that holds records, can be read.
    """
    top, is_pattern = top_of(address)
    place = source_store(top)
    if not place.exists():
        raise StorageError(
            f"{place.uri}: nothing is there; give a file, a folder, a pattern or an s3:// address"
            + way_to_hub(address)
        )
    if not is_pattern and place.size() >= 0:
        return RowFiles([RowFile(place, place.name, form or _form_of(place.name, place.uri))], [])
    listing = list_source(place)
    pattern = address.removeprefix(top)
    wanted = listing.matching(lambda name: not is_pattern or fnmatch(name, pattern))
    read = {name: file for name, file in wanted.items() if form or form_of(name)}
    stems = [] if is_pattern else [""]
    unread = refuse_left_out(listing, read, stems, f"read are {_READABLE}, also compressed", texts=False)
    if is_pattern and (others := [name for name in wanted if name not in read]):
        raise FormatError(f"{address}: of {', '.join(others[:5])} the form is not known ({_READABLE})")
    if not read:
        raise FormatError(
            f"{address}: no file of it can be read (found: {listing.shown()}); read are {_READABLE}"
        )
    files = [RowFile(file, name, form or _form_of(name, "")) for name, file in read.items()]
    return RowFiles(files, [] if is_pattern else unread)


def top_of(address: str) -> tuple[str, bool]:
    """Return the folder above the first part of an address that is a pattern, and whether there is one."""
    found = _WILD.search(address)
    if found is None:
        return address, False
    return address[: address.rfind("/", 0, found.start()) + 1] or "./", True


def form_of(name: str) -> Form | None:
    """Return the form of a file by its ending; None if it is not known."""
    name = without_ending(name)
    return next((form for form, endings in _ENDINGS.items() if name.endswith(endings)), None)


def endings_of(form: Form) -> tuple[str, ...]:
    """Return the endings of a form's files."""
    return _ENDINGS[form]


def _form_of(name: str, uri: str) -> Form:
    form = form_of(name)
    if form is None:
        raise FormatError(f"{uri or name}: its ending says not how it is read ({_READABLE}); name the form")
    return form


def parse_columns(given: str, ours: Sequence[str], option: str) -> dict[str, str]:
    """Return the names of columns in a file by ours, of a text such as ``entity=title,sentence=text``.

    Raises:
        FormatError: it is not of that form, or names a column that we do not know.
    """
    found: dict[str, str] = {}
    for pair in filter(None, given.split(",")):
        our, equals, their = (piece.strip() for piece in pair.partition("="))
        if not (our and equals and their):
            raise FormatError(f"{option} {given}: write OURS=THEIRS,OURS=THEIRS")
        if our not in ours:
            raise FormatError(f"{option} {given}: there is no column {our}; known are {', '.join(ours)}")
        found[our] = their
    return found
