"""Read byte streams of any size: lines with their places, and JSON texts that survive broken UTF-8."""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import ijson

from engine.corpus.readers.compression import BrokenStreamError, Readable, open_text
from engine.refusals import Code, Refusal
from engine.repeated_keys import SHOWN, json_records, repeated_key
from engine.storage.store import Store

BLOCK = 1 << 20
MAX_LINE = 48 << 20
"""Bytes of a line that are held in memory: an image of 32 MiB in base64 fits, a file without line breaks must
not fill it."""


class Line(NamedTuple):
    """A line without its line break. ``content`` is None where it is longer than :data:`MAX_LINE`.

    ``fault`` says why the file cannot be read from this line on; it is the last one.
    """

    number: int
    offset: int
    content: bytes | None
    ended: bool
    fault: Refusal | None = None

    @property
    def is_blank(self) -> bool:
        """Whether the line holds nothing but space."""
        return (
            self.content is not None and self.fault is None and self.content.strip() in (b"", codecs.BOM_UTF8)
        )


def lines(store: Store, span: tuple[int, int] | None = None) -> Iterator[Line]:
    """Yield a file's lines (cut at line feeds only), numbered from 1, with the byte at which each begins.

    A compressed file is unpacked (:func:`engine.corpus.readers.compression.open_text`).

    Args:
        store: the file.
        span: of a file that is not compressed, the lines that begin at these bytes, the end exclusive; None:
            all. Their numbers are not known, and 0, where the span does not begin the file.
    """
    first, end = span or (0, sys.maxsize)
    number, offset, rest, skipped = 0 if first else 1, max(0, first - 1), b"", 0
    fault = None
    with open_text(store) as stream:
        if first:
            stream.seek(offset)  # type: ignore[attr-defined]
        try:
            while block := stream.read(BLOCK):
                *whole, rest = (rest + block).split(b"\n")
                for content in whole:
                    size = len(content) + 1 + skipped
                    if offset >= first:  # before it ends the line that another span begins
                        yield Line(number, offset, None if skipped else content, True)
                        number += number > 0
                    offset, skipped = offset + size, 0
                    if offset >= end:
                        return
                if len(rest) > MAX_LINE or skipped:
                    skipped, rest = skipped + len(rest), b""
        except BrokenStreamError as error:
            fault = error.refusal
    if offset >= first and (rest or skipped or fault):
        yield Line(number, offset, None if skipped else rest, False, fault)


def decode(line: Line) -> tuple[str, Refusal | None]:
    """Return a line's text (line break and byte order mark removed) and why it cannot be used, or None."""
    if line.fault:
        return (line.content or b"").decode(errors="replace"), line.fault
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
        row = json_records(text)
        repeated = repeated_key(row)
    except (ValueError, RecursionError) as error:
        if not ended and _is_beginning(text):
            reason = f"the file ends in the middle of this line: it is cut off ({error})"
            return Refusal(Code.FILE_CUT_OFF, reason)
        return Refusal(Code.NOT_JSON, f"not valid JSON ({error})")
    if repeated is not None:
        reason = f"{repeated[:SHOWN]} is given a second time; of two equal keys leave one"
        return Refusal(Code.CONFLICTING_FIELDS, reason)
    if isinstance(row, dict):
        return row
    return wrong_type("a line must be an object", row)


def line_object(line: Line, own: Collection[str]) -> tuple[dict[str, Any] | Refusal, str]:
    """Return the JSON object of a line, or why it holds none, and the line's text.

    Bytes that are not UTF-8 cost only the details that hold them: these hold U+FFFD in their place, and are
    refused for that. In one of the fields ``own`` they cost the record.
    """
    text, fault = decode(line)
    if fault and fault.code is not Code.NOT_UTF8:
        return fault, text
    row = parsed_object(text, line.ended)
    if fault is None or (isinstance(row, Refusal) and row.code is Code.FILE_CUT_OFF):
        return row, text
    if isinstance(row, Refusal) or any("\ufffd" in str(row.get(field)) for field in own):
        return fault, text
    return row, text


_HALF_TOKEN = re.compile(r"(?:\\+(?:u[0-9a-fA-F]{0,3})?|tr?u?|fa?l?s?|nu?l?|Na?|-?In?f?i?n?i?t?)\Z")
"""The end of a text that may be a part of an escaped character or of true, false, null, NaN, Infinity."""


