"""Entities as a dump of Wikidata has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def texts(found: dict[str, str]) -> Any:
    """Texts by language; the program that writes dumps makes a list of an empty object."""
    return {code: {"language": code, "value": text} for code, text in found.items()} or []


def statement(data: dict[str, Any] | str, rank: str = "normal") -> dict[str, Any]:
    """A statement of a datavalue, or of none ("novalue", "somevalue")."""
    snak: dict[str, Any] = (
        {"snaktype": data} if isinstance(data, str) else {"snaktype": "value", "datavalue": data}
    )
    return {"type": "statement", "rank": rank, "mainsnak": snak}


def item(number: int, rank: str = "normal") -> dict[str, Any]:
    """A statement that names an item."""
    value = {"entity-type": "item", "numeric-id": number, "id": f"Q{number}"}
    return statement({"type": "wikibase-entityid", "value": value}, rank)


def entity(own: str, label: str | dict[str, str] = "", **more: Any) -> dict[str, Any]:
    """An entity; ``more`` are aliases (English), description, title (of enwiki) and claims."""
    labels = {"en": label} if isinstance(label, str) else label
    aliases = [{"language": "en", "value": one} for one in more.get("aliases", [])]
    title = more.get("title")
    return {
        "type": "item" if own[0] == "Q" else "property",
        "id": own,
        "labels": texts({code: text for code, text in labels.items() if text}),
        "descriptions": texts({"en": more["description"]} if "description" in more else {}),
        "aliases": {"en": aliases} if aliases else [],
        "claims": more.get("claims") or [],
        "sitelinks": {"enwiki": {"site": "enwiki", "title": title, "badges": []}} if title else [],
    }


def dump_text(entities: Sequence[Any]) -> str:
    """The text of a dump: a list, an entity a line; texts are lines as they are."""
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in entities]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def write_dump(path: Path, entities: Sequence[Any]) -> Path:
    """Write a dump."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_text(entities), encoding="utf-8")
    return path
