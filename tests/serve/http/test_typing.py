"""Mentions of a text: where they are, what the model says of each, and what is wrong with a request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from engine.stages.type_mentions import TYPING
from engine.storage.bundle import Bundle
from engine.typing.mentions import Mention
from engine.typing.model import TypingModel
from serve.graph.plan import MENTIONS
from serve.http.errors import ProblemError
from serve.http.requests import Span, TypeRequest
from serve.http.routes import create_app
from serve.http.typing import CONTEXT, marked_text, mention_at
from tests.support.services import MakeClient, MakeService

TEXT = "The ore of [[iron]] is mined near [[Kiruna]], and iron is a metal."
PLAIN = "The ore of iron is mined near Kiruna, and iron is a metal."


@pytest.fixture(scope="module")
def client(make_client: MakeClient) -> TestClient:
    return make_client(max_queries=3)


def test_types_are_those_of_the_model_in_the_bundle(client: TestClient, bundle: Bundle) -> None:
    found = client.post("/v1/type", json={"text": TEXT}).json()
    assert (found["text"], found["bundle"]) == (PLAIN, bundle.id)
    model = TypingModel.load(bundle.path(TYPING))
    wanted = model.types(
        [
            Mention("The ore of", "iron", "is mined near Kiruna, and iron is a metal."),
            Mention("The ore of iron is mined near", "Kiruna", ", and iron is a metal."),
        ]
    )
    assert [one["mention"] for one in found["mentions"]] == ["iron", "Kiruna"]
    for one, types in zip(found["mentions"], wanted, strict=True):
        assert PLAIN[one["start"] : one["end"]] == one["mention"]
        assert [(t["type"], t["confidence"]) for t in one["types"]] == [
            (label, pytest.approx(confidence, abs=1e-4)) for label, confidence in types
        ]
    assert any(one["types"] for one in found["mentions"])


def test_places_say_the_same_as_marks(client: TestClient) -> None:
    by_marks = client.post("/v1/type", json={"text": TEXT}).json()
    spans = [{"start": one["start"], "end": one["end"]} for one in by_marks["mentions"]]
    by_places = client.post("/v1/type", json={"text": PLAIN, "mentions": spans}).json()
    assert by_places["mentions"] == by_marks["mentions"]
    bracketed = {"text": "An array[[0]] of [Oslo]", "mentions": [{"start": 18, "end": 22}]}
    found = client.post("/v1/type", json=bracketed).json()
    assert found["text"] == bracketed["text"], "with places given, brackets mark nothing"
    assert found["mentions"][0]["mention"] == "Oslo"


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"text": "We flew to Oslo."}, "text", "no mention is marked: write [[Oslo]]"),
        ({"text": "To [[Oslo and back."}, "text", "a mark '[[' without its other half, at 'To [[Oslo"),
        ({"text": "To Oslo]] and [[back]]."}, "text", "a mark ']]' without its other half"),
        ({"text": "To [[[[Oslo]]]]."}, "text", "without its other half"),
        ({"text": 10_000 * "[["}, "text", "without its other half"),
        ({"text": "To [[]]."}, "text", "marks nothing"),
        ({"text": "To [[ ]]."}, "text", "mention 1 is blank"),
        ({"text": "To Oslo", "mentions": []}, "mentions", "at least 1 item"),
        ({"text": "To Oslo", "mentions": [{"start": 3, "end": 8}]}, "mentions.0", "this text, which has 7"),
        ({"text": "To Oslo", "mentions": [{"start": 3, "end": 3}]}, "mentions.0", "`end` is the place after"),
        ({"text": "To Oslo", "mentions": [{"start": 2, "end": 3}]}, "mentions.0", "mention 1 is blank"),
        ({"text": "To Oslo", "mentions": [{"start": 3}]}, "mentions.0.end", "Field required"),
        ({"text": "[[a]] [[b]] [[c]] [[d]]"}, None, "a text holds 1..3 mentions here, this one 4"),
        ({"text": 20_001 * "x"}, "text", "at most 20000 characters"),
        ({"texts": ["[[a]]"]}, "text", "Field required"),
    ],
)
def test_mistakes_are_named(client: TestClient, body: object, field: str | None, words: str) -> None:
    answer = client.post("/v1/type", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "invalid_request", field)
    assert words in error["message"]


def test_without_a_typing_model_the_way_out_is_named(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    service.snapshot = replace(service.snapshot, routes=service.snapshot.routes - {MENTIONS})
    answer = TestClient(create_app(service)).post("/v1/type", json={"text": "[[Oslo]]"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_available")
    assert "`seedset build-index --types` adds one" in answer.json()["error"]["message"]


def test_mentions_count_as_queries(make_client: MakeClient) -> None:
    client = make_client(rate_per_minute=1, burst=3)
    one, three = ({"text": text} for text in ("[[a]]", "[[a]] [[b]] [[c]]"))
    assert client.post("/v1/type", json=three).status_code == 200
    assert client.post("/v1/type", json=one).status_code == 429


@given(st.lists(st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"]), min_size=1)))
def test_marks_are_taken_out_and_nothing_else(parts: list[str]) -> None:
    """Every second part is a mention."""
    text = "".join(f"[[{part}]]" if place % 2 else part for place, part in enumerate(parts))
    mentions = parts[1::2]
    if not text or "\0" in text:
        return
    request = TypeRequest.model_construct(text=text)
    try:
        found = marked_text(request, max_mentions=1000)
    except ProblemError:
        assert not mentions or not all(one.strip() for one in mentions)
        return
    assert found.text == "".join(parts)
    assert [found.text[one.start : one.end] for one in found.spans] == mentions


def test_of_a_long_text_the_model_is_given_what_is_near() -> None:
    text = 3000 * "a" + " Oslo " + 3000 * "b"
    found = mention_at(text, Span(start=3001, end=3005))
    assert found == Mention((CONTEXT - 1) * "a", "Oslo", (CONTEXT - 1) * "b")
