"""Check one record of a file of queries: its fields, in either spelling, and their types."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
)

from engine.corpus.readers.values import is_missing, number_of, text_of
from engine.queries.fields import MAX_CONDITIONS, Conditions, NewSeed
from engine.query import Attributes
from engine.refusals import Code, Refusal
from engine.repeated_keys import repeated_key

_SHOWN_NAME = 40
"""Characters shown of a field's name."""

Entities = list[StrictStr | StrictInt]


def _seed(given: Any) -> Any:
    """Return the name of a seed that comes as an object with nothing else, as Parquet's all do."""
    return given["name"] if isinstance(given, dict) and given.keys() == {"name"} else given


def _kind(given: Any) -> str | None:
    """Return which form of a seed is given, so that one complaint is made, not one a form."""
    if isinstance(given, dict | NewSeed):
        return "<new>"
    return "<known>" if isinstance(given, str | int) else None


Seed = Annotated[
    Annotated[StrictStr | StrictInt, Tag("<known>")] | Annotated[NewSeed, Tag("<new>")],
    Discriminator(
        _kind,
        custom_error_type="seed",
        custom_error_message="a seed is a name, an entity id, or an object of name and sentences",
    ),
]
Seeds = list[Annotated[Seed, BeforeValidator(_seed)]]


def _conditions(given: Any) -> Any:
    """Return conditions with the values of each as a list; one value may be given as it is."""
    given = _of_pairs(given)
    if not isinstance(given, dict):
        return given
    return {name: [value] if isinstance(value, str) else value for name, value in given.items()}


def _attributes(given: Any) -> Attributes:
    """Return attributes with their values, each given as one text or as a list of them.

    They are for few methods, and a file may say what a query is about in another form: that is left out,
    and a method that wants attributes then says that there are none.
    """
    given = _of_pairs(given)
    if not isinstance(given, dict):
        return ()
    listed = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    if not all(isinstance(one, str) and one for values in listed.values() for one in values):
        return ()
    return tuple((name, tuple(dict.fromkeys(values))) for name, values in listed.items() if values)


GivenAttributes = Annotated[Attributes, BeforeValidator(_attributes)]


def _of_pairs(given: Any) -> Any:
    """Return a mapping, which Parquet's maps come as pairs of; anything else is returned unchanged.

    So are pairs with a key twice, to be refused: neither value is guessed.
    """
    if isinstance(given, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given):
        found = dict(given)
        return plain(found) if len(found) == len(given) else given
    return given


class QueryRecord(BaseModel):
    """A record as written: the UltraWiki spelling or ours."""

    model_config = ConfigDict(extra="forbid")

    id: StrictStr | StrictInt | None = Field(None, validation_alias=AliasChoices("id", "query_id"))
    group_id: StrictStr | StrictInt | None = None
    label: StrictStr | None = Field(None, validation_alias=AliasChoices("class", "label"))
    positive: Seeds = Field(validation_alias=AliasChoices("positive", "pos_seeds"))
    negative: Seeds = Field([], validation_alias=AliasChoices("negative", "neg_seeds"))
    top_k: StrictInt | None = None
    filter: Annotated[Conditions, BeforeValidator(_conditions), Field(max_length=MAX_CONDITIONS)] = {}
    options: Annotated[
        dict[str, StrictBool | StrictInt | StrictFloat | StrictStr | None], BeforeValidator(_of_pairs)
    ] = {}
    pos_gt: Entities = []
    neg_gt: Entities = []
    pos_attrs: GivenAttributes = Field((), validation_alias=AliasChoices("pos_attrs", "positive_attributes"))
    neg_attrs: GivenAttributes = Field((), validation_alias=AliasChoices("neg_attrs", "negative_attributes"))


SPELLINGS = (
    *(("id", "query_id"), ("class", "label"), ("positive", "pos_seeds"), ("negative", "neg_seeds")),
    *(("pos_attrs", "positive_attributes"), ("neg_attrs", "negative_attributes")),
)
"""Fields that have two spellings."""

FIELDS = (
    *(name for pair in SPELLINGS for name in pair),
    *("group_id", "top_k", "filter", "options", "pos_gt", "neg_gt"),
)

OWN = "_"
"""First character of fields that are the user's own: they are passed over."""

_OVER_HTTP = "is not taken in a file of queries; ask over HTTP"

ELSEWHERE = {
    "method": "is not taken in a file of queries: all of them are answered by the command's --method",
    **dict.fromkeys(("explain", "deadline_ms"), _OVER_HTTP),
}
"""Fields of other questions than a table asks, and what to do about them."""


def validated(raw: Any) -> QueryRecord | Refusal:
    """Return a record as it was written, checked, or why it cannot be used."""
    if (key := repeated_key(raw)) is not None:
        return Refusal(Code.CONFLICTING_FIELDS, f"{key} is given a second time; of two equal keys leave one")
    raw = plain(raw)
    if isinstance(raw, dict):
        if fault := _fault_of_fields(raw):
            return fault
        raw = {name: raw[name] for name in raw if name in FIELDS}
    try:
        return QueryRecord.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][:2])) or "record"
        return Refusal(Code.WRONG_TYPE, f"{place}: {first['msg']}")


def _fault_of_fields(given: dict[str, Any]) -> Refusal | None:
    """Return what is wrong with the fields of a record; none that asks for something is passed over."""
    for name, other in SPELLINGS:
        if name in given and other in given and given[name] != given[other]:
            reason = f"{name} and {other} are two spellings of one field; give one"
            return Refusal(Code.CONFLICTING_FIELDS, reason)
    for name, value in given.items():
        if name in FIELDS or name.startswith(OWN):
            continue
        if name not in ELSEWHERE:
            return Refusal(Code.UNKNOWN_FIELD, _no_field(name))
        if value not in (False, "", [], {}):
            return Refusal(Code.QUERY_INVALID, f"{name} {ELSEWHERE[name]}")
    return None


def _no_field(name: str) -> str:
    shown = name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…"
    close = difflib.get_close_matches(name[:_SHOWN_NAME].casefold().replace("-", "_"), FIELDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(FIELDS)}"
    return f"no field is called {shown!r}; {hint} (What is your own begins with {OWN}.)"


def plain(value: Any) -> Any:
    """Return a value without what is missing in it (null, NaN); 3.0 is 3, bytes are UTF-8."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if not is_missing(one)}
    if isinstance(value, list):
        return [plain(one) for one in value if not is_missing(one)]
    taken = text_of(value, "") if isinstance(value, bytes) else value
    number = number_of(value, "") if isinstance(value, float) else taken
    return value if isinstance(number, Refusal) else number
