"""Every request of the documents is answered by a service, and every body is one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from serve.http.responses import ErrorAnswer
from tests.support.documents import PAGES, ROOT, blocks, command_lines

Request = tuple[str, str, str | None, str]
"""Place in the documents, path, body, method."""


def requests() -> Iterator[Request]:
    """Yield the requests of all pages: of curl, and of the function `post` that a page defines."""
    for page in PAGES:
        if page.stem == "quickstart":  # of another corpus: see test_quickstart
            continue
        for block in blocks(page, "bash"):
            for words in command_lines(block):
                if words[0] == "post":
                    yield block.place, f"/v1/{words[1]}", words[2], "POST"
                elif words[0] == "curl":
                    (address,) = [word for word in words if word.startswith("localhost:8000")]
                    split = urlsplit(f"http://{address}")
                    body = words[words.index("-d") + 1] if "-d" in words else None
                    plain = "GET" if body is None else "POST"
                    method = words[words.index("-X") + 1] if "-X" in words else plain
                    yield block.place, f"{split.path}?{split.query}", body, method


REQUESTS = list(requests())


@pytest.mark.parametrize(
    ("place", "path", "body", "method"), REQUESTS, ids=[f"{r[0]}{r[3]}{r[1]}" for r in REQUESTS]
)
def test_every_request_is_answered(place: str, path: str, body: str | None, method: str, url: str) -> None:
    if "/ID" in path:
        given = json.loads(body or "{}")
        later = given.get("version") == 2 or "/reviews" in path
        path = path.replace("/ID", f"/{a_set(url, 2 if later else 1)}")
        if path.endswith("/marks"):
            httpx.post(f"{url}{path.removesuffix('/marks')}", json={"by": given["by"]})
    if method == "DELETE":  # what another request has added
        name = path.partition("?")[0].rpartition("/")[2]
        httpx.put(f"{url}{path}", json={"sentences": [f"They say that {name} is there."]})
    if body is None:
        answer = httpx.request(method, f"{url}{path}")
    else:
        # The service is one process: a deadline of the examples would measure the machine.
        asked = {key: value for key, value in json.loads(body).items() if key != "deadline_ms"}
        answer = httpx.request(method, f"{url}{path}", json=asked)
    assert answer.status_code == 200, f"{place}: {answer.text}"
    assert answer.content


def a_set(url: str, version: int) -> str:
    """Make a set that is at a version; return its id."""
    made = httpx.post(f"{url}/v1/sets", json={"name": uuid.uuid4().hex}).json()["id"]
    if version == 2:
        judged = {"version": 1, "change": {"kind": "judge", "accept": ["Japan"], "reject": ["Norway"]}}
        httpx.post(f"{url}/v1/sets/{made}/events", json=judged)
    return str(made)


def test_requests_are_found() -> None:
    assert len(REQUESTS) >= 10
    assert any("deadline_ms" in (body or "") for _, _, body, _ in REQUESTS)


def test_the_error_that_is_shown_is_one(url: str) -> None:
    (shown,) = [b.code for b in blocks(ROOT / "docs" / "serving.md", "json") if b.title == "an error"]
    given = httpx.post(f"{url}/v1/expand", json={"positive": ["Japn"]}).json()
    one, other = ErrorAnswer.model_validate_json(shown).error, ErrorAnswer.model_validate(given).error
    assert (one.code, one.field) == (other.code, other.field)
    assert other.message.startswith(one.message.removesuffix("?"))
    assert one.suggestions[0] == other.suggestions[0]
