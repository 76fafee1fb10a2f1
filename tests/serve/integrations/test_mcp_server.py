"""Test the tools with the SDK's own client, against a real service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from serve.client import AsyncClient
from serve.http.routes import create_app
from serve.integrations import mcp_command
from serve.integrations.mcp_server import MOST, main, server
from tests.support.services import MakeService, running

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def url(make_service: MakeService) -> Iterator[str]:
    with running(create_app(make_service())) as address:
        yield address


def asked(url: str, ask: Callable[[Client], Awaitable[Any]]) -> Any:
    """Return what is asked of the tools in this process."""

    async def ask_all() -> Any:
        async with Client(server(AsyncClient(url))) as client:
            return await ask(client)

    return asyncio.run(ask_all())


def called(url: str, tool: str, **arguments: object) -> Any:
    return asked(url, lambda client: client.call_tool(tool, arguments))


def test_the_tools_describe_themselves(url: str) -> None:
    tools = {one.name: one for one in asked(url, lambda client: client.list_tools()).tools}
    assert tools.keys() == {"expand", "search_entities", "entity"}
    assert all(one.description and one.annotations.read_only_hint for one in tools.values())
    expand = tools["expand"].input_schema
    assert expand["required"] == ["positive"]
    assert expand["properties"]["top_k"]["maximum"] == MOST
    assert tools["expand"].output_schema["properties"].keys() == {"members", "proposed", "degraded"}


def test_a_set_is_expanded_as_over_http(url: str) -> None:
    seeds = {"positive": ["entity 1"], "negative": ["entity 3"]}
    result = called(url, "expand", **seeds, top_k=3, filter={"parity": ["odd"]})
    assert not result.is_error
    members = result.structured_content["members"]
    with_client = asyncio.run(answer_of(url))
    assert [one["name"] for one in members] == [one["name"] for one in with_client["results"]]
    assert json.loads(result.content[0].text)["members"] == members
    assert result.structured_content["proposed"] is None


async def answer_of(url: str) -> Any:
    async with AsyncClient(url) as client:
        return await client.expand(["entity 1"], ["entity 3"], top_k=3, filter={"parity": ["odd"]})


def test_entities_are_found_and_described(url: str) -> None:
    found = called(url, "search_entities", text="ENTITY 49", limit=2).structured_content["result"]
    assert found[0] == {"name": "entity 49", "aliases": [], "description": "The odd one of number 49."}
    assert len(found) == 2
    known = called(url, "entity", name="entity 7").structured_content
    assert known["name"] == "entity 7"
    assert len(known["sentences"]) == 3
    assert len(known["neighbours"]) == 10


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("expand", {"positive": ["entty 2"]}, "entity 2"),
        ("expand", {"positive": []}, "positive"),
        ("expand", {"positive": ["entity 1"], "top_k": MOST + 1}, "top_k"),
        ("expand", {"positive": ["entity 1"], "filter": {"paritty": ["odd"]}}, "parity"),
        ("entity", {"name": "entty 7"}, "entity 7"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_what_would_work(
    url: str, tool: str, arguments: dict[str, object], words: str
) -> None:
    result = called(url, tool, **arguments)
    assert result.is_error
    assert words in result.content[0].text


def test_a_service_that_is_not_there_is_an_error_of_the_tool() -> None:
    async def ask() -> Any:
        async with Client(server(AsyncClient("http://127.0.0.1:9", attempts=1))) as client:
            return await client.call_tool("entity", {"name": "x"})

    assert asyncio.run(ask()).is_error


def test_it_speaks_over_stdin_and_stdout(url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["-m", "serve.integrations.mcp_command", "--url", url]
    program = StdioServerParameters(command=sys.executable, args=words, env=environment)

    async def ask() -> Any:
        async with Client(program) as client:
            return await client.call_tool("search_entities", {"text": "entity 49"})

    assert not asyncio.run(ask()).is_error


def test_it_speaks_over_http(url: str) -> None:
    async def ask(address: str) -> Any:
        async with Client(f"{address}/mcp") as client:
            return await client.call_tool("entity", {"name": "entity 7"})

    with running(server(AsyncClient(url)).streamable_http_app(), lifespan="on") as address:
        assert asyncio.run(ask(address)).structured_content["name"] == "entity 7"


def test_an_address_that_is_none_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--url", "localhost"])
    assert "write http://host:port" in capsys.readouterr().err


def test_without_its_extra_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    monkeypatch.delitem(sys.modules, "serve.integrations.mcp_server")
    monkeypatch.delattr("serve.integrations.mcp_server")
    with pytest.raises(SystemExit, match=r"^seedset-mcp: .*pip install 'seedset\[mcp\]'"):
        mcp_command.main([])
