"""The client whose methods are awaited: what the other one asks and says, it asks and says too."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from serve.client import AsyncClient, Client, ServiceError, asynchronous
from serve.http.routes import create_app
from serve.sets.access import LocalSets
from tests.support.services import MakeService, running

TOKEN = "open sesame"


@pytest.fixture(scope="module")
def url(make_service: MakeService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tokens = {"me": hashlib.sha256(TOKEN.encode()).hexdigest()}
    sets = LocalSets(tmp_path_factory.mktemp("sets") / "sets.sqlite")
    with running(create_app(make_service(tokens=tokens), sets=sets)) as address:
        yield address


def without_seconds(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("seconds", "id")}


def test_both_clients_have_the_same_methods() -> None:
    def methods(of: type) -> dict[str, list[str]]:
        found = inspect.getmembers(of, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in found if name[0] != "_"}

    assert methods(AsyncClient) == methods(Client)


def test_what_is_awaited_is_what_the_other_client_returns(url: str) -> None:
    async def asked() -> None:
        async with AsyncClient(url, TOKEN) as client:
            with Client(url, TOKEN) as other:
                answers = await asyncio.gather(*(client.expand([i], top_k=3) for i in range(4)))
                for i, answer in enumerate(answers):
                    assert without_seconds(answer) == without_seconds(other.expand([i], top_k=3))
                (batch,) = await client.expand_batch([{"positive": [1], "top_k": 3}])
                assert without_seconds(batch) == without_seconds(answers[1])
                assert await client.entities("entity 49", limit=2) == other.entities("entity 49", limit=2)
                assert await client.look_up(["entity 1", "x"]) == other.look_up(["entity 1", "x"])
                assert await client.entity("entity 7") == other.entity("entity 7")
                assert await client.entity(7, vectors=["mask"]) == other.entity(7, vectors=["mask"])
                for name in ("attributes", "methods", "bundle", "ready"):
                    assert await getattr(client, name)() == getattr(other, name)()
                mapped = await client.map_entities(["entity 1"], [2], [3], explain=True)
                again = other.map_entities(["entity 1"], [2], [3], explain=True)
                assert without_seconds(mapped) == without_seconds(again)
                headers = {"authorization": f"Bearer {TOKEN}"}
                made = httpx.post(f"{url}/v1/sets", json={"name": "a set"}, headers=headers).json()["id"]
                agreed = await client.set_agreement(made, "ada", 5)
                assert agreed == other.set_agreement(made, "ada", 5)
                assert (agreed["version"], agreed["shared"], agreed["left_to_judge"]) == (1, 0, 0)
                text = "We flew to [[Oslo]]."
                assert (await client.type_text(text))["mentions"] == other.type_text(text)["mentions"]
                streamed = [event async for event in client.stream([1], method="genexpan", top_k=3)]
                assert streamed[-1][0] == "answer"
                assert {name for name, _ in streamed} == {"stage", "round", "answer"}

    asyncio.run(asked())


def test_errors_are_the_same_exceptions(url: str) -> None:
    async def asked() -> None:
        async with AsyncClient(url, TOKEN) as client:
            with pytest.raises(ServiceError, match="did you mean") as wrong:
                await client.expand(["entty 2"])
            assert (wrong.value.status, wrong.value.field) == (422, "positive.0")
            with pytest.raises(ServiceError, match="did you mean"):
                _ = [event async for event in client.stream(["entty 2"])]
            with pytest.raises(ServiceError, match="cannot be written"):
                await client.expand([float("nan")])  # type: ignore[list-item]
        async with AsyncClient(url, "wrong") as client:
            with pytest.raises(ServiceError, match="unauthorized"):
                await client.methods()

    asyncio.run(asked())


def test_a_request_is_sent_again_where_that_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asynchronous.asyncio, "sleep", sleep)
    refusal: dict[str, Any] = {
        "error": {"code": "overloaded", "message": "m", "field": None, "suggestions": []}
    }
    answers = [
        httpx.Response(503, json=refusal, headers={"Retry-After": "3"}),
        httpx.Response(500, text="a replica was lost"),
        httpx.Response(200, json={"default": "m"}),
    ]

    async def asked(*given: httpx.Response) -> dict[str, Any]:
        left = list(given)
        transport = httpx.MockTransport(lambda _: left.pop(0))
        async with AsyncClient("http://localhost", transport=transport) as client:
            return await client.methods()

    assert asyncio.run(asked(*answers)) == {"default": "m"}
    assert slept[0] == 3
    assert 0 < slept[1] <= 0.4
    with pytest.raises(ServiceError, match="overloaded"):
        asyncio.run(asked(*(httpx.Response(503, json=refusal) for _ in range(4))))
