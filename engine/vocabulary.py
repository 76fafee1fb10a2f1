"""Look up entity ids, names and aliases: exactly, by a search, and for "did you mean"."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import UnknownEntityError
from engine.text.closest import ClosestTexts
from engine.text.name_search import NameSearch
from engine.text.spelling import look_key

MAX_NAME_LENGTH = 512
"""Characters of a name taken for a look-up: longer input is no entity, and fuzzy search costs by length."""

MAX_SPELT = 8 * MAX_NAME_LENGTH
"""Characters of a spelling whose signs are looked at: entities (``&amp;``) take several for one."""

ENTITY_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("aliases", pa.list_(pa.string())),
        pa.field("description", pa.string()),
        pa.field("attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
    ]
)
"""``corpus/entities.parquet``. Ids run from 0 without a gap, in file order."""

REMOVED = pa.field("removed", pa.bool_(), nullable=False)
"""A further column where entities have been removed: they keep their ids, and are no more found."""


def read_removed(path: Path) -> npt.NDArray[np.int32]:
    """Return the ids of the entities of ``entities.parquet`` that have been removed, ascending."""
    if REMOVED.name not in pq.read_schema(path).names:
        return np.zeros(0, np.int32)
    column = pq.read_table(path, columns=[REMOVED.name])[REMOVED.name].to_numpy(zero_copy_only=False)
    return np.flatnonzero(column).astype(np.int32)


class Found(NamedTuple):
    """An entity that was searched for, and the spelling, its name or an alias, by which it was found."""

    entity: int
    spelling: str


class Vocabulary:
    """The candidate entities. The id of an entity is its place in ``names``.

    Args:
        names: of all.
        aliases: of each; None: no entity has one.
        removed: ids of those that have been removed, which no name finds.
    """

    def __init__(
        self,
        names: Sequence[str],
        aliases: Sequence[Sequence[str]] | None = None,
        removed: Collection[int] = (),
    ) -> None:
        self.names, self.removed = list(names), frozenset(removed)
        self.aliases = [list(a) for a in aliases] if aliases is not None else [[] for _ in names]

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read ``entities.parquet`` (:data:`ENTITY_SCHEMA`)."""
        table = pq.read_table(path, columns=["name", "aliases"])
        aliases = [a or [] for a in table["aliases"].to_pylist()]
        return cls(table["name"].to_pylist(), aliases, read_removed(path).tolist())

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, passed: int = 0) -> Iterator[int]:
        """Return the ids of all entities that are there, ascending, after the first ``passed``."""
        if not self.removed:
            return iter(range(passed, len(self)))
        return islice((i for i in range(len(self)) if i not in self.removed), passed, None)

    def grew_from(self, other: Vocabulary) -> bool:
        """Return whether every id of the other one means the same entity here."""
        return self.names[: len(other)] == other.names

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Names, then aliases: a name always wins over another entity's alias."""
        found = {name: i for i, name in enumerate(self.names) if i not in self.removed}
        for i, aliases in enumerate(self.aliases):
            for alias in aliases:
                found.setdefault(alias, i)
        return found

    @cached_property
    def _folded(self) -> dict[str, int | None]:
        """Case-folded spellings; None where two entities share one, so that none is guessed."""
        found: dict[str, int | None] = {}
        for spelling, i in self._exact.items():
            key = spelling.casefold()
            found[key] = i if found.get(key, i) == i else None
        return found

    @cached_property
    def _keyed(self) -> dict[str, int | None]:
        """ClosestTexts with plain signs (:func:`look_key`), where that is not the case-folded spelling."""
        found: dict[str, int | None] = {}
        for spelling, i in self._exact.items():
            if (key := look_key(spelling)) != spelling.casefold():
                found[key] = i if found.get(key, i) == i else None
        return found

    @cached_property
    def _sorted(self) -> list[tuple[str, int]]:
        return sorted((look_key(spelling), i) for spelling, i in self._exact.items())

    @cached_property
    def _keys(self) -> list[str]:
        return [spelling for spelling, _ in self._sorted]

    @cached_property
    def _spellings(self) -> ClosestTexts:
        return ClosestTexts(self._keys)

    @cached_property
    def _search(self) -> NameSearch:
        return NameSearch(self._keys, self._spellings)

    def find(self, given: str | int) -> int | None:
        """Return the id of a name, an alias or an id; None if there is no such entity.

        A name is matched exactly first, then without regard to case, then with look-alike signs made plain
        and invisible ones passed over (:mod:`engine.text.spelling`); these if they name one entity only.
        """
        if isinstance(given, bool):
            return None
        if isinstance(given, int):
            return given if 0 <= given < len(self.names) and given not in self.removed else None
        exact = self._exact.get(given)
        if exact is not None:
            return exact
        folded = given.strip().casefold()
        if folded in self._folded:
            return self._folded[folded]
        if len(given) > MAX_SPELT:
            return None
        key = look_key(given)
        alike = [found[key] for found in (self._folded, self._keyed) if key in found]
        return alike[0] if len(set(alike)) == 1 else None

    def resolve(self, given: str | int, where: str = "") -> int:
        """Return the id of a name, an alias or an id.

        Raises:
            UnknownEntityError: no such entity; it names the closest ones.
        """
        found = self.find(given)
        if found is None:
            raise UnknownEntityError(given, self.closest(str(given)), where)
        return found

    def resolve_all(self, given: Sequence[str | int], where: str = "") -> tuple[int, ...]:
        """Return the ids of several names or ids (see :meth:`resolve`)."""
        return tuple(self.resolve(one, where) for one in given)

    def closest(self, text: str, n: int = 3) -> list[str]:
        """Return up to ``n`` names spelt most like ``text``."""
        ids = dict.fromkeys(entity for _, entity in self.near(text, 3 * n))
        return [self.names[i] for i in ids][:n]

    def near(self, text: str, n: int) -> list[tuple[str, int]]:
        """Return up to ``n`` spellings (:func:`look_key`) most like ``text``, each with its entity's id."""
        found = self._spellings.closest(look_key(text[:MAX_NAME_LENGTH]), n)
        return [self._sorted[place] for place in found]

    def prepare(self) -> None:
        """Make the tables of all look-ups now, not under the first one."""
        self.find("")
        self._spellings.prepare()
        self._search.prepare()

    def search(self, text: str) -> Iterator[Found]:
        """Yield the entities that a text finds (:mod:`engine.text.name_search`), best first, each once.

        Without a text: all entities, by name.
        """
        return (found for _, found in self.ranked(text))

    def ranked(self, text: str) -> Iterator[tuple[int, Found]]:
        """Yield what :meth:`search` does, each with the number of its kind of match, from 0."""
        ids: set[int] = set()
        for kind, place in self._search.ranked(look_key(text[:MAX_NAME_LENGTH])):
            key, entity = self._sorted[place]
            if entity not in ids:
                ids.add(entity)
                yield kind, Found(entity, self._spelling(entity, key))

    def _spelling(self, entity: int, key: str) -> str:
        """Return the name or alias of an entity that has a :func:`look_key`."""
        spellings = (self.names[entity], *self.aliases[entity])
        return next((s for s in spellings if look_key(s) == key), self.names[entity])

    def starting_with(self, prefix: str, n: int = 10) -> list[str]:
        """Return up to ``n`` names that have a spelling (case ignored) beginning with ``prefix``."""
        prefix = prefix[:MAX_NAME_LENGTH]
        key = look_key(prefix)
        key += " " if key and prefix[-1].isspace() else ""
        ids: dict[int, None] = {}
        for spelling, i in self._sorted[bisect_left(self._sorted, (key, -1)) :]:
            if not spelling.startswith(key) or len(ids) == n:
                break
            ids[i] = None
        return [self.names[i] for i in ids]
