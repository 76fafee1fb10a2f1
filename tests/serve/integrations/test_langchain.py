"""Test the retriever by LangChain's own interface of retrievers, against a real service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from serve.client import Client, ServiceError
from serve.http.routes import create_app
from serve.integrations.langchain import SeedsetRetriever
from tests.support.services import MakeService, running


@pytest.fixture(scope="module")
def url(make_service: MakeService) -> Iterator[str]:
    with running(create_app(make_service())) as address:
        yield address


def test_documents_are_the_entities_of_an_answer(url: str) -> None:
    retriever = SeedsetRetriever(url=url, k=3, negative=["entity 3"], options={"filter": {"parity": ["odd"]}})
    found = retriever.invoke("entity 1\n\n  entity 5 \n")
    with Client(url) as client:
        seeds = ["entity 1", "entity 5"]
        answer = client.expand(seeds, ["entity 3"], top_k=3, filter={"parity": ["odd"]}, explain=True)
    assert [one.metadata["name"] for one in found] == [one["name"] for one in answer["results"]]
    assert all(isinstance(one, Document) for one in found)
    first, result = found[0], answer["results"][0]
    assert first.page_content.split("\n")[0] == result["name"]
    assert result["explanation"]["sentences"][0]["text"] in first.page_content
    assert first.metadata["score"] == result["score"]
    assert first.metadata["positive"] == result["evidence"]["positive"]
    assert first.metadata["bundle"] == answer["bundle"]


def test_every_way_to_ask_brings_the_same(url: str) -> None:
    retriever = SeedsetRetriever(url=url, k=4)
    found = retriever.invoke("entity 1")
    assert len(found) == 4
    assert asyncio.run(retriever.ainvoke("entity 1")) == found
    assert retriever.batch(["entity 1", "entity 2"])[0] == found
    assert (retriever | RunnableLambda(len)).invoke("entity 1") == 4
    # What standard tests of retrievers ask for: k at construction, and at a call.
    assert len(retriever.invoke("entity 1", k=2)) == 2
    bare = SeedsetRetriever(url=url, k=1, explain=False).invoke("entity 1")
    assert bare[0].page_content == bare[0].metadata["name"]


def test_errors_are_the_services(url: str) -> None:
    retriever = SeedsetRetriever(url=url)
    with pytest.raises(ServiceError, match="did you mean 'entity 1'"):
        retriever.invoke("entty 1")
    with pytest.raises(ValueError, match="a name a line"):
        retriever.invoke(" \n")


def test_a_token_is_sent_and_not_shown(make_service: MakeService) -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # sha256 of "test"
    with running(create_app(make_service(tokens={"me": digest}))) as address:
        retriever = SeedsetRetriever(url=address, token="test", k=1)  # type: ignore[arg-type]
        assert len(retriever.invoke("entity 1")) == 1
        assert "test" not in repr(retriever)
        with pytest.raises(ServiceError, match="unauthorized"):
            SeedsetRetriever(url=address, token="other").invoke("entity 1")  # type: ignore[arg-type]
