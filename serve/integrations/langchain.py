"""Retrieve entities like those named, as LangChain's documents (``pip install 'seedset[langchain]'``).

::

    retriever = SeedsetRetriever(url="http://localhost:8000", k=10)
    for document in retriever.invoke("Japan\\nThailand"):
        print(document.metadata["name"])
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, SecretStr

from serve.client import Answer, AsyncClient, Client


class SeedsetRetriever(BaseRetriever):
    """A retriever over one service. A query is the positive seeds, a name a line.

    A document is an entity: its name, and below it the sentences by which it is explained. Its metadata are
    ``id``, ``rank``, ``name``, ``score``, ``bundle``, and each kind of evidence.

    Raises (when it is asked):
        ServiceError: with what the service said.
    """

    url: str = Field(description="such as http://localhost:8000")
    token: SecretStr | None = Field(default=None, description="by default what SEEDSET_TOKEN holds")
    k: int = Field(default=10, ge=1, description="entities wanted")
    negative: list[str] = Field(default=[], description="seeds of what is not wanted")
    explain: bool = Field(default=True, description="with sentences")
    options: dict[str, Any] = Field(default={}, description="further fields of a query: method, filter …")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        with Client(self.url, self._token()) as client:
            return documents(client.expand(seeds(query), self.negative, **self._fields(k)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        async with AsyncClient(self.url, self._token()) as client:
            return documents(await client.expand(seeds(query), self.negative, **self._fields(k)))

    def _token(self) -> str | None:
        return self.token.get_secret_value() if self.token else None

    def _fields(self, k: int | None) -> dict[str, Any]:
        return {**self.options, "top_k": self.k if k is None else k, "explain": self.explain}


def seeds(query: str) -> list[str]:
    """Return the names of a query, one a line.

    Raises:
        ValueError: it has none.
    """
    found = [line.strip() for line in query.splitlines() if line.strip()]
    if not found:
        raise ValueError("the query names no entity: write a name a line")
    return found


def documents(answer: Answer) -> list[Document]:
    """Return the entities of an answer as documents, best first."""
    found = []
    for one in answer["results"]:
        sentences = [s["text"] for s in one.get("explanation", {}).get("sentences", ())]
        about = {"id": one["id"], "rank": one["rank"], "name": one["name"], "score": one["score"]}
        metadata = {**one["evidence"], **about, "bundle": answer["bundle"]}
        found.append(Document(page_content="\n".join((one["name"], *sentences)), metadata=metadata))
    return found
