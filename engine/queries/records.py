"""Check one record of a file of queries: its fields, in either spelling, and their types."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from engine.corpus.readers.values import is_missing, number_of, text_of
from engine.queries.fields import SHOWN_FIELDS, DeadlineMs, Seed, ShownFields
from engine.queries.filters import Filter
from engine.query import Attributes
from engine.refusals import Code, Refusal
from engine.repeated_keys import repeated_key

_SHOWN_NAME = 40
"""Characters shown of a field's name."""

Entities = list[StrictStr | StrictInt]


def _seed(given: Any) -> Any:
    """Return the name of a seed that comes as an object with nothing else, as Parquet's all do."""
    return given["name"] if isinstance(given, dict) and given.keys() == {"name"} else given


Seeds = list[Annotated[Seed, BeforeValidator(_seed)]]


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


class QueryRecord(ShownFields, BaseModel):
    """A record as written: the UltraWiki spelling or ours."""

    id: StrictStr | StrictInt | None = Field(None, validation_alias=AliasChoices("id", "query_id"))
    group_id: StrictStr | StrictInt | None = None
    label: StrictStr | None = Field(None, validation_alias=AliasChoices("class", "label", "class_name"))
    positive: Seeds = Field([], validation_alias=AliasChoices("positive", "pos_seeds"))
    negative: Seeds = Field([], validation_alias=AliasChoices("negative", "neg_seeds"))
    method: StrictStr | None = None
    top_k: StrictInt | None = None
    filter: Annotated[Filter, BeforeValidator(_of_pairs)] = ()
    options: Annotated[
        dict[str, StrictBool | StrictInt | StrictFloat | StrictStr | None], BeforeValidator(_of_pairs)
    ] = {}
    explain: StrictBool = False
    deadline_ms: DeadlineMs | None = None
    bundle: StrictStr | None = None
    pos_gt: Entities = []
    neg_gt: Entities = []
    pos_attrs: GivenAttributes = Field((), validation_alias=AliasChoices("pos_attrs", "positive_attributes"))
    neg_attrs: GivenAttributes = Field((), validation_alias=AliasChoices("neg_attrs", "negative_attributes"))


SPELLINGS = (
    *(("id", "query_id"), ("class", "label", "class_name")),
    *(("positive", "pos_seeds"), ("negative", "neg_seeds")),
    *(("pos_attrs", "positive_attributes"), ("neg_attrs", "negative_attributes")),
)
"""Fields that have several spellings."""

ASKED = ("method", "explain", "deadline_ms", "bundle", *SHOWN_FIELDS)
"""Fields that say how to answer, as in a request: for those who expand."""

FIELDS = (
    *(name for spellings in SPELLINGS for name in spellings),
    *("group_id", "top_k", "options", *ASKED, "pos_gt", "neg_gt"),
)

OWN = "_"
"""First character of fields that are the user's own: they are passed over."""


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
        place = ".".join(str(part) for part in first["loc"][:8] if not str(part).startswith("<")) or "record"
        return Refusal(Code.WRONG_TYPE, f"{place}: {first['msg']}")


def _fault_of_fields(given: dict[str, Any]) -> Refusal | None:
    """Return what is wrong with the fields of a record; none that asks for something is passed over."""
    for spellings in SPELLINGS:
        name, *others = [one for one in spellings if one in given] or [""]
        if other := next((one for one in others if given[one] != given[name]), None):
            reason = f"{name} and {other} are two spellings of one field; give one"
            return Refusal(Code.CONFLICTING_FIELDS, reason)
    unknown = (name for name in given if name not in FIELDS and not name.startswith(OWN))
    if (first := next(unknown, None)) is not None:
        return Refusal(Code.UNKNOWN_FIELD, _no_field(first))
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
