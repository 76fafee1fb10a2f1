"""Read byte streams of any size: lines with their places, and JSON texts that survive broken UTF-8."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import ijson

from engine.refusals import Code, Refusal
from engine.storage.store import Store

BLOCK = 1 << 20
MAX_LINE = 48 << 20
"""Bytes of a line that are held in memory: an image of 32 MiB in base64 fits, a file without line breaks must
not fill it."""


class Line(NamedTuple):
    """A line without its line break. ``content`` is None where it is longer than :data:`MAX_LINE`."""

    number: int
    offset: int
    content: bytes | None
    ended: bool


def lines(store: Store) -> Iterator[Line]:
    """Yield a file's lines (cut at line feeds only), numbered from 1, with the byte at which each begins."""
    number, offset, rest, skipped = 1, 0, b"", 0
    with store.open_input() as stream:
        while block := stream.read(BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            for content in whole:
                size = len(content) + 1 + skipped
                yield Line(number, offset, None if skipped else content, True)
                number, offset, skipped = number + 1, offset + size, 0
            if len(rest) > MAX_LINE or skipped:
                skipped, rest = skipped + len(rest), b""
    if rest or skipped:
        yield Line(number, offset, None if skipped else rest, False)


def decode(line: Line) -> tuple[str, Refusal | None]:
    """Return a line's text (line break and byte order mark removed) and why it cannot be used, or None."""
    if line.content is None:
        return "", Refusal(Code.LINE_TOO_LONG, f"line longer than {MAX_LINE >> 20} MiB")
    content = line.content.removeprefix(codecs.BOM_UTF8) if line.number == 1 else line.content
    try:
        return content.decode().rstrip("\r"), None
    except UnicodeDecodeError as error:
        place = line.offset + error.start + len(line.content) - len(content)
        fault = Refusal(Code.NOT_UTF8, f"not valid UTF-8 at byte {place} of the file")
        return content.decode(errors="replace"), fault


def parsed_object(text: str, ended: bool) -> dict[str, Any] | Refusal:
    """Return the JSON object of a line, or why it holds none.

    Args:
        text: see :func:`decode`.
        ended: whether the line has its line break.
    """
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        cut = "" if ended else "; the file ends in this line without a line break: it may be cut off"
        return Refusal(Code.NOT_JSON, f"not valid JSON ({error}){cut}")
    if isinstance(row, dict):
        return row
    return wrong_type("a line must be an object", row)


def json_type(value: object) -> str:
    """Return what JSON calls the type of a value."""
    names: dict[type, str] = {bool: "true or false", str: "a text", type(None): "null"}
    names |= {list: "a list", dict: "an object"} | dict.fromkeys((int, float, Decimal), "a number")
    return names.get(type(value), type(value).__name__)


def wrong_type(expected: str, value: object) -> Refusal:
    """Return the refusal of a value that is not what it must be, such as ``entity must be a text``."""
    return Refusal(Code.WRONG_TYPE, f"{expected}, not {json_type(value)}")


def is_whole_number(value: object) -> bool:
    """Return whether a JSON value is a whole number; true and false, integers to Python, are none."""
    return isinstance(value, int) and not isinstance(value, bool)


class _Valid:
    """A stream for a JSON parser: bytes that are not UTF-8 become U+FFFD, so that they end nothing."""

    def __init__(self, stream: object) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._stream.read(size)  # type: ignore[attr-defined]
        text = self._decoder.decode(block, final=not block)
        while block and not text:
            block = self._stream.read(size)  # type: ignore[attr-defined]
            text = self._decoder.decode(block, final=not block)
        return text.encode()


def json_events(store: Store) -> Iterator[tuple[str, object]]:
    """Yield the parsing events (``ijson.basic_parse``) of a JSON file.

    Everything before a fault in the file is yielded before the error.

    Raises:
        ijson.JSONError: the text is not JSON, or ends too early.
    """
    with store.open_input() as stream:
        yield from ijson.basic_parse(_Valid(stream), buf_size=BLOCK)


def json_value(events: Iterator[tuple[str, object]], event: str, value: object) -> object:
    """Return the whole value that begins with the given event, reading on as far as it goes."""
    if event not in ("start_map", "start_array"):
        return value
    builder = ijson.ObjectBuilder()
    builder.event(event, value)
    depth = 1
    while depth:
        event, value = next(events)
        depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
        builder.event(event, value)
    return builder.value


def json_members(store: Store) -> Iterator[tuple[str, object]]:
    """Yield the members of the object that a JSON file holds, one at a time.

    Raises:
        ijson.JSONError: the text is not JSON, is no object, or ends too early.
    """
    events = json_events(store)
    expect_object(events)
    for event, value in events:
        if event == "map_key":
            yield str(value), json_value(events, *next(events))


def expect_object(events: Iterator[tuple[str, object]]) -> None:
    """Take the first event, which must open an object.

    Raises:
        ijson.JSONError: it does not.
    """
    event, _ = next(events, ("", None))
    if event != "start_map":
        raise ijson.JSONError("the file holds no JSON object {name: …}")


def fault_of_json(error: Exception) -> Refusal:
    """Return a parser's complaint about the rest of a file."""
    first = str(error).strip().splitlines()[0]
    if "premature EOF" in first or "Incomplete" in first:
        return Refusal(Code.FILE_CUT_OFF, "the file ends in the middle of its JSON text: it is cut off")
    reason = f"no valid JSON from here on ({first}); the rest of the file was not read"
    return Refusal(Code.FILE_BROKEN, reason)
