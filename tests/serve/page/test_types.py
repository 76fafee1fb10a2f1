"""What the seeds are, and what each candidate has of that, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from engine.entity_types import TYPES, EntityTypes
from engine.storage.workspace import Workspace
from serve.http.routes import create_app
from tests.serve.page.actions import rows
from tests.support.bundles import publish_vectors
from tests.support.services import open_snapshot, running, service_maker

pytestmark = pytest.mark.browser

NAMES = ["Oslo", "Bergen", "Trondheim", "Norway", "Sweden", "Denmark"]
KINDS = ["place", "coastal_city", "country"]


@pytest.fixture
def typed_site(tmp_path: Path) -> Iterator[str]:
    """Three cities and three countries, all of them places; Denmark is nothing."""
    held = [(e, kind) for e in range(5) for kind in (0, 1 if e < 3 else 2)]
    entities, types = (np.array(column) for column in zip(*held, strict=True))
    found = EntityTypes.collect(KINDS, entities, types, np.full(len(held), 0.9), np.ones(6, np.int64))
    vectors = np.eye(6) + 1
    bundle = publish_vectors(
        Workspace.open(tmp_path / "w"),
        NAMES,
        {"mask": vectors},
        more=lambda staged: found.write(staged / TYPES),
    )
    with running(create_app(service_maker(open_snapshot(bundle), bundle)())) as url:
        yield url


def test_seeds_and_candidates_are_told_in_words(tab: Page, typed_site: str) -> None:
    tab.goto(f"{typed_site}/#p=Oslo&n=Norway&k=5&method=retexpan")
    rows(tab).first.wait_for()
    expect(tab.locator("#reasoning")).to_contain_text("Classplace")
    expect(tab.locator("#reasoning")).to_contain_text("Positive seeds: onescoastal city")
    for name, words in {
        "Bergen": ["place", "+as positive seeds: coastal city"],
        "Sweden": ["place", "−as negative seeds: country"],
        "Denmark": [],
    }.items():
        row = rows(tab).filter(has=tab.get_by_role("button", name=name, exact=True))
        row.focus()
        expect(row.locator(".more")).to_be_visible()
        expect(row.locator(".types .type")).to_have_text(words)
