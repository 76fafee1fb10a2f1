"""Check the bodies of requests for blind reviews of a set, and describe those of answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from serve.http.responses import Shape
from serve.http.set_requests import Curator, Given, Judged, SharedJudgements

MAX_ROUND = 1 << 31


class BeginReviewRequest(Given):
    """Who reviews a set."""

    by: Curator = Field(default="", description="who; where tokens are configured, the token's name counts")


class MarkReviewRequest(Given):
    """Marks of one's own review; `done` ends it."""

    round: Annotated[StrictInt, Field(ge=1, lt=MAX_ROUND)]
    accept: Judged = Field(default=[], description="names as the review gives them")
    reject: Judged = Field(default=[])
    clear: Judged = Field(default=[], description="those that shall have no mark")
    done: StrictBool = Field(default=False, description="nothing of the review changes after that")
    by: Curator = Field(default="", description="who; where tokens are configured, the token's name counts")


class ReviewedEntity(Shape):
    """An entity to judge, and what the curator said of it."""

    name: str
    accepted: bool | None


class Review(Shape):
    """A curator's review: the entities that the set had in `version`, in an order that tells nothing."""

    round: int
    version: int
    curator: str
    done: bool
    entities: list[ReviewedEntity]


class ReviewMarked(Shape):
    """How far a review is."""

    round: int
    judged: int
    entities: int
    done: bool


class Reviewer(Shape):
    """A curator who reviews: how many entities they judged, not how."""

    name: str
    since: str
    done: bool
    judged: int


class SplitReview(Shape):
    """An entity on which reviews do not agree."""

    name: str
    accepted_by: list[str]
    rejected_by: list[str]


class ReviewAgreement(Shape):
    """How far reviews agree with each other, and each with what the set said when they began."""

    shared: int = Field(description="entities that several curators judged")
    agreed: int = Field(description="of these, those of which all say the same")
    pairs: list[SharedJudgements]
    together: SharedJudgements | None = Field(description="of three or more who judged the same entities")
    with_set: list[SharedJudgements]
    disagreements: list[SplitReview]


class Reviews(Shape):
    """The last round of reviews of a set; `round` is 0 where there was none."""

    round: int
    version: int = Field(description="of the set whose entities are judged")
    entities: int
    reviewers: list[Reviewer]
    agreement: ReviewAgreement | None = Field(description="null until two or more are there and all are done")
