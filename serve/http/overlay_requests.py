"""Describe what is sent to change an overlay, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from engine.queries.fields import WITHOUT_NUL, Conditions, Name, NoNul, Sentence, within
from engine.query import MAX_SENTENCES
from serve.http.requests import MAX_TEXT_LENGTH
from serve.http.responses import Shape

MAX_ALIASES = 100
MAX_ATTRIBUTES = 100

Description = Annotated[StrictStr, within(MAX_TEXT_LENGTH, least=0), NoNul]


class UpsertRequest(BaseModel):
    """An entity as it is from now on; what is left out, it has not."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "sentences": ["The king of Atlantia opened the parliament."],
                    "aliases": ["Kingdom of Atlantia"],
                    "description": "An island state.",
                    "attributes": {"continent": ["Asia"]},
                }
            ]
        },
    )

    sentences: list[Sentence] = Field(
        min_length=1,
        max_length=MAX_SENTENCES,
        description="that mention it by its name: its vectors are made of them",
    )
    aliases: list[Name] = Field(default=[], max_length=MAX_ALIASES)
    description: Description = ""
    attributes: Conditions = Field(
        default={},
        max_length=MAX_ATTRIBUTES,
        json_schema_extra={"propertyNames": {"minLength": 1, "maxLength": 512, "pattern": WITHOUT_NUL}},
    )


class Upserted(Shape):
    """An entity that was written."""

    bundle: str = Field(description="the bundle that the id is of")
    id: int
    name: str
    created: bool = Field(description="false: it took the place of one that was sent before")
    replaces: bool = Field(description="whether it stands for an entity of the bundle, which is hidden")
    overlay: int = Field(description="the version from which on answers know of it")
    waiting: int = Field(description="replicas that have not confirmed that they have this version")


class EntityDeleted(Shape):
    """An entity that was deleted."""

    bundle: str
    deleted: str
    overlay: int = Field(description="the version from which on answers are without it")
    waiting: int = Field(description="replicas that have not confirmed that they have this version")


class OverlayEntry(Shape):
    """An entity that was added or deleted since the bundle was made."""

    name: str
    kind: Literal["put", "delete"]
    content: dict[str, Any] = Field(description="as it was sent; empty for a deleted one")
    replaces: bool = Field(description="whether the bundle has one of this name")
    version: int
    by: str
    at: str


class OverlayCounts(Shape):
    """Entries of each kind."""

    added: int
    deleted: int


class Merged(Shape):
    """What was dropped from the overlay, since a bundle holds it."""

    bundle: str
    entities: int
    at: str


class OverlayListing(Shape):
    """What was added or deleted since the bundle was made, last changed first."""

    bundle: str
    overlay: int = Field(description="the version that this replica answers by")
    counts: OverlayCounts
    merged: Merged | None
    entries: list[OverlayEntry]
    more: bool