def _is_beginning(text: str) -> bool:
    """Return whether a text that is not JSON is the beginning of a JSON object."""
    if not text.lstrip().startswith("{"):
        return False
    stream = _WithoutNaN(io.BytesIO(_HALF_TOKEN.sub("", text).encode(errors="replace")))
    try:
        for _ in ijson.basic_parse(stream):
            pass
    except ijson.JSONError as error:
        return fault_of_json(error).code is Code.FILE_CUT_OFF
    return False


def json_type(value: object) -> str:
    """Return what JSON calls the type of a value."""
    names: dict[type, str] = {bool: "true or false", str: "a text", bytes: "bytes", type(None): "null"}
    names |= {list: "a list", dict: "an object"} | dict.fromkeys((int, float, Decimal), "a number")
    return names.get(type(value), type(value).__name__)


def wrong_type(expected: str, value: object) -> Refusal:
    """Return the refusal of a value that is not what it must be, such as ``entity must be a text``."""
    return Refusal(Code.WRONG_TYPE, f"{expected}, not {json_type(value)}")


class _Valid:
    """A stream for a JSON parser: bytes that are not UTF-8 become U+FFFD, so that they end nothing."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(size)
        text = self._decoder.decode(block, final=not block)
        while block and not text:
            block = self._stream.read(size)
            text = self._decoder.decode(block, final=not block)
        return text.encode()


class _WithoutNaN:
    """A stream for a JSON parser: NaN and Infinity, which are not JSON but are written, become null."""

    _OUTSIDE = re.compile(rb'"|-?(?:NaN|Infinity)')
    _INSIDE = re.compile(rb'["\\]')
    _UNSURE = re.compile(rb"-?(?:N|Na|I|In|Inf|Infi|Infin|Infini|Infinit)?\Z")
    """The end of a block that may be the beginning of a number's name."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._rest = b""
        self._inside = self._escaped = False

    def read(self, size: int = -1, /) -> bytes:
        done = b""
        while not done:
            block = self._stream.read(size)
            if not block:
                done, self._rest = self._rest, b""
                break
            done = self._replace(self._rest + block)
        return done

    def _replace(self, block: bytes) -> bytes:
        pieces, at = [], 0
        if self._escaped:
            pieces, at, self._escaped = [block[:1]], 1, False
        self._rest = b""
        while found := (self._INSIDE if self._inside else self._OUTSIDE).search(block, at):
            token, end = found.group(), found.end()
            if token == b"\\":  # the next character is no quotation mark of the text's end
                self._escaped, end = end == len(block), end + 1
                pieces.append(block[at:end])
            elif token == b'"':
                self._inside = not self._inside
                pieces.append(block[at:end])
            else:
                pieces.append(block[at : found.start()] + b"null")
            at = end
        tail = block[at:]
        if not self._inside and (unsure := self._UNSURE.search(tail)):
            tail, self._rest = tail[: unsure.start()], tail[unsure.start() :]
        return b"".join([*pieces, tail])


class BrokenJSONError(ijson.JSONError):
    """The rest of a compressed JSON file cannot be unpacked."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def json_events(store: Store) -> Iterator[tuple[str, object]]:
    """Yield the parsing events (``ijson.basic_parse``) of a JSON file; NaN and Infinity are null.

    Everything before a fault in the file is yielded before the error.

    Raises:
        ijson.JSONError: the text is not JSON, or ends too early.
    """
    yielded = 0
    try:
        for event in _parsed(store, _Valid):
            yield event
            yielded += 1
    except BrokenJSONError:
        raise
    except ijson.JSONError:
        # Perhaps a NaN, which the parser takes for a fault. To look for them costs time, so it is done only
        # now, from the beginning: what was yielded already is passed over.
        for place, event in enumerate(_parsed(store, lambda stream: _WithoutNaN(_Valid(stream)))):
            if place >= yielded:
                yield event


def _parsed(store: Store, prepare: Callable[[Readable], Readable]) -> Iterator[tuple[str, object]]:
    with open_text(store) as stream:
        try:
            yield from ijson.basic_parse(prepare(stream), buf_size=BLOCK)
        except BrokenStreamError as error:
            raise BrokenJSONError(error.refusal) from None


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
    if isinstance(error, BrokenJSONError):
        return error.refusal
    first = str(error).strip().partition("\n")[0]
    if "premature EOF" in first or "Incomplete" in first:
        return Refusal(Code.FILE_CUT_OFF, "the file ends in the middle of its JSON text: it is cut off")
    reason = f"no valid JSON from here on ({first}); the rest of the file was not read"
    return Refusal(Code.FILE_BROKEN, reason)
