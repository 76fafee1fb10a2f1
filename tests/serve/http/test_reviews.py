"""Blind reviews over HTTP: the token's name is whose review it is, and answers are those of the document."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from serve.http.review_requests import Review, ReviewMarked, Reviews
from serve.http.routes import create_app
from serve.sets.access import LocalSets
from tests.support.services import MakeService


def test_a_review_belongs_to_the_token_that_began_it(make_service: MakeService, tmp_path: Path) -> None:
    tokens = {
        who: {"rights": "curate", "sha256": hashlib.sha256(who.encode()).hexdigest()}
        for who in ("bob", "eve")
    }
    client = TestClient(create_app(make_service(tokens=tokens), sets=LocalSets(tmp_path / "sets.sqlite")))

    def ask(who: str, method: str, path: str = "", status: int = 200, **given: Any) -> Any:
        answer = client.request(
            method, f"/v1/sets{path}", headers={"authorization": f"Bearer {who}"}, **given
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    made = ask("bob", "POST", json={"name": "evens"})
    judged = {"kind": "judge", "accept": ["entity 2", "entity 4"], "reject": ["entity 3"]}
    ask("bob", "POST", f"/{made['id']}/events", json={"version": 1, "change": judged})
    path = f"/{made['id']}/reviews"
    assert (
        ask("bob", "GET", path)
        == Reviews(round=0, version=0, entities=0, reviewers=[], agreement=None).model_dump()
    )

    begun = Review.model_validate(ask("eve", "POST", path, json={"by": "bob"}))
    assert (begun.curator, begun.round, len(begun.entities)) == ("eve", 1, 3)
    marks = {"round": 1, "accept": ["entity 2"], "reject": ["entity 3", "entity 4"]}
    assert "begun no review" in ask("bob", "POST", f"{path}/marks", 422, json=marks)["error"]["message"]
    twice = ask("eve", "POST", f"{path}/marks", 422, json={**marks, "reject": ["entity 2"]})["error"]
    assert (twice["field"], "at once" in twice["message"]) == ("reject", True)
    told = ReviewMarked.model_validate(ask("eve", "POST", f"{path}/marks", json={**marks, "done": True}))
    assert (told.judged, told.done) == (3, True)

    ask("bob", "POST", path, json={})
    assert ask("bob", "GET", path)["agreement"] is None
    seen = ask("bob", "POST", path, json={})["entities"]
    assert {one["accepted"] for one in seen} == {None}
    ask("bob", "POST", f"{path}/marks", json={"round": 1, "accept": ["entity 2", "entity 4"], "done": True})
    found = Reviews.model_validate(ask("bob", "GET", path))
    assert found.agreement is not None
    assert [(one.curators, one.judged, one.agreed) for one in found.agreement.pairs] == [
        (["bob", "eve"], 2, 1)
    ]
    assert [one.name for one in found.agreement.disagreements] == ["entity 4"]
    assert ask("bob", "DELETE", f"{path}?curator=eve", 422)["error"]["message"].startswith(
        "curator: 'eve' has no"
    )
    ask("bob", "GET", f"/{'0' * 32}/reviews", 404)
