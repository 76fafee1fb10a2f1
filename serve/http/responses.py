"""Describe the bodies of answers for the OpenAPI document. Answers themselves are plain objects.

A test holds real answers against these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from serve.settings import Right

Code = Literal[
    "invalid_request",
    "unknown_entity",
    "unknown_attribute",
    "query",
    "unknown_method",
    "other_bundle",
    "malformed_json",
    "too_large",
    "head_too_large",
    "host_not_allowed",
    "slow_request",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "overloaded",
    "unavailable",
    "bundle",
    "storage",
    "timeout",
    "chat",
    "chat_deadline",
    "chat_refusal",
    "unknown_set",
    "set_exists",
    "set_conflict",
    "set_change",
    "overlay_limit",
    "not_found",
    "not_available",
    "method_not_allowed",
    "internal",
]


class Shape(BaseModel):
    """An object without other keys."""

    model_config = ConfigDict(extra="forbid")


class Error(Shape):
    """An error. ``id`` stands with internal errors: the log has more under it."""

    code: Code
    message: str
    field: str | None = Field(description="dotted path into the request, such as positive.0")
    suggestions: list[str] = Field(description="spellings that would work in the field's place")
    id: str = Field(default="", description="of the request, in the log")


class ErrorAnswer(Shape):
    """The body of every answer that is an error."""

    error: Error


class NamedEntity(Shape):
    """An entity."""

    id: int
    name: str


class StageEvent(Shape):
    """A stage has passed: the seconds that it took, and how many candidates there are now."""

    stage: str
    seconds: float
    candidates: int


class RoundEvent(Shape):
    """A round of generation has passed: what it brought, and how many entities there are now."""

    stage: str
    number: int
    new: list[NamedEntity]
    total: int


class Near(Shape):
    """An entity, or a new seed (``id`` null), and its cosine."""

    id: int | None
    name: str
    similarity: float | None


class SentenceShape(Shape):
    """A sentence; characters ``start`` to ``end`` (exclusive) mention the entity."""

    text: str
    start: int
    end: int


class HeldTypes(Shape):
    """Which of the seeds' types an entity has: those that seeds share, and those that tell them apart."""

    shared: list[str]
    positive: list[str]
    negative: list[str]


class Explanation(Shape):
    """The explanation of an entity's place; a side without seeds that have a vector is null."""

    nearest_positive: Near | None
    nearest_negative: Near | None
    sentences: list[SentenceShape]
    images: list[str] = Field(description="paths on this host")
    types: HeldTypes | None = Field(description="null in a bundle without types")


class Result(Shape):
    """A ranked entity. What stands in ``evidence`` depends on the method's stages."""

    rank: int
    id: int
    name: str
    score: float | None
    evidence: dict[str, float | None]
    explanation: Explanation | SkipJsonSchema[None] = Field(default=None, description="if it was asked for")


class FacetShape(Shape):
    """A value of an attribute."""

    value: str
    count: int = Field(description="entities of the answer that have it")
    entities: int = Field(description="entities that have it of all that fulfil the query's filter")


class Answer(Shape):
    """An answered query."""

    id: str
    method: str
    bundle: str
    options: dict[str, bool | int | float | None] = Field(
        description="settings of stages that the query changed for itself"
    )
    results: list[Result] = Field(description="best first")
    seconds: dict[str, float] = Field(description="of computing, by stage")
    degraded: list[str] = Field(description="what was left out, and why; begins with the stage's name")
    reasoning: dict[str, str] = Field(
        description="what a chain of thought, or the seeds' types, said of the wanted entities: "
        "class_name, and what the positive and the negative seeds share; empty without these"
    )
    counts: dict[str, int] = Field(
        description="what the stages counted of the answer: of a chat model, names listed, made up, dropped"
    )
    facets: dict[str, list[FacetShape]] | SkipJsonSchema[None] = Field(
        default=None, description="by attribute, the values of most entities first, if they were asked for"
    )


class MapPoint(Shape):
    """An entity on a map. ``x`` and ``y`` are null where it has no vector in the view of the map."""

    id: int
    name: str
    side: Literal["positive", "negative", ""] = Field(description="the kind of seed that it is; empty: none")
    x: float | None
    y: float | None
    off: float | None = Field(description="distance to the plane of the map, in the same unit")
    explanation: Explanation | SkipJsonSchema[None] = Field(default=None, description="if it was asked for")


class EntityMap(Shape):
    """Entities on a plane, by the two directions in which their vectors differ most."""

    bundle: str
    points: list[MapPoint] = Field(description="seeds first; described ones have no place, and are left out")
    shown: float | None = Field(
        description="share of how the vectors differ (variance) that the plane shows; null: they do not"
    )
    seconds: float
    overlay: int | SkipJsonSchema[None] = Field(
        default=None,
        description="version of what was added or deleted since the bundle was made, if anything",
    )


