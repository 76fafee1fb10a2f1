"""Read a dump of Wikidata, or of another Wikibase: JSON, an entity a line, the lines perhaps a list.

::

    [
    {"type":"item","id":"Q1","labels":{"en":{"language":"en","value":"…"}},"descriptions":{…},"aliases":{…},
     "claims":{"P31":[{"rank":"normal","mainsnak":{"snaktype":"value","datavalue":{…}}}]},"sitelinks":{…}},
    {"type":"property","id":"P31",…}
    ]

(The second line is broken for this page.) An object without members may be written as an empty list. The form
is described in Wikibase's documentation of JSON; what is not read of it is passed over.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.corpus.positions import LinePosition
from engine.corpus.readers.json_stream import Line, line_object, lines, wrong_type
from engine.corpus.readers.rows import Row
from engine.corpus.readers.values import BadDetail, Faults, Values, dumps
from engine.corpus.readers.wikidata_values import Value, value_of
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from engine.text.spelling import clean_name

INSTANCE_OF = "P31"
ALL_LANGUAGES = "mul"
"""The language of labels that hold in every one."""

ENTITY_ID = re.compile(r"[QP][1-9]\d{0,17}")
"""An item's id, or a property's."""

_OWN = ("id", "type", "labels")


def read_dump(file: Store) -> Iterator[Row]:
    """Yield the objects of a dump, as it is or compressed; the last row of a file that is cut off says so."""
    is_list = closed = broken = False
    number = offset = 0
    for line in lines(file):
        if line.is_blank:
            continue
        number, offset = line.number, line.offset
        if line.content is not None and line.fault is None:
            content = line.content.removeprefix(codecs.BOM_UTF8).strip()
            if not is_list and content[:1] == b"[":
                is_list, content = True, content[1:]
            if is_list and content[-1:] == b"]":
                closed, content = True, content[:-1]
            content = content.strip(b" \t,")
            if not content:
                continue
            line = line._replace(content=content)
        row, text = _object(line)
        broken = isinstance(row, Refusal) and row.code in (Code.FILE_CUT_OFF, Code.FILE_BROKEN)
        yield row, LinePosition(number, offset), text
    if is_list and not closed and not broken:
        reason = "the list of entities is never closed: the file is cut off"
        yield Refusal(Code.FILE_CUT_OFF, reason), LinePosition(number, offset), ""


def _object(line: Line) -> tuple[Values | Refusal, str]:
    """Return a line's object, or why there is none, and its text.

    A program wrote the dump, so that no key is looked for that is given twice: that takes four times as long.
    """
    if line.content is not None and line.fault is None:
        try:
            found = json.loads(line.content)
        except (ValueError, RecursionError):
            pass
        else:
            if isinstance(found, dict):
                return found, ""
    return line_object(line, _OWN)


class Wanted(NamedTuple):
    """What is read of each entity.

    Args:
        languages: of labels, aliases and descriptions; of each what the first has that has any.
        site: whose page's title is read, such as ``enwiki``.
        properties: whose values are read.
    """

    languages: Sequence[str]
    site: str
    properties: Collection[str] = ()


@dataclass(frozen=True)
class DumpEntity:
    """An entity of a dump.

    Args:
        id: such as ``Q31``.
        is_item: it is an item, no property.
        label, description, title: "" where there is none.
        aliases: in the languages that are read.
        classes: ids of what it is an instance of, by any statement that is not deprecated.
        values: of each property that is read, those of the best rank.
        faults: details that cannot be used.
    """

    id: str
    is_item: bool
    label: str
    description: str = ""
    title: str = ""
    aliases: Sequence[str] = ()
    classes: frozenset[str] = frozenset()
    values: Mapping[str, list[Value]] = field(default_factory=dict)
    faults: Faults = field(default_factory=list)


def entity_of(row: Values, wanted: Wanted) -> DumpEntity | Refusal | None:
    """Return the entity of a line; None where it is neither item nor property; a refusal where it is none."""
    own, kind = row.get("id"), row.get("type")
    if not isinstance(own, str):
        return wrong_type("an entity's id must be a text", own)
    if ENTITY_ID.fullmatch(own) is None:
        known = isinstance(kind, str) and kind not in ("item", "property")
        return (
            None if known else Refusal(Code.WRONG_LAYOUT, f"id {own[:40]!r} is none of an item or a property")
        )
    faults: Faults = []
    parts = {name: _part(row, name, faults) for name in ("labels", "aliases", "descriptions", "sitelinks")}
    claims = _part(row, "claims", faults)
    aliases = [
        text
        for language in wanted.languages
        for one in _list(parts["aliases"].get(language), "aliases", faults)
        if (text := _value(one, "value", "an alias", faults))
    ]
    return DumpEntity(
        own,
        own[0] == "Q",
        clean_name(_first(parts["labels"], wanted.languages, "a label", faults)),
        _first(parts["descriptions"], wanted.languages, "a description", faults),
        clean_name(_value(parts["sitelinks"].get(wanted.site), "title", "a site link", faults)),
        list(dict.fromkeys(map(clean_name, aliases))),
        _classes(claims, [] if INSTANCE_OF in wanted.properties else faults),
        {one: found for one in wanted.properties if (found := _values(claims, one, faults))},
        faults,
    )


def _part(row: Values, name: str, faults: Faults) -> dict[str, Any]:
    """Return a member that is an object; an empty one may be written as a list."""
    found = row.get(name)
    if isinstance(found, dict):
        return found
    if found is not None and found != []:
        faults.append(BadDetail(wrong_type(f"{name} must be an object", found), dumps(found)))
    return {}


def _list(found: object, name: str, faults: Faults) -> list[Any]:
    if isinstance(found, list):
        return found
    if found is not None and found != {}:
        faults.append(BadDetail(wrong_type(f"{name} must be a list", found), dumps(found)))
    return []


def _value(found: object, name: str, what: str, faults: Faults) -> str:
    """Return the text of an object such as ``{"language": …, "value": …}``; "" where there is none."""
    if found is None:
        return ""
    text = found.get(name) if isinstance(found, dict) else None
    if isinstance(text, str):
        return text
    faults.append(BadDetail(Refusal(Code.WRONG_TYPE, f"{what} has no text {name}"), dumps(found)))
    return ""


def _first(texts: Mapping[str, Any], languages: Sequence[str], what: str, faults: Faults) -> str:
    """Return the text of the first language that has one."""
    return next((text for one in languages if (text := _value(texts.get(one), "value", what, faults))), "")


def _statements(claims: Mapping[str, Any], of: str, faults: Faults) -> Iterator[tuple[str, Value]]:
    """Yield rank and value of a property's statements, without those that are deprecated or have no value."""
    for one in _list(claims.get(of), f"claims of {of}", faults):
        snak = one.get("mainsnak") if isinstance(one, dict) else None
        found = value_of(snak) if isinstance(snak, dict) else wrong_type("mainsnak must be an object", snak)
        if isinstance(found, Refusal):
            faults.append(BadDetail(found.about(f"{of}:"), dumps(one)))
        elif found is not None and one.get("rank") != "deprecated":
            yield str(one.get("rank")), found


def _classes(claims: Mapping[str, Any], faults: Faults) -> frozenset[str]:
    return frozenset(value.id for _, value in _statements(claims, INSTANCE_OF, faults))


def _values(claims: Mapping[str, Any], of: str, faults: Faults) -> list[Value]:
    """Return a property's values of the best rank, each once."""
    found = list(_statements(claims, of, faults))
    best = "preferred" if any(rank == "preferred" for rank, _ in found) else "normal"
    return list(dict.fromkeys(value for rank, value in found if rank == best or best == "normal"))
