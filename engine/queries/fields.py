"""Check what a query holds, in a request as in a row of a table: names, conditions, entities that are new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from engine.errors import QueryError
from engine.queries.filters import MAX_VALUES, Filter
from engine.query import (
    MAX_EXCLUDED,
    MAX_FACETS,
    MAX_PAIRS,
    MAX_SENTENCES,
    MAX_TOP_K,
    MAX_WEIGHT,
    NewEntity,
    Pairs,
    Scores,
    Selection,
)
from engine.text.spelling import clean_name, look_key, nfc
from engine.vocabulary import MAX_NAME_LENGTH, Vocabulary

MAX_SENTENCE_LENGTH = 2000
MAX_DEADLINE_MS = 3_600_000
MAX_SCORE = 1e30
"""Bound of a score that is asked for, within float32."""

MAX_VIEWS, MAX_DIMENSIONS, MAX_COMPONENT = 16, 8192, 1e6
"""Bounds of a seed that is given as vectors: its views, their numbers, and the size of these."""

WITHOUT_NUL = "^[^\\u0000]*$"


def _no_nul(text: str) -> str:
    """Refuse what no name holds. (Half a surrogate pair is refused by pydantic itself.)"""
    if "\0" in text:
        raise PydanticCustomError("text", "holds a NUL character")
    return text


def within(limit: int, least: int = 1) -> Any:
    """Return the field of a text of ``least`` to ``limit`` characters."""
    return Field(min_length=least, max_length=limit, json_schema_extra={"pattern": WITHOUT_NUL})


NoNul = AfterValidator(_no_nul)

Name = Annotated[StrictStr, within(MAX_NAME_LENGTH), NoNul]
Sentence = Annotated[StrictStr, within(MAX_SENTENCE_LENGTH), NoNul]
Key = Annotated[StrictStr, Field(min_length=1, max_length=MAX_NAME_LENGTH), NoNul]
"""A name where it is a key: pydantic would make other keys of it, not refused ones, if it had a pattern."""

Conditions = dict[Key, Annotated[list[Name], Field(min_length=1, max_length=MAX_VALUES)]]
"""Attributes with values of each."""


EntityId = Annotated[StrictInt, Field(ge=0, lt=1 << 31)]

Weight = Annotated[
    float,
    Field(
        strict=True,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="how much it counts beside other seeds of its kind; 0: as if it was not given",
    ),
]


Vector = Annotated[
    list[Annotated[float, Field(ge=-MAX_COMPONENT, le=MAX_COMPONENT, allow_inf_nan=False)]],
    Field(min_length=1, max_length=MAX_DIMENSIONS),
]


class NewSeed(BaseModel):
    """An entity that the vocabulary does not hold: its name, and sentences that mention it."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    sentences: list[Sentence] = Field(min_length=1, max_length=MAX_SENTENCES)
    weight: Weight = 1


class VectorSeed(BaseModel):
    """A point in views: a vector for each view, and perhaps a name by which answers call it."""

    model_config = ConfigDict(extra="forbid")

    vector: dict[Key, Vector] = Field(min_length=1, max_length=MAX_VIEWS)
    name: Name | None = None
    weight: Weight = 1


