"""Offer a service's expansion and search as tools of the Model Context Protocol.

``pip install 'seedset[mcp]'``, then

::

    seedset-mcp --url http://localhost:8000              # over stdin and stdout, as assistants start it
    seedset-mcp --url http://localhost:8000 --http 9000  # over HTTP, at http://127.0.0.1:9000/mcp

A token for the service is taken from SEEDSET_TOKEN.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
    from pydantic import BaseModel, Field
except ImportError as error:  # the script is there also where the client alone is installed
    raise ImportError(f"{error}; `pip install 'seedset[mcp]'` brings what the tools need") from None

from serve.client import AsyncClient, ServiceError

MOST = 200
"""Entities of one answer: more would fill an assistant's context."""

SENTENCES = 3
"""Sentences about an entity."""

INSTRUCTIONS = """
Completes sets of entities of one corpus. Look names up with search_entities first: only entities of the
corpus can be seeds. Then give expand a few members of the wanted set, and as negative seeds what is like
them but not wanted. Answers are ranked; `probability`, where there is one, is that an entity belongs.
"""

READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

Name = Annotated[str, Field(min_length=1, max_length=512)]
Seeds = Annotated[list[Name], Field(min_length=1, max_length=100, description="members of the wanted set")]
Unwanted = Annotated[list[Name] | None, Field(max_length=100, description="what is not wanted")]
Filter = Annotated[dict[str, list[str]] | None, Field(description="wanted values, by attribute")]


class Member(BaseModel):
    """An entity of an answer."""

    rank: int
    name: str
    score: float | None
    probability: float | None


class Expanded(BaseModel):
    """An answer: members, best first; how many of them are proposed as the set; what was left out."""

    members: list[Member]
    proposed: int | None
    degraded: list[str]


class FoundEntity(BaseModel):
    """An entity that was searched for."""

    name: str
    aliases: list[str]
    description: str


def server(client: AsyncClient) -> MCPServer[Any]:
    """Return the server of the tools, which ask a service; it closes the client when it ends.

    What the service refuses is a tool's error, in the service's words.
    """

    @asynccontextmanager
    async def life(_: MCPServer[Any]) -> AsyncIterator[None]:
        async with client:
            yield

    made: MCPServer[Any] = MCPServer("seedset", instructions=INSTRUCTIONS.strip(), lifespan=life)

    @made.tool(annotations=READS)
    async def expand(
        positive: Seeds,
        negative: Unwanted = None,
        top_k: Annotated[int, Field(ge=1, le=MOST)] = 20,
        filter: Filter = None,
    ) -> Expanded:
        """Find more entities like the positive seeds and unlike the negative ones, best first."""
        more: dict[str, Any] = {"filter": filter} if filter else {}
        answer = await _told(client.expand(positive, negative or (), top_k=top_k, **more))
        members = [
            Member(
                rank=one["rank"],
                name=one["name"],
                score=one["score"],
                probability=one["evidence"].get("probability"),
            )
            for one in answer["results"]
        ]
        proposed = answer["counts"].get("proposed")
        return Expanded(members=members, proposed=proposed, degraded=answer["degraded"])

    @made.tool(annotations=READS)
    async def search_entities(
        text: Annotated[Name, Field(description="a name, or words or parts of one, well spelt or not")],
        limit: Annotated[int, Field(ge=1, le=MOST)] = 10,
    ) -> list[FoundEntity]:
        """Find entities of the corpus by name, best first."""
        found = await _told(client.entities(text, limit, fields=("description",)))
        wanted = ("name", "aliases", "description")
        return [FoundEntity(**{field: one[field] for field in wanted}) for one in found]

    @made.tool(annotations=READS)
    async def entity(name: Name) -> dict[str, Any]:
        """Tell what the corpus holds of one entity: description, attributes, sentences, similar entities."""
        known = await _told(client.entity(name, sentences=SENTENCES))
        wanted = ("name", "aliases", "description", "attributes")
        return {
            **{field: known[field] for field in wanted},
            "sentences": [one["text"] for one in known["sentences"]],
            "neighbours": [one["name"] for one in known["neighbours"]],
        }

    return made


async def _told(asked: Any) -> Any:
    """Return what the service answers; what it refuses becomes the tool's error."""
    try:
        return await asked
    except ServiceError as error:
        hint = f" Did you mean: {', '.join(error.suggestions)}?" if error.suggestions else ""
        raise ToolError(f"{error.message}{hint}") from None


def main(given: Sequence[str] | None = None) -> None:
    """Run the server until its caller leaves, or over HTTP until it is stopped."""
    parser = argparse.ArgumentParser(prog="seedset-mcp", description="Tools of a served engine, over MCP.")
    parser.add_argument("--url", default="http://localhost:8000", help="the service's address")
    parser.add_argument("--http", type=int, metavar="PORT", help="listen on this machine, not on stdin")
    asked = parser.parse_args(given)
    try:
        made = server(AsyncClient(asked.url))
    except ValueError as error:
        parser.error(str(error))
    if asked.http is None:
        made.run("stdio")
    else:
        made.run("streamable-http", host="127.0.0.1", port=asked.http)
