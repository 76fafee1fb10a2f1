"""Describe the bodies of the reconciliation protocol (W3C Entity Reconciliation CG, version 0.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.json_schema import SkipJsonSchema

from engine.queries.filters import MAX_CONDITIONS
from serve.http.responses import Shape

MAX_CANDIDATES = 100
"""Candidates of one query at most."""

MAX_IDS = 1000
"""Entities whose attributes one request asks for."""

MAX_PROPERTIES = 64
"""Attributes that one request asks for."""

MAX_VALUES = 100
"""Values of one property that a query gives."""


class ValueById(BaseModel):
    """A value that is an entity; its name counts, or else its id."""

    id: StrictStr
    name: StrictStr = ""


Scalar = StrictStr | StrictBool | StrictInt | StrictFloat | ValueById


class PropertyValue(BaseModel):
    """A further column of the table: an attribute and what stands in its cell."""

    model_config = ConfigDict(extra="forbid")

    pid: StrictStr
    v: Scalar | Annotated[list[Scalar], Field(max_length=MAX_VALUES)]

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as texts."""
        given = self.v if isinstance(self.v, list) else [self.v]
        plain = ((one.name or one.id) if isinstance(one, ValueById) else one for one in given)
        return tuple(str(one).lower() if isinstance(one, bool) else str(one) for one in plain)


class ReconcileQuery(BaseModel):
    """One name of a column, with what else the table says of it."""

    model_config = ConfigDict(extra="forbid")

    query: StrictStr = ""
    type: StrictStr | Annotated[list[StrictStr], Field(max_length=MAX_CONDITIONS)] = ""
    type_strict: Literal["any", "should", "all"] = "any"
    limit: int = Field(default=10, ge=1, le=MAX_CANDIDATES)
    properties: list[PropertyValue] = Field(default=[], max_length=MAX_CONDITIONS)

    @property
    def types(self) -> list[str]:
        """The types wanted."""
        given = [self.type] if isinstance(self.type, str) else self.type
        return [one for one in given if one]


class WantedSettings(BaseModel):
    """The settings of one column that is to be added."""

    limit: int | None = Field(default=None, ge=1)


class WantedProperty(BaseModel):
    """An attribute that is to be added as a column."""

    id: StrictStr
    settings: WantedSettings = WantedSettings()


class ExtendQuery(BaseModel):
    """Entities whose attributes are wanted."""

    ids: list[StrictStr] = Field(max_length=MAX_IDS)
    properties: list[WantedProperty] = Field(max_length=MAX_PROPERTIES)


class Named(Shape):
    """A type or a property."""

    id: str
    name: str


class Feature(Shape):
    """A part of a candidate's score."""

    id: str
    value: bool | float


class Candidate(Named):
    """An entity that a name may mean. ``match``: it surely does."""

    description: str
    score: float = Field(description="0 to 100")
    match: bool
    features: list[Feature]
    type: list[Named]


class CandidateList(Shape):
    """The candidates of one query, best first."""

    result: list[Candidate]


class Suggestion(Named):
    """An entity, an attribute or a type that a text may be completed to."""

    description: str | SkipJsonSchema[None] = None


class Suggestions(Shape):
    """What a text may be completed to, best first."""

    result: list[Suggestion]


class ProposedProperties(Shape):
    """Attributes that may be added as columns."""

    properties: list[Named]
    type: str
    limit: int


class Flyout(Shape):
    """A few words of HTML about an entity."""

    id: str
    html: str


Cell = dict[str, str]


class Extension(Shape):
    """The values of attributes, by entity and attribute."""

    meta: list[Named]
    rows: dict[str, dict[str, list[Cell]]]


Batch = dict[str, CandidateList]
Manifest = dict[str, Any]
