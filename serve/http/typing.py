"""Type the mentions of a text: ``POST /v1/type``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.query import Deadline, Expansion
from engine.stages.type_mentions import MentionQuery
from engine.typing.mentions import Mention
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import MENTIONS
from serve.http.errors import SHOWN, Problem, ProblemError, invalid
from serve.http.requests import Span, TypeRequest
from serve.http.service import Service
from serve.http.trace import Trace

CONTEXT = 2_000
"""Characters on either side of a mention that the model is given: it reads 128 tokens in all."""

_MARK = re.compile(r"(\[\[|\]\])")


class MarkedText(NamedTuple):
    """A text without marks, and where its mentions are."""

    text: str
    spans: Sequence[Span]


def marked_text(request: TypeRequest, max_mentions: int) -> MarkedText:
    """Return the text of a request and its mentions.

    Raises:
        ProblemError: a mention that is not in the text or is blank; marks that do not pair; too many.
    """
    given = request.mentions
    found = _without_marks(request.text) if given is None else MarkedText(request.text, given)
    for number, one in enumerate(found.spans):
        field = "text" if given is None else f"mentions.{number}"
        if not one.start < one.end <= len(found.text):
            raise invalid(
                f"characters {one.start} to {one.end} are none of this text, which has {len(found.text)}; "
                "`end` is the place after the last character of the mention",
                field,
            )
        if not found.text[one.start : one.end].strip():
            raise invalid(f"mention {number + 1} is blank", field)
    if len(found.spans) > max_mentions:
        raise invalid(f"a text holds 1..{max_mentions} mentions here, this one {len(found.spans)}")
    return found


def _without_marks(text: str) -> MarkedText:
    """Take the marks out, in one pass over the text."""
    spans, parts, length, begun = list[Span](), list[str](), 0, -1
    for place, part in enumerate(_MARK.split(text)):
        if place % 2 == 0:
            parts.append(part)
            length += len(part)
        elif part == "[[" and begun < 0:
            begun = length
        elif part == "]]" and begun >= 0:
            if begun == length:
                raise invalid("[[]] marks nothing: there is no mention in it", "text")
            spans.append(Span(start=begun, end=length))
            begun = -1
        else:
            raise _unpaired(part, "".join(parts), length)
    if begun >= 0:
        raise _unpaired("[[", "".join(parts), begun)
    if not spans:
        raise invalid("no mention is marked: write [[Oslo]], or give the places as `mentions`", "text")
    return MarkedText("".join(parts), spans)


def _unpaired(mark: str, text: str, place: int) -> ProblemError:
    """Return the error of a mark; ``text`` is without marks, as far as it was read."""
    near = text[max(0, place - SHOWN // 2) : place] + mark + text[place : place + SHOWN // 2]
    return invalid(
        f"a mark {mark!r} without its other half, at {near!r}; mark each mention [[so]], or give the "
        "places as `mentions`, and the text as it is",
        "text",
    )


def mention_at(text: str, span: Span) -> Mention:
    """Return a mention with as much of the text around it as the model may read."""
    first = max(0, span.start - CONTEXT)
    return Mention.at(text[first : span.end + CONTEXT], span.start - first, span.end - first)


async def type_text(
    service: Service, marked: MarkedText, deadline_ms: int | None, trace: Trace
) -> dict[str, Any]:
    """Answer a text with the types of its mentions.

    Raises:
        ProblemError: the bundle has no typing model, or why the text cannot be answered now.
    """
    snapshot, settings = service.snapshot, service.settings
    if MENTIONS not in snapshot.routes:
        message = "the bundle that is served has no typing model; `seedset build-index --types` adds one"
        raise ProblemError(Problem("not_available", message, 404))
    deadline = Deadline.within(min((deadline_ms or float("inf")) / 1000, settings.timeout_s))
    queries = [
        MentionQuery(f"{trace.request_id}:{number}", mention=mention_at(marked.text, one), deadline=deadline)
        for number, one in enumerate(marked.spans)
    ]
    trace.bundle, trace.queries = snapshot.id, len(queries)
    expansions = []
    asked = [Expansion(query) for query in queries]
    for outcome in await service.dispatched(MENTIONS, snapshot.id, asked, trace):
        if isinstance(outcome, Problem):
            raise ProblemError(outcome)
        expansions.append(outcome)
    return _answer(snapshot, marked, expansions)


def _answer(snapshot: BundleSnapshot, marked: MarkedText, expansions: Sequence[Expansion]) -> dict[str, Any]:
    names = snapshot.predicted_types
    mentions = []
    for span, expansion in zip(marked.spans, expansions, strict=True):
        ranking = expansion.ranking
        types = [
            {"type": names[place], "confidence": round(confidence, 6)}
            for place, confidence in zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True)
        ]
        place = {"start": span.start, "end": span.end}
        mentions.append({**place, "mention": marked.text[span.start : span.end], "types": types})
    seconds = sum(sum(expansion.seconds.values()) for expansion in expansions)
    return {"bundle": snapshot.id, "text": marked.text, "mentions": mentions, "seconds": round(seconds, 6)}
