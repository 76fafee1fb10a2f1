"""Check the bodies of requests within their limits, and write those of answers."""

from __future__ import annotations

import difflib
import json
import math
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from engine.catalogue.entities import Facets
from engine.queries.fields import (
    WITHOUT_NUL,
    Conditions,
    DeadlineMs,
    Key,
    Name,
    NamedEntity,
    NoNul,
    Seed,
    ShownFields,
    within,
)
from engine.queries.filters import MAX_CONDITIONS
from engine.query import MAX_SEEDS, Expansion
from engine.repeated_keys import RepeatedKeys, json_records, repeated_key
from engine.vocabulary import MAX_NAME_LENGTH, Vocabulary
from serve.graph.plan import DEFAULT
from serve.http.errors import SHOWN, Problem, ProblemError, invalid, invalid_fields

MAX_ID_LENGTH = 128
MAX_TEXT_LENGTH = 20_000
MAX_OPTIONS = 32
MAX_LOOKED_UP = 1000
MAX_MAPPED = 400
"""Entities of a map besides its seeds: more are a cloud in which no name is read."""

M = TypeVar("M", bound=BaseModel)


Prefix = Annotated[StrictStr, within(MAX_NAME_LENGTH, least=0), NoNul]
Method = Annotated[StrictStr, within(100), NoNul]
Text = Annotated[StrictStr, within(MAX_TEXT_LENGTH), NoNul]
Id = Annotated[StrictStr, within(MAX_ID_LENGTH), NoNul]


def _plain_value(given: Any) -> Any:
    """Refuse what no setting is, in one complaint, not one a type."""
    if given is None or isinstance(given, bool | int | float):
        return given
    raise PydanticCustomError("option", "a setting is a number, true, false or null")


OptionValue = Annotated[bool | int | float | None, BeforeValidator(_plain_value)]


def _conditions(description: str) -> Any:
    """Return the optional field of attributes with their values."""
    names: dict[str, Any] = {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": WITHOUT_NUL}
    return Field(
        default={},
        max_length=MAX_CONDITIONS,
        json_schema_extra={"propertyNames": names},
        description=description,
    )


class ExpandRequest(ShownFields):
    """One query."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"positive": ["Japan", "Thailand"], "negative": ["Norway"], "top_k": 10}]
        },
    )

    positive: list[Seed] = Field(
        default=[],
        max_length=MAX_SEEDS,
        description="entities of the wanted set: names, ids, new ones, or with a weight",
    )
    negative: list[Seed] = Field(
        default=[], max_length=MAX_SEEDS, description="entities that show what is not wanted"
    )
    method: Method = Field(default=DEFAULT, description="see /v1/methods")
    top_k: StrictInt = Field(default=50, ge=1, description="entities wanted")
    class_name: Prefix = Field(
        default="", description="what the wanted entities are, for methods that are given it (…-given)"
    )
    positive_attributes: Conditions = _conditions(
        "what the positive seeds share: attributes with their values"
    )
    negative_attributes: Conditions = _conditions("what the negative seeds share")
    options: dict[Key, OptionValue] = Field(
        default={},
        max_length=MAX_OPTIONS,
        json_schema_extra={
            "propertyNames": {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": WITHOUT_NUL},
            "examples": [{"SegmentRerank.length": 8}],
        },
        description="settings of the method's stages for this query alone; /v1/methods names those that may "
        "be given, with their values and bounds",
    )
    explain: StrictBool = Field(
        default=False, description="with the nearest seeds, sentences and images of every entity"
    )
    deadline_ms: DeadlineMs | None = Field(default=None, description="when to answer with what there is")
    bundle: Id | None = Field(
        default=None, description="the bundle that ids are of; refused with 409 if another one is served"
    )
    id: Id = Field(default_factory=lambda: uuid.uuid4().hex, description="returned with the answer")


class MapRequest(BaseModel):
    """A map: seeds, and other entities that are laid out with them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"positive": ["Japan"], "negative": ["Norway"], "entities": ["Laos", "Sweden"]}]
        },
    )

    positive: list[Seed] = Field(default=[], max_length=MAX_SEEDS, description="as /v1/expand takes them")
    negative: list[Seed] = Field(default=[], max_length=MAX_SEEDS, description="likewise")
    entities: list[NamedEntity] = Field(
        default=[], max_length=MAX_MAPPED, description="others, such as those of an answer; by name or id"
    )
    explain: StrictBool = Field(
        default=False, description="with the nearest seeds, sentences and images of every entity"
    )
    deadline_ms: DeadlineMs | None = Field(default=None, description="when a map is of no use any more")
    bundle: Id | None = Field(default=None, description="as /v1/expand takes it")


class BatchRequest(BaseModel):
    """A batch of queries; each is checked on its own, so that a bad one does not refuse the others."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"queries": [{"positive": ["Japan"], "top_k": 3}, {"positive": ["Thailand"]}]}]
        },
    )

    queries: list[Any]


class LookupRequest(BaseModel):
    """Names to look up."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"names": ["Japan", "Thialand", "Burma"]}]}
    )

    names: list[Name] = Field(
        min_length=1, max_length=MAX_LOOKED_UP, description="names or aliases, each as it is written"
    )
    fields: list[Literal["description", "attributes"]] = Field(
        default=[], max_length=2, description="what each entity comes with"
    )