class FailedQuery(Shape):
    """A query of a batch that could not be answered."""

    id: str | None
    error: Error


class BatchAnswer(Shape):
    """One entry a query, in order."""

    results: list[Answer | FailedQuery]


class TypeShape(Shape):
    """A type of a mention, and the model's probability that it holds."""

    type: str
    confidence: float


class TypedSpan(Shape):
    """A mention, characters ``start`` to ``end`` (exclusive) of the text, and its types, the surest first."""

    start: int
    end: int
    mention: str
    types: list[TypeShape]


class TypedText(Shape):
    """A text without its marks, and what its mentions are."""

    bundle: str
    text: str
    mentions: list[TypedSpan]
    seconds: float = Field(description="of computing, over all mentions")


class EntityShape(NamedEntity):
    """An entity and its other names."""

    aliases: list[str]


class ListedEntity(EntityShape):
    """An entity with what was asked for of it."""

    description: str | SkipJsonSchema[None] = Field(default=None, description="if it was asked for")
    attributes: dict[str, list[str]] | SkipJsonSchema[None] = Field(
        default=None, description="if they were asked for"
    )


class FoundEntity(ListedEntity):
    """An entity that was searched for."""

    matched: str = Field(description="the name or alias by which it was found")


class Entities(Shape):
    """Entities that a search found, best first, or a page of all."""

    bundle: str = Field(description="the bundle that the ids are of")
    entities: list[FoundEntity]
    more: bool = Field(description="whether there are more after these")


class LookedUpName(Shape):
    """A name that was looked up."""

    given: str
    entity: ListedEntity | None
    suggestions: list[FoundEntity] = Field(description="entities with names like it, if it is unknown")
    sought: bool = Field(
        description="whether suggestions were looked for: of the first 100 unknown names of a request, "
        "while there is time"
    )


class LookedUp(Shape):
    """Names that were looked up, in order."""

    bundle: str = Field(description="the bundle that the ids are of")
    results: list[LookedUpName]


class EntityDetails(EntityShape):
    """The facts that the bundle holds of an entity."""

    bundle: str = Field(description="the bundle that the ids are of")
    description: str
    attributes: dict[str, list[str]]
    sentences: list[SentenceShape]
    images: list[str] = Field(description="paths on this host")
    neighbours: list[Near] = Field(description="nearest first; empty where the bundle has no vectors")
    vectors: dict[str, list[float]] | SkipJsonSchema[None] = Field(
        default=None, description="unit vectors by view, if they were asked for and it has one"
    )


class ValueShape(Shape):
    """A value, and how many entities have it."""

    value: str
    entities: int


class AttributeShape(Shape):
    """An attribute's most frequent values."""

    name: str
    values: list[ValueShape]
    more: bool


class Attributes(Shape):
    """The attributes that a query may filter by."""

    attributes: list[AttributeShape]


class OptionShape(Shape):
    """A setting that a query may change for itself: its value in the method, and the bounds of a number."""

    value: bool | int | float | None
    minimum: float
    maximum: float


class MethodShape(Shape):
    """A method and its stages, in order."""

    name: str
    description: str
    stages: list[str]
    options: dict[str, OptionShape] = Field(description="what `options` of a query may change")


class UnavailableMethod(Shape):
    """A method that cannot be served: the bundle lacks a file, or the service is told of no chat model."""

    name: str
    reason: str


class Methods(Shape):
    """The methods served; ``default`` is the one of queries that name none."""

    default: str
    methods: list[MethodShape]
    unavailable: list[UnavailableMethod]


class Refused(Shape):
    """A newer bundle that could not be served."""

    id: str
    reason: str


class BundleShape(Shape):
    """The bundle that is served, and what it was made from."""

    id: str
    created: str
    parent: str | None
    settings: dict[str, Any]
    files: list[str]
    entities: int
    methods: list[str]
    refused: Refused | None


class Healthy(Shape):
    """The process answers."""

    status: Literal["ok"]
    bundle: str
    tokens: str | SkipJsonSchema[None] = Field(
        default=None, description="if the file of tokens cannot be used as it is now"
    )


class CallerShape(Shape):
    """Who asks."""

    name: str = Field(description="of the token; empty where the service wants none")
    rights: Right = Field(description="what it may do; each right includes those before it")


class Ready(Shape):
    """The readiness of every stage."""

    ready: bool
    stages: dict[str, str] = Field(description='"ok", or what is wrong; "bundle": with its files')
