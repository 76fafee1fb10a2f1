"""Read mentions with their types: JSON lines in the layout of UFET, of FET sets, or in the project's own.

A line is an object. The three layouts, told apart by their fields:

- UFET (Choi et al., 2018): ``left_context_token`` and ``right_context_token`` (lists of tokens),
  ``mention_span``, ``y_str`` (labels), ``annot_id``;
- the few-shot FET sets of FiveFine: ``left_context``, ``right_context`` (lists of tokens), ``word``,
  ``y_category`` (labels), ``ex_id``;
- own: ``left``, ``mention``, ``right`` (texts), ``types`` (labels), ``id``.

In each of them ``y_added`` may list labels that a program added (FiveFine, section 3.1): they weigh less in
training. Other fields are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from engine.corpus.readers.json_stream import json_type, line_object, lines
from engine.errors import FormatError, MissingFileError
from engine.refusals import Refusal
from engine.storage.store import Store

ADDED = "y_added"
"""The field of labels that a program added."""


@dataclass(frozen=True)
class Mention:
    """A mention in its sentence: the texts before it, of it, and after it."""

    left: str
    text: str
    right: str

    @classmethod
    def at(cls, sentence: str, start: int, end: int) -> Self:
        """Return the mention between two characters of a sentence, ``end`` being the first after it."""
        return cls(sentence[:start].rstrip(), sentence[start:end], sentence[end:].lstrip())


@dataclass(frozen=True)
class TypedMention:
    """A mention with the labels that its annotators gave it, and those that a program added.

    Those that are ``uncertain`` count neither way in training (:mod:`engine.typing.teacher`).
    """

    id: str
    mention: Mention
    labels: tuple[str, ...]
    added: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()


class _Layout(NamedTuple):
    """The fields of a layout."""

    left: str
    mention: str
    right: str
    labels: str
    id: str
    tokens: bool
    """Contexts are lists of tokens, else texts."""


LAYOUTS = (
    _Layout("left_context_token", "mention_span", "right_context_token", "y_str", "annot_id", True),
    _Layout("left_context", "word", "right_context", "y_category", "ex_id", True),
    _Layout("left", "mention", "right", "types", "id", False),
)


def read_mentions(file: Store, labelled: bool = True) -> list[TypedMention]:
    """Return the mentions of a file in its order, blank lines left out.

    Args:
        file: JSON lines; a compressed file is unpacked.
        labelled: whether every line must have the field of its labels (the list may be empty).

    Raises:
        MissingFileError: there is no such file.
        FormatError: a line cannot be read, or there is none; names the file, the line and the field.
    """
    if not file.exists():
        raise MissingFileError(f"{file.uri}: no such file of mentions")
    found = list(_mentions(file, labelled))
    if not found:
        raise FormatError(f"{file.uri}: no mention in it; a line holds one, as a JSON object")
    return found


def _mentions(file: Store, labelled: bool) -> Iterator[TypedMention]:
    own = tuple(name for layout in LAYOUTS for name in layout[:5])
    for line in lines(file):
        if line.is_blank:
            continue
        row, _ = line_object(line, own)
        place = f"{file.uri}, line {line.number}"
        if isinstance(row, Refusal):
            raise FormatError(f"{place}: {row.detail}")
        yield _mention(row, place, line.number, labelled)


def _mention(row: dict[str, Any], place: str, number: int, labelled: bool) -> TypedMention:
    layout = _layout_of(row, place)
    text = _text(row, layout.mention, place)
    if not text.strip():
        raise FormatError(f"{place}: {layout.mention} is empty: there is no mention to type")
    sides = [
        " ".join(_texts(row, name, place)) if layout.tokens else _text(row, name, place)
        for name in (layout.left, layout.right)
    ]
    if labelled and layout.labels not in row:
        raise FormatError(f"{place}: no field {layout.labels}, which lists the mention's types")
    labels = _texts(row, layout.labels, place) if layout.labels in row else []
    added = _texts(row, ADDED, place) if ADDED in row else []
    given = row.get(layout.id)
    name = str(number) if given is None else str(given)
    only_added = tuple(dict.fromkeys(one for one in added if one not in labels))
    return TypedMention(name, Mention(sides[0], text, sides[1]), tuple(dict.fromkeys(labels)), only_added)


def _layout_of(row: dict[str, Any], place: str) -> _Layout:
    found = [layout for layout in LAYOUTS if layout.mention in row]
    if len(found) == 1:
        return found[0]
    named = ", ".join(layout.mention for layout in found or LAYOUTS)
    if found:
        raise FormatError(f"{place}: fields of several layouts ({named}): of these leave one")
    raise FormatError(f"{place}: no mention in it: its field is one of {named}")


def _text(row: dict[str, Any], name: str, place: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise FormatError(f"{place}: {name} must be a text, not {json_type(value)}")
    return value


def _texts(row: dict[str, Any], name: str, place: str) -> list[str]:
    value = row.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        wrong = value if not isinstance(value, list) else next(v for v in value if not isinstance(v, str))
        where = name if not isinstance(value, list) else f"each of {name}"
        raise FormatError(
            f"{place}: {where} must be {'a list of texts' if where == name else 'a text'}, not "
            f"{json_type(wrong)}"
        )
    return value


def labels_of(mentions: Sequence[TypedMention]) -> list[str]:
    """Return all labels of some mentions, those added too, in order of their first use."""
    return list(dict.fromkeys(label for one in mentions for label in (*one.labels, *one.added)))