class Span(BaseModel):
    """Characters ``start`` to ``end`` (exclusive) of a text."""

    model_config = ConfigDict(extra="forbid")

    start: StrictInt = Field(ge=0, le=MAX_TEXT_LENGTH)
    end: StrictInt = Field(ge=1, le=MAX_TEXT_LENGTH)


class TypeRequest(BaseModel):
    """A text whose mentions are to be typed."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "We flew to [[Oslo]] at night."},
                {"text": "We flew to Oslo at night.", "mentions": [{"start": 11, "end": 15}]},
            ]
        },
    )

    text: Text = Field(
        description="one sentence is best; [[double brackets]] mark its mentions, unless `mentions` is given"
    )
    mentions: list[Span] | None = Field(
        default=None, min_length=1, description="places of the mentions, in characters (code points)"
    )
    deadline_ms: DeadlineMs | None = Field(default=None, description="when an answer is of no use any more")


def _not_json(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def decode(body: bytes) -> Any:
    """Return what a body holds.

    Raises:
        ProblemError: it is not JSON in UTF-8, is nested too deeply, or has a number of thousands of digits.
            (A key that is given twice is :func:`checked`'s business, query by query.)
    """
    try:
        return json_records(body.decode("utf-8"), parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProblemError(Problem("malformed_json", f"not JSON in UTF-8: {reason}", 400)) from None


def checked(model: type[M], given: Any) -> M:
    """Return a decoded body as its model.

    Raises:
        ProblemError: names the first field that is wrong.
    """
    if not isinstance(given, dict):
        raise invalid("a request must be a JSON object")
    of_one = given.repeated if isinstance(given, RepeatedKeys) else None
    # The queries of a batch are checked one by one, later.
    if (key := of_one if model is BatchRequest else repeated_key(given)) is not None:
        raise invalid(f"{key[:SHOWN]} is given a second time; of two equal keys leave one", key[:SHOWN])
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise ProblemError(invalid_fields(problems, _close_to(problems[0], model))) from None


def _close_to(problem: Any, model: type[BaseModel]) -> list[str]:
    """Return fields that a field which is none may have been meant for."""
    location = problem["loc"]
    if problem["type"] != "extra_forbidden" or len(location) > 1:
        return []
    given = str(location[0])[:MAX_ID_LENGTH].casefold()
    return difflib.get_close_matches(given, list(model.model_fields), n=1)


def answer_of(
    expansion: Expansion,
    vocabulary: Vocabulary,
    method: str,
    bundle: str,
    explanations: Mapping[int, dict[str, Any]] | None = None,
    facets: Facets | None = None,
    overlay: int = 0,
) -> dict[str, Any]:
    """Return the JSON object of an answered query; numbers that are none (NaN) become null.

    Args:
        explanations: by entity, if they were asked for.
        facets: likewise.
        overlay: version of the overlay; 0: there is none.
    """
    ranking = expansion.ranking
    columns = {name: numbers(column.tolist()) for name, column in ranking.evidence.items()}
    results: list[dict[str, Any]] = [
        {
            "rank": expansion.query.selection.offset + place + 1,
            "id": entity,
            "name": vocabulary.names[entity],
            "score": score,
            "evidence": {name: column[place] for name, column in columns.items()},
        }
        for place, (entity, score) in enumerate(
            zip(ranking.ids.tolist(), numbers(ranking.scores.tolist()), strict=True)
        )
    ]
    if explanations is not None:
        for result in results:
            result["explanation"] = explanations[result["id"]]
    return {
        "id": expansion.query.id,
        "method": method,
        "bundle": bundle,
        "options": dict(expansion.query.options),
        "results": results,
        "seconds": {name: round(s, 6) for name, s in expansion.seconds.items()},
        "degraded": list(expansion.degraded),
        "reasoning": dict(expansion.reasoning),
        "counts": dict(expansion.counts),
        **({} if facets is None else {"facets": facets}),
        **({"overlay": overlay} if overlay else {}),
    }


def entity_of(vocabulary: Vocabulary, entity: int) -> dict[str, Any]:
    """Return the JSON object of an entity."""
    return {
        "id": entity,
        "name": vocabulary.names[entity],
        "aliases": vocabulary.aliases[entity],
    }


def numbers(values: list[float]) -> list[float | None]:
    """Return JSON numbers rounded to float32's digits; None for NaN and infinities."""
    return [float(f"{value:.9g}") if math.isfinite(value) else None for value in values]


def encode(content: Any) -> bytes:
    """Return JSON in UTF-8; half a surrogate pair, which JSON may smuggle in, becomes ``?``."""
    return _ENCODER.encode(content).encode("utf-8", "replace")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def request_of(given: Any) -> ExpandRequest | Problem:
    """Return a query of a batch, or what is wrong with it."""
    try:
        return checked(ExpandRequest, given)
    except ProblemError as error:
        return error.problem


def id_of(given: Any) -> str | None:
    """Return the id that a query in a batch gave, if it did."""
    known = given.get("id") if isinstance(given, dict) else None
    return known if isinstance(known, str) else None
