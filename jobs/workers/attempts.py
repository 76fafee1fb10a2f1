"""Find the query that kills its worker: a note says what a worker has in hand, and outlives it.

A part that a process died with is made query by query the next time, each named in the note before it is in
hand. A query that was in hand at :data:`MAX_DEATHS` deaths is left out from then on, so that the others of
its part have their answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import BaseModel, ValidationError

from engine.storage.store import Store

MAX_DEATHS = 2
"""Deaths of its worker with a query alone in hand after which the query is left out. (It was among those in
hand at one more, and one of the two may have been another's fault.)"""

FOLDER = "_attempts"


class Note(BaseModel):
    """What is known of the attempts at a part: deaths, the query in hand, and deaths by query."""

    deaths: int = 0
    query: str | None = None
    by_query: dict[str, int] = {}


class Attempt:
    """One attempt at a part.

    Args:
        file: of its note.
    """

    def __init__(self, file: Store) -> None:
        self._file = file
        content = file.read_if_there()
        if content is None:
            self._note = Note()
        else:
            self._note = _died(content)
        self._write()

    @property
    def careful(self) -> bool:
        """Whether queries are to be taken one by one: a process died with the part before."""
        return self._note.deaths > 0

    def deaths_of(self, query: str) -> int:
        """Return at how many deaths a query was alone in hand."""
        return self._note.by_query.get(query, 0)

    def take(self, queries: Sequence[str]) -> None:
        """Note which queries are in hand now, if that is of use."""
        if self.careful:
            (self._note.query,) = queries
            self._write()

    def _write(self) -> None:
        self._file.write_bytes(self._note.model_dump_json().encode())


def _died(content: bytes) -> Note:
    """Return the note after one more death."""
    try:
        note = Note.model_validate_json(content)
    except ValidationError:  # it died while it wrote
        note = Note()
    if note.query is not None:
        note.by_query[note.query] = note.by_query.get(note.query, 0) + 1
    note.deaths, note.query = note.deaths + 1, None
    return note


@contextmanager
def attempt(output: Store, name: str) -> Iterator[Attempt]:
    """Yield an attempt at some work of an output; its note is left behind by a death alone.

    Args:
        output: folder of the parts.
        name: of the work, the same at each attempt.
    """
    file = output / FOLDER / f"{name}.json"
    one = Attempt(file)
    try:
        yield one
    finally:
        file.delete()


def died_at_work(output: Store) -> bool:
    """Return whether a process died with work in hand."""
    return bool((output / FOLDER).files())


def forget(output: Store) -> None:
    """Remove what is left of attempts."""
    for file in (output / FOLDER).files():
        file.delete()
