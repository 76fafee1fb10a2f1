"""The client against the service over a real connection; and what it does where that fails."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from serve import client as client_module
from serve.client import Client, ServiceError
from serve.http.routes import create_app
from tests.support.services import MakeService, running

TOKEN = "open sesame"


@pytest.fixture(scope="module")
def url(make_service: MakeService) -> Iterator[str]:
    tokens = {"me": hashlib.sha256(TOKEN.encode()).hexdigest()}
    with running(create_app(make_service(tokens=tokens))) as address:
        yield address


@pytest.fixture
def client(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("SEEDSET_TOKEN", TOKEN)
    with Client(url) as opened:
        yield opened


def test_everything_that_the_service_answers(client: Client) -> None:
    answer = client.expand(["entity 1", 2], ["entity 3"], top_k=3, explain=True, filter={"parity": ["odd"]})
    assert [r["rank"] for r in answer["results"]] == [1, 2, 3]
    assert answer["results"][0]["explanation"]["sentences"]
    good, bad = client.expand_batch([{"positive": [1], "id": "a"}, {"positive": ["?"], "id": "b"}])
    assert (good["id"], bad["error"]["code"]) == ("a", "unknown_entity")
    mapped = client.map_entities(["entity 1"], [2], [result["name"] for result in answer["results"]])
    assert [point["side"] for point in mapped["points"]] == ["positive", "negative", "", "", ""]
    events = list(client.stream([1], method="genexpan", top_k=3))
    assert {name for name, _ in events} == {"stage", "round", "answer"}
    assert len(events[-1][1]["results"]) == 3
    assert client.entities("entity 49", limit=2)[0]["name"] == "entity 49"
    for bundle in (None, answer["bundle"]):
        assert client.entity("entity 7", neighbours=0) == client.entity(7, neighbours=0, bundle=bundle)
    given = client.entity(7, neighbours=0, vectors=["mask"])["vectors"]
    assert client.expand([{"vector": given}], top_k=1)["results"][0]["id"] == 7
    assert {one["name"] for one in client.attributes()} == {"class", "parity"}
    assert client.methods()["default"] == "retexpan"
    assert client.bundle()["id"] == answer["bundle"]
    assert client.ready()


def test_errors_are_exceptions_that_say_what_the_service_said(client: Client) -> None:
    for ask in (client.expand, lambda seeds: list(client.stream(seeds))):
        with pytest.raises(ServiceError, match="did you mean") as wrong:
            ask(["entity 1", "entty 2"])
        error = wrong.value
        assert (error.status, error.code, error.field) == (422, "unknown_entity", "positive.1")
        assert "entity 2" in error.suggestions


def test_a_mistyped_option_is_not_ignored(client: Client) -> None:
    with pytest.raises(ServiceError, match="did you mean negative") as wrong:
        client.expand([1], negatives=[2])
    assert (wrong.value.field, wrong.value.suggestions) == ("negatives", ["negative"])
    (answer,) = client.expand_batch([{"positive": [1], "deadline": 5}])
    assert answer["error"]["field"] == "deadline"


@pytest.mark.parametrize(
    "name", ["a/b", "?", "a..b", "ü %2F", "#", "7", ".", "..", "../7", "current/entities/7"]
)
def test_any_name_is_asked_as_it_is(client: Client, name: str) -> None:
    with pytest.raises(ServiceError) as missing:
        client.entity(name)
    assert (missing.value.status, missing.value.code) == (404, "unknown_entity")
    assert repr(name) in missing.value.message


def test_an_id_of_another_bundle_is_refused(client: Client) -> None:
    for ask in (
        lambda: client.entity(7, bundle="ü?"),
        lambda: client.expand([7], bundle="0123456789abcdef"),
    ):
        with pytest.raises(ServiceError) as other:
            ask()
        assert (other.value.status, other.value.code) == (409, "other_bundle")


def test_a_wrong_token_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEEDSET_TOKEN", raising=False)
    for token in (None, "wrong"):
        with Client(url, token) as opened, pytest.raises(ServiceError, match="unauthorized"):
            opened.methods()


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\t{}"])
def test_what_a_mounted_secret_ends_with_does_not_count(
    url: str, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    monkeypatch.setenv("SEEDSET_TOKEN", around.format(TOKEN))
    with Client(url) as by_environment, Client(url, around.format(TOKEN)) as by_argument:
        assert by_environment.methods() == by_argument.methods()


@pytest.mark.parametrize(
    ("sign", "named"),
    [
        ("\u200b", "U+200B (zero width space)"),
        ("\ufeff", "U+FEFF (zero width no-break space)"),
        ("\u00a0", "U+00A0 (no-break space)"),
        ("\u2010", "U+2010 (hyphen)"),
        ("\n", "U+000A (a control character)"),
        ("\x7f", "U+007F (a control character)"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, sign: str, named: str
) -> None:
    token = f"secret-1{sign}secret-2"
    monkeypatch.setenv("SEEDSET_TOKEN", token)
    for given, source in ((token, "token"), (None, "SEEDSET_TOKEN")):
        with pytest.raises(ValueError, match="copy the token again") as wrong:
            Client("http://localhost:1", given)
        assert f"{source}: character 9 of 17 is {named}" in str(wrong.value)
        assert "secret-" not in str(wrong.value)


def test_one_seed_is_a_list_too(client: Client) -> None:
    with pytest.raises(TypeError, match="list"):
        client.expand("entity 1")


ERROR: dict[str, dict[str, Any]] = {
    "error": {"code": "overloaded", "message": "m", "field": None, "suggestions": []}
}
Answers = list[httpx.Response | Exception]


class Network:
    """Answers in order, the last one for ever; ``sent`` counts."""

    def __init__(self, answers: Answers) -> None:
        self._answers, self.sent = answers, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self._answers[min(self.sent, len(self._answers) - 1)]
        self.sent += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(client_module.sync.time, "sleep", slept.append)
    return slept


def connect(network: Network, **given: float) -> Client:
    return Client("http://test", transport=httpx.MockTransport(network), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_of_a_stream_end_at_line_feeds_alone(size: int) -> None:
    told = {"text": "a\u2028b\u2029c\x85de 京"}
    text = f": keep-alive\n\nevent: answer\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"
    pieces = [text.encode()[at : at + size] for at in range(0, len(text.encode()), size)]
    answer = httpx.Response(200, content=iter(pieces), headers={"Content-Type": "text/event-stream"})
    assert list(connect(Network([answer])).stream(["x"])) == [("answer", told)]


def fine() -> httpx.Response:
    return httpx.Response(200, json={"default": "m"})


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadError("reset"),
        lambda: httpx.Response(503, json=ERROR),
        lambda: httpx.Response(500, text="Internal Server Error"),
        lambda: httpx.Response(502, text="<html>"),
    ],
)
def test_what_may_pass_is_tried_again(
    pauses: list[float], trouble: Callable[[], httpx.Response | Exception]
) -> None:
    network = Network([trouble(), trouble(), fine()])
    assert connect(network).methods() == {"default": "m"}
    assert (network.sent, len(pauses)) == (3, 2)


def test_it_waits_as_long_as_it_is_told(pauses: list[float]) -> None:
    limited = httpx.Response(429, json=ERROR, headers={"retry-after": "7"})
    connect(Network([limited, fine()])).methods()
    assert pauses == [7]


def test_attempts_and_time_have_an_end(pauses: list[float]) -> None:
    network = Network([httpx.ConnectError("refused")])
    with pytest.raises(ServiceError, match="unreachable: refused"):
        connect(network, attempts=3).methods()
    assert (network.sent, len(pauses)) == (3, 2)
    network = Network([httpx.Response(503, json=ERROR, headers={"retry-after": "60"})])
    started = time.monotonic()
    with pytest.raises(ServiceError, match="overloaded"):
        connect(network, timeout=5).methods()
    assert network.sent == 1, "there is no time to wait that long"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [400, 404, 422, 504])
def test_what_would_fail_again_is_not_tried_again(pauses: list[float], status: int) -> None:
    network = Network([httpx.Response(status, json=ERROR)])
    with pytest.raises(ServiceError):
        connect(network).methods()
    assert network.sent == 1


def test_an_error_of_the_service_itself_is_not_tried_again(pauses: list[float]) -> None:
    network = Network([httpx.Response(500, json={"error": ERROR["error"] | {"code": "internal", "id": "x"}})])
    with pytest.raises(ServiceError, match="internal"):
        connect(network).methods()
    assert network.sent == 1


def test_nobody_there_is_not_ready() -> None:
    assert not connect(Network([httpx.ConnectError("refused")])).ready()