class WeightedSeed(BaseModel):
    """An entity of the vocabulary, by its name or its id, with its weight."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    id: EntityId | None = None
    weight: Weight

    @model_validator(mode="after")
    def _is_one(self) -> WeightedSeed:
        if (self.name is None) == (self.id is None):
            raise PydanticCustomError("seed", "give a name or an id")
        return self

    @property
    def entity(self) -> str | int:
        """The name or the id."""
        return self.name if self.name is not None else self.id or 0


def _kind(given: Any) -> str | None:
    """Return which form of a seed is given, so that one complaint is made, not one a form."""
    if isinstance(given, str):
        return "<name>"
    if isinstance(given, WeightedSeed):
        return "<weighted>"
    if isinstance(given, VectorSeed) or (isinstance(given, dict) and "vector" in given):
        return "<vector>"
    if isinstance(given, dict | NewSeed):
        weighted = isinstance(given, dict) and "sentences" not in given and {"weight", "id"} & given.keys()
        return "<weighted>" if weighted else "<new>"
    return "<id>" if isinstance(given, int) else None


Seed = Annotated[
    Annotated[Name, Tag("<name>")]
    | Annotated[EntityId, Tag("<id>")]
    | Annotated[NewSeed, Tag("<new>")]
    | Annotated[VectorSeed, Tag("<vector>")]
    | Annotated[WeightedSeed, Tag("<weighted>")],
    Discriminator(
        _kind,
        custom_error_type="seed",
        custom_error_message="a seed is a name, an entity id, or an object of name and sentences, of "
        "vector, or of name (or id) and weight",
    ),
]
"""A name or alias, an entity id, a new entity, a point in views, or an entity with its weight."""

NotHeld = NewSeed | VectorSeed
"""Seeds that the vocabulary does not hold."""


def weighed(seed: str | int | NotHeld | WeightedSeed) -> tuple[str | int | NotHeld, float]:
    """Return what a seed names, and its weight."""
    if isinstance(seed, WeightedSeed):
        return seed.entity, seed.weight
    return seed, seed.weight if isinstance(seed, NotHeld) else 1.0


class SeedSides:
    """The seeds of a query on both sides, as they are resolved one by one; those that weigh 0 are left out.

    Args:
        resolve: returns the id of a seed, given its field, such as ``positive.0``; may raise. A name that
            weighs 0 is to be known, too.
    """

    def __init__(self, resolve: Callable[[str | int | NotHeld, str], int]) -> None:
        self._resolve = resolve
        self.weights: dict[int, float] = {}

    def take(self, side: str, seeds: Sequence[str | int | NotHeld | WeightedSeed]) -> tuple[int, ...]:
        """Return the ids of the seeds of a side (QueryError: one has two weights)."""
        found = []
        for place, given in enumerate(seeds):
            seed, weight = weighed(given)
            if weight == 0 and isinstance(seed, NotHeld):
                continue
            entity = self._resolve(seed, f"{side}.{place}")
            if weight == 0:
                continue
            if self.weights.setdefault(entity, weight) != weight:
                raise QueryError(f"{side}.{place}: the seed is given a second time with another weight")
            found.append(entity)
        return tuple(found)

    def pairs(self, given: Sequence[Pair]) -> Pairs:
        """Return the ids of context pairs (QueryError: one has an entity on both sides)."""
        found = []
        for place, pair in enumerate(given):
            where = f"context.{place}"
            this, that = (
                self._resolve(one, f"{where}.{side}")
                for side, one in (("positive", pair.positive), ("negative", pair.negative))
            )
            if this == that:
                raise QueryError(f"{where}: {pair.positive!r} and {pair.negative!r} are one entity")
            found.append((this, that))
        return tuple(dict.fromkeys(found))

    @property
    def unlike_one(self) -> tuple[tuple[int, float], ...]:
        """The weights that are not 1, by seed."""
        return tuple((seed, weight) for seed, weight in self.weights.items() if weight != 1)


NamedEntity = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated[EntityId, Tag("<id>")],
    Discriminator(
        _kind, custom_error_type="entity", custom_error_message="an entity is a name or an entity id"
    ),
]
"""A name or alias, or an entity id."""

DeadlineMs = Annotated[StrictInt, Field(ge=1, le=MAX_DEADLINE_MS)]
"""Milliseconds after which what there is is wanted."""


Score = Annotated[float, Field(strict=True, ge=-MAX_SCORE, le=MAX_SCORE, allow_inf_nan=False)]


class Pair(BaseModel):
    """What is wanted is rather like ``positive`` than like ``negative``."""

    model_config = ConfigDict(extra="forbid")

    positive: NamedEntity
    negative: NamedEntity


def _facets_kind(given: Any) -> str | None:
    """Return which form of facets is given, so that one complaint is made."""
    return "<all>" if isinstance(given, bool) else "<names>" if isinstance(given, list | tuple) else None


Facets = Annotated[
    Annotated[StrictBool, Tag("<all>")] | Annotated[list[Name], Field(max_length=MAX_FACETS), Tag("<names>")],
    Discriminator(
        _facets_kind,
        custom_error_type="facets",
        custom_error_message="facets are a list of attributes, or true for all of them",
    ),
]
"""Attributes whose values are counted; true: all."""


class ShownFields(BaseModel):
    """What is ranked and shown: fields of requests, of rows of tables, and of the Python API alike."""

    model_config = ConfigDict(extra="forbid")

    filter: Filter = Field(
        default=(),
        json_schema_extra={"default": {}},
        description="only entities that fulfil it are ranked: values, ranges and beginnings of attributes "
        "(see /v1/attributes), and filters within filters",
    )
    exclude: list[NamedEntity] = Field(
        default=[], max_length=MAX_EXCLUDED, description="entities that are never in the answer, no seeds"
    )
    min_score: Score | None = Field(default=None, description="the least score that is shown")
    offset: StrictInt = Field(
        default=0, ge=0, lt=MAX_TOP_K, description="best entities that are passed over, before those wanted"
    )

    group_by: Name | None = Field(
        default=None, description="an attribute, of each value of which few entities are shown"
    )
    per_group: StrictInt = Field(default=1, ge=1, le=MAX_TOP_K, description="how many, with group_by")
    diversity: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0,
        description="how much it counts that an entity is unlike those before it (MMR)",
    )
    context: list[Pair] = Field(
        default=[],
        max_length=MAX_PAIRS,
        description="pairs: rather like the positive than like the negative one, for methods that know them",
    )
    facets: Facets = Field(
        default=False,
        description="attributes whose values among the entities shown are counted; true: all attributes",
    )

    @model_validator(mode="after")
    def _groups_by_something(self) -> Self:
        if self.per_group != 1 and self.group_by is None:
            raise PydanticCustomError("per_group", "per_group is of the groups of group_by; give that too")
        return self

    @property
    def selection(self) -> Selection:
        """What of the ranking is shown."""
        group_by = self.group_by or ""
        facets = self.facets if self.facets is True else tuple(dict.fromkeys(self.facets or ()))
        return Selection(self.offset, self.min_score, group_by, self.per_group, self.diversity, facets)


SHOWN_FIELDS = tuple(ShownFields.model_fields)


class NewSeedError(QueryError):
    """A new entity that cannot be one; with the name that it has in the vocabulary, if it is there."""

    def __init__(self, message: str, suggestions: list[str]) -> None:
        super().__init__(message)
        self.suggestions = suggestions

    def __reduce__(self) -> tuple[type[NewSeedError], tuple[str, list[str]]]:
        return NewSeedError, (str(self), self.suggestions)


class NewSeeds:
    """The new entities of one query; their ids are -1, -2, … in the order in which they are met.

    Args:
        vocabulary: that does not hold them.
        where: what stands before the field in what is said of a mistake.
    """

    def __init__(self, vocabulary: Vocabulary, where: str = "") -> None:
        self._vocabulary, self._where = vocabulary, where
        self._new: dict[str, NewEntity] = {}

    @property
    def entities(self) -> tuple[NewEntity, ...]:
        """Those that were met, in order."""
        return tuple(self._new.values())

    def take(self, seed: NotHeld, field: str) -> int:
        """Return the id of a new entity.

        Args:
            seed: as it is given.
            field: where, for what is said of a mistake; it is also the name of a vector without one.

        Raises:
            NewSeedError: the vocabulary has it, it has no visible name, or it was met before; a vector of
                zeros.
        """
        place = f"{self._where}{field}"
        if isinstance(seed, VectorSeed):
            vectors = {view: _unit(vector, f"{place}.vector.{view}") for view, vector in seed.vector.items()}
            entity = NewEntity(clean_name(seed.name or "") or field, (), vectors)
            self._new[f"{field}\0"] = entity  # no name: others may have the same
            return -len(self._new)
        known = self._vocabulary.find(seed.name)
        if known is not None:
            name = self._vocabulary.names[known]
            message = f"{place}: {seed.name!r} is in the vocabulary as {name!r}; give it as a name"
            raise NewSeedError(message, [name])
        name = clean_name(seed.name)
        if not name:
            raise NewSeedError(f"{place}: the new entity {seed.name!r} has no visible sign in its name", [])
        key = look_key(name)
        if key in self._new:
            raise NewSeedError(f"{place}: the new entity {seed.name!r} is given twice", [])
        self._new[key] = NewEntity(name, tuple(map(nfc, seed.sentences)))
        return -len(self._new)

    def take_encoded(self, entity: NewEntity) -> int:
        """Return the id of a new entity that was encoded before; the same where it was met before."""
        key = look_key(entity.name)
        if key not in self._new:
            self._new[key] = entity
        return -1 - list(self._new).index(key)


def _unit(vector: Sequence[float], where: str) -> Scores:
    """Return a vector scaled to length 1 (NewSeedError: it has none)."""
    values = np.array(vector, np.float64)
    if not (largest := np.abs(values).max()):
        raise NewSeedError(f"{where}: all numbers are 0: that is no direction", [])
    values /= largest  # the square of a small number may be 0
    return np.asarray(values / np.linalg.norm(values), np.float32)
