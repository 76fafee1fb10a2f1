"""Read query tables whose columns have other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import FormatError
from engine.queries.records import FIELDS, OWN
from engine.repeated_keys import RepeatedKeys


class QueryColumns:
    """Names of columns of query tables, by ours, and what was met under them.

    Where columns are named, what else a table has is its owner's, and is not read.

    Args:
        theirs: the table's name of each of our fields that is called otherwise; empty: records stay as they
            are.

    Attributes:
        unread: names of columns that were met and not read.
    """

    def __init__(self, theirs: Mapping[str, str]) -> None:
        self._ours = {their: our for our, their in theirs.items()}
        self._missing = set(theirs.values())
        self.unread: set[str] = set()

    def take(self, record: Any) -> Any:
        """Return a record with our names; what is none, or will be refused, comes back as it is."""
        if not self._ours or not isinstance(record, dict) or isinstance(record, RepeatedKeys):
            return record
        self._missing -= record.keys()
        found = {}
        for name, value in record.items():
            our = self._ours.get(name, name)
            if name in self._ours or (name in FIELDS and name not in self._ours.values()):
                found[our] = value
            elif not name.startswith(OWN):
                self.unread.add(name)
        return found

    def check(self, source: str) -> None:
        """Check, after all records, that every column that was named is there.

        Raises:
            FormatError: no record has one; names those that there are.
        """
        if self._missing:
            there = ", ".join(sorted({*self.unread, *(self._ours.keys() - self._missing)}))
            raise FormatError(
                f"{source}: has no column {', '.join(sorted(self._missing))}, which --columns names; it has "
                f"{there or 'none of these'}"
            )


SAME_NAMES = QueryColumns({})
"""Of tables whose columns have our names."""
