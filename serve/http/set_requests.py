"""Check the bodies of requests for named sets, and describe those of answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from engine.queries.fields import EntityId, Name, NoNul, within
from engine.text.spelling import is_blank
from serve.http.requests import ExpandRequest, Id
from serve.http.responses import Shape
from serve.sets.store import MAX_EVENTS

MAX_SET_NAME = 200
MAX_NOTE = 2000
MAX_CURATOR = 100
MAX_JUDGED = 1000
"""Entities of one change."""


def _visible(name: str) -> str:
    """Refuse a name without a sign that is seen."""
    if is_blank(name):
        raise PydanticCustomError("blank", "holds no visible sign")
    return name


SetName = Annotated[StrictStr, within(MAX_SET_NAME), NoNul, AfterValidator(_visible)]
Note = Annotated[StrictStr, within(MAX_NOTE, least=0), NoNul]
Curator = Annotated[StrictStr, within(MAX_CURATOR, least=0), NoNul]
Version = Annotated[StrictInt, Field(ge=1, le=MAX_EVENTS)]
SetId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="as /v1/sets lists it")]
Judged = Annotated[list[Name], Field(max_length=MAX_JUDGED)]


class Given(BaseModel):
    """An object that a request holds."""

    model_config = ConfigDict(extra="forbid")


class Judge(Given):
    """Accept, reject, or take either back."""

    kind: Literal["judge"]
    accept: Judged = Field(default=[], description="names or aliases")
    reject: Judged = []
    clear: Judged = Field(default=[], description="those that shall be neither")


class Rename(Given):
    """Give the set another name."""

    kind: Literal["rename"]
    name: SetName


class Ask(Given):
    """Keep the question that the set is worked on with."""

    kind: Literal["ask"]
    question: ExpandRequest | None


class Undo(Given):
    """Cancel an event, also an undo."""

    kind: Literal["undo"]
    undo: Version = Field(description="version of the event; a set names the next as `undo` and `redo`")


class CreateSetRequest(Given):
    """A new set."""

    name: SetName
    question: ExpandRequest | None = Field(default=None, description="as /v1/expand takes it")
    note: Note = ""
    by: Curator = Field(default="", description="who; where tokens are configured, the token's name counts")


class ChangeSetRequest(Given):
    """A change of a set: one event."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"version": 1, "change": {"kind": "judge", "accept": ["Japan"]}}]},
    )

    version: Version = Field(description="of the set that the change was made of; 409 if it is older")
    change: Annotated[Judge | Rename | Ask | Undo, Field(discriminator="kind")]
    note: Note = Field(default="", description="why")
    by: Curator = Field(default="", description="who; where tokens are configured, the token's name counts")
    id: Id | None = Field(default=None, description="an event with an id that was written is not again")


class JudgedEntity(Given):
    """An entity in an event: its name, and its id in the event's bundle, if that holds it."""

    name: Name
    id: EntityId | None


class Created(Given):
    """The first event."""

    kind: Literal["create"]
    name: SetName
    question: ExpandRequest | None


class WrittenJudge(Given):
    """A judgement as it was written."""

    kind: Literal["judge"]
    accept: list[JudgedEntity] = Field(max_length=MAX_JUDGED)
    reject: list[JudgedEntity] = Field(max_length=MAX_JUDGED)
    clear: list[Name] = Field(max_length=2 * MAX_JUDGED)
    bundle: Id


class WrittenEvent(Given):
    """An event as a history and an export hold it."""

    version: Version
    at: Annotated[StrictStr, Field(pattern=r"^\d{4}-\d\d-\d\dT[0-9:.]{5,20}(Z|[+-]\d\d:\d\d)$")]
    by: Curator
    note: Note
    change: Annotated[Created | WrittenJudge | Rename | Ask | Undo, Field(discriminator="kind")]


class ImportSetRequest(Given):
    """What an export holds. Its events make the set; what they make must be what the rest says."""

    format: Literal[1]
    name: SetName
    question: Any = None
    accepted: list[Any] = []
    rejected: list[Any] = []
    events: list[WrittenEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class SetCounts(Shape):
    """Entities of a set."""

    accepted: int
    rejected: int


class SetSummary(Shape):
    """A set without its entities. `undo` and `redo`: versions of the events that these would cancel."""

    id: str
    name: str
    version: int
    counts: SetCounts
    created_at: str
    created_by: str
    changed_at: str
    changed_by: str
    undo: int | None
    redo: int | None


class SetChanged(SetSummary):
    """A set after a change: `written` is the version of its event."""

    written: int


class SetList(Shape):
    """Sets, last changed first."""

    sets: list[SetSummary]
    more: bool


class SetMember(Shape):
    """A judged entity: `id` is of the bundle that is served, null where that does not hold it any more."""

    name: str
    id: int | None
    saved_id: int | None = Field(description="its id when it was judged, in `saved_bundle`")
    saved_bundle: str
    by: str
    at: str
    note: str
    version: int = Field(description="of the event that says so")


class WholeSet(SetSummary):
    """A set."""

    bundle: str
    question: dict[str, Any] | None
    accepted: list[SetMember]
    rejected: list[SetMember]


class SetEvent(WrittenEvent):
    """An event of a history."""

    undone: bool


class SetEvents(Shape):
    """Events, oldest first, and the version of the set."""

    version: int
    events: list[SetEvent]
    more: bool


class SetExport(Shape):
    """A set with all its events, for POST /v1/sets/import."""

    format: int
    name: str
    question: dict[str, Any] | None
    accepted: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    events: list[WrittenEvent]


class CuratorShape(Shape):
    """A curator: how many entities they judged, and how many of these somebody else did, too."""

    name: str
    judged: int
    shared: int


class SharedJudgements(Shape):
    """The agreement of some curators on what all of them judged: Cohen's kappa of two, Fleiss' of more."""

    curators: list[str]
    judged: int
    agreed: int
    kappa: float = Field(description="1: they agree in all; 0: no more than chance brings")


class OneJudgement(Shape):
    """What a curator said last of an entity."""

    by: str
    accepted: bool
    at: str
    note: str
    version: int = Field(description="of the event that says so")


class Disagreement(Shape):
    """An entity that some accept and others reject; `stands` is what it is in the set, "" neither."""

    name: str
    id: int | None
    stands: Literal["accepted", "rejected", ""]
    judgements: list[OneJudgement] = Field(description="oldest first")


class SetAgreement(Shape):
    """How far the curators of a set agree, by the last judgement of each; what was undone does not count."""

    bundle: str
    version: int
    curators: list[CuratorShape]
    unnamed: int = Field(description="judgements without a curator's name, which are left out")
    shared: int = Field(description="entities that several curators judged")
    agreed: int = Field(description="of these, those of which all say the same")
    pairs: list[SharedJudgements] = Field(description="of the 12 curators who share most at most")
    together: SharedJudgements | None = Field(description="of three or more who judged the same entities")
    disagreements: list[Disagreement] = Field(description="last judged first")
    to_judge: list[str] = Field(description="entities of the set that `curator` did not judge")
    left_to_judge: int = Field(description="how many these are in all")


class SetDeleted(Shape):
    """The set is gone."""

    deleted: str
