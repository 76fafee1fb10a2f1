"""What a token may not do is disabled on the page, with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serve.page.actions import ASKED, Keys, names, rows, seeds
from tests.serve.page.conftest import PATIENCE_MS, MakeSite
from tests.serve.page.test_sets import keep

pytestmark = pytest.mark.browser

REASON = "Your token may only read; this needs one that may curate."

OpenAs = Callable[[str, str], Page]


@pytest.fixture
def open_as(chromium: Browser, serve_site: MakeSite, tmp_path: Path) -> Iterator[OpenAs]:
    """Returns what opens a fragment with the token of a right; its name is the right, too."""
    digests = {right: hashlib.sha256(right.encode()).hexdigest() for right in ("read", "curate")}
    tokens = {right: {"rights": right, "sha256": digest} for right, digest in digests.items()}
    with serve_site(sets=tmp_path / "sets.sqlite", tokens=tokens) as closed:
        opened = []

        def open_page(right: str, fragment: str) -> Page:
            context = chromium.new_context(base_url=closed)
            opened.append(context)
            context.set_default_timeout(PATIENCE_MS)
            tab = context.new_page()
            tab.goto(f"/{fragment}")
            tab.locator("#token-text").fill(right)
            tab.keyboard.press("Enter")
            rows(tab).first.wait_for()
            return tab

        yield open_page
        for context in opened:
            context.close()


def test_who_may_only_read_is_told_what_is_missing(open_as: OpenAs) -> None:
    curating = open_as("curate", ASKED)
    expect(curating.locator("#rights")).to_be_hidden()
    expect(curating.locator("#set-keep")).not_to_have_attribute("aria-disabled", "true")
    address = keep(curating, "near Japan", curator="")
    kept = seeds(curating, "positive")

    tab = open_as("read", ASKED)
    expect(tab.locator("#rights")).to_contain_text("Your token, read, may only read")
    button = tab.locator("#set-keep")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_attribute("title", REASON)
    button.focus()
    for way in (lambda: tab.keyboard.press("Enter"), lambda: tab.locator("#results-title").press("n")):
        tab.evaluate("document.getElementById('announcer').textContent = ''")
        way()
        expect(tab.locator("#announcer")).to_have_text(REASON)
        expect(tab.locator("#keep-set")).to_be_hidden()

    sent: list[str] = []
    tab.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    tab.goto("/" + address.partition("/#")[2].join(["#", ""]))
    expect(tab.locator("#set-name")).to_have_text("near Japan")
    rows(tab).first.wait_for()
    expect(tab.locator("#set-state")).to_contain_text("what you judge here is not kept")
    expect(tab.locator("#why")).to_be_hidden()
    first = names(tab)[0]
    rows(tab).first.focus()
    keys = Keys(tab)
    keys.press("a")
    assert seeds(tab, "positive") == [*kept, first]
    keys.press("e")
    rows(tab).first.wait_for()
    keys.press("u")
    expect(tab.locator("#positive .seed")).to_have_count(len(kept))
    keys.press("h")
    expect(tab.locator("#events li")).not_to_have_count(0)
    undo = tab.get_by_role("button", name="Undo change 2")
    expect(undo).to_have_attribute("title", REASON)
    undo.click(force=True)  # as a mouse does; Playwright would wait until it is enabled
    expect(tab.locator("#set-delete")).to_have_attribute("aria-disabled", "true")
    tab.locator("#set-delete").click(force=True)
    keys.press("Escape", "o")
    expect(tab.locator("#import-set")).to_have_attribute("aria-disabled", "true")
    keys.press("Escape")
    assert not [one for one in sent if "/v1/sets" in one and not one.startswith("GET")]
    curating.reload()
    expect(curating.locator("#set-state")).to_contain_text("all is kept")
    assert seeds(curating, "positive") == kept


def test_the_name_of_the_token_is_the_curators(open_as: OpenAs) -> None:
    tab = open_as("curate", ASKED)
    rows(tab).first.focus()
    Keys(tab).press("n")
    expect(tab.locator("#keep-curator")).to_have_value("curate")
    expect(tab.locator("#keep-curator")).to_have_attribute("readonly", "")
