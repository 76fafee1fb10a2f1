"""Call the HTTP service from programs: needs httpx only.

::

    from serve.client import Client

    with Client("http://localhost:8000") as client:                    # token: SEEDSET_TOKEN
        answer = client.expand(["Japan", "Thailand"], ["Norway"], top_k=10, explain=True)
        for result in answer["results"]:
            print(result["rank"], result["name"], result["score"])

        new = {"name": "Atlantia", "sentences": ["The king of Atlantia opened the parliament."]}
        client.expand(["Japan", new], filter={"continent": ["Asia", "Africa"]}, deadline_ms=500)

        for event, data in client.stream(["Japan"], method="genexpan"):
            if event == "round":
                print([entity["name"] for entity in data["new"]])

:class:`AsyncClient` has the same methods, which are awaited::

    async with AsyncClient("http://localhost:8000") as client:
        answer = await client.expand(["Japan"])

A query changes nothing, so one that was lost on its way is simply asked again.
"""

from __future__ import annotations

from serve.client.asynchronous import AsyncClient
from serve.client.calls import Seed
from serve.client.sync import Client
from serve.client.wire import Answer, Result, ServiceError

__all__ = ["Answer", "AsyncClient", "Client", "Result", "Seed", "ServiceError"]
