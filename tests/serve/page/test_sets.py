"""Named sets on the page: kept, reopened elsewhere, undone, changed by two curators at once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serve.page.actions import ASKED, Keys, names, open_answer, paste, rows, seeds
from tests.serve.page.conftest import PATIENCE_MS

pytestmark = pytest.mark.browser


@pytest.fixture
def other(chromium: Browser, site: str) -> Iterator[Page]:
    """A tab of another profile."""
    context = chromium.new_context(base_url=site)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def keep(tab: Page, name: str, curator: str = "ada") -> str:
    """Keep what is judged under a name; return the address."""
    tab.locator("#results > li").first.focus()
    tab.keyboard.press("n")
    tab.locator("#keep-name").fill(name)
    if curator:
        tab.locator("#keep-curator").fill(curator)
    tab.keyboard.press("Enter")
    expect(tab.locator("#set-name")).to_have_text(name)
    expect(tab.locator("#keep-set")).to_be_hidden()
    settled(tab)
    return tab.url


def settled(tab: Page) -> None:
    expect(tab.locator("#set-state")).to_contain_text("all is kept")


def test_a_set_is_kept_reopened_in_another_browser_and_undone_there(tab: Page, other: Page) -> None:
    open_answer(tab)
    address = keep(tab, "near Japan")
    assert "set=" in address
    assert "Japan" not in address
    tab.locator("#why").fill("both in Asia")
    tab.locator("#results > li").first.focus()
    first, second = names(tab)[:2]
    tab.keyboard.press("a")
    tab.keyboard.press("r")
    expect(tab.locator("#set-state")).to_have_text("3 accepted, 2 rejected; version 4, all is kept")

    other.goto("/")
    other.keyboard.press("o")
    other.locator("#open-filter").fill("near j")
    expect(other.locator("#open-list li")).to_have_count(1)
    other.keyboard.press("Enter")
    rows(other).first.wait_for()
    assert seeds(other, "positive") == ["Japan", "Thailand", first]
    assert seeds(other, "negative") == ["Norway", second]
    assert other.locator("#method").input_value() == "retexpan"
    rows(other).first.focus()
    other.keyboard.press("u")
    expect(other.locator("#negative .seed")).to_have_count(1)
    settled(other)
    other.keyboard.press("h")
    shown = other.locator("#events li")
    expect(shown.first).to_contain_text("undid change")
    expect(other.locator("#events .undone")).to_contain_text(f"rejected {second}")
    expect(shown.filter(has_text=f"accepted {first}")).to_contain_text("both in Asia")
    shown.filter(has_text=f"accepted {first}").get_by_role("button").click()
    expect(other.locator("#positive .seed")).to_have_count(2)
    tab.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(tab.locator("#positive .seed")).to_have_count(2)
    expect(tab.locator("#set-conflict")).to_contain_text("undid change")

    tab.evaluate("location.hash = '#p=Norway&k=3&method=retexpan'")
    expect(rows(tab)).to_have_count(3)
    expect(tab.locator("#set-close")).to_be_hidden()
    tab.goto(address)
    expect(tab.locator("#positive .seed .name")).to_have_text(["Japan", "Thailand"])


def test_of_two_curators_both_changes_are_kept_and_contradictions_shown(tab: Page, other: Page) -> None:
    open_answer(tab)
    address = keep(tab, "two curators")
    other.goto(address)
    rows(other).first.wait_for()
    settled(other)
    ours, theirs, both = names(tab)[:3]
    for page, accepted, judged in ((other, theirs, "r"), (tab, ours, "a")):
        rows(page).nth(names(page).index(accepted)).focus()
        page.keyboard.press("a")
        rows(page).nth(names(page).index(both)).focus()
        page.keyboard.press(judged)
        settled(page)
    expect(tab.locator("#set-conflict")).to_contain_text(f"accepted {theirs}")
    assert set(seeds(tab, "positive")) == {"Japan", "Thailand", ours, theirs, both}
    other.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(other.locator("#positive .seed")).to_have_count(5)
    expect(other.locator("#negative .seed")).to_have_count(1)


def test_accepted_beyond_the_seeds_are_kept_and_not_shown_again(tab: Page) -> None:
    tab.goto("/#p=Japan&k=100&method=retexpan")
    rows(tab).first.wait_for()
    paste(tab, "\n".join(f"place {n}" for n in range(130)))
    expect(tab.locator("#positive-count")).to_have_text("(131, 50 of them as seeds)")
    with tab.expect_request("**/v1/expand/stream") as asked:
        tab.locator("#expand").click()
    body = json.loads(asked.value.post_data or "")
    assert (len(body["positive"]), len(body["exclude"]), body["top_k"]) == (50, 81, 100)
    assert not set(body["positive"]) & set(body["exclude"])
    expect(tab.locator("#changed")).to_be_hidden()
    expect(tab.locator("#results")).not_to_have_attribute("aria-busy", "true")
    assert not {f"place {n}" for n in range(130)} & set(names(tab))
    with tab.expect_download() as download:
        tab.locator("#set-csv").click()
    text = download.value.path().read_text(encoding="utf-8").removeprefix("\ufeff")
    assert len(list(csv.DictReader(io.StringIO(text)))) == 131


def test_all_above_are_accepted_in_one_step_and_rows_say_what_they_are(tab: Page) -> None:
    open_answer(tab, f"{ASKED}&f.continent=Asia")
    expect(rows(tab)).to_have_count(4)
    expect(rows(tab).first.locator(".attributes")).to_contain_text("Asia")
    expect(tab.locator("#shared-values")).to_have_text("continent Asia")
    expect(tab.locator("#judged")).to_have_text("0 of 4 judged: 0 accepted, 0 rejected; 4 left")
    first = names(tab)
    keys = Keys(tab)
    rows(tab).first.focus()
    keys.press("r", "j", "Shift+A")
    expect(tab.locator("#judged")).to_have_text("3 of 4 judged: 2 accepted, 1 rejected; 1 left")
    expect(tab.locator("#judged-share")).to_have_js_property("value", 3)
    assert seeds(tab, "positive") == ["Japan", "Thailand", *first[1:3]]
    assert seeds(tab, "negative") == ["Norway", first[0]]
    keys.press("u")
    assert seeds(tab, "positive") == ["Japan", "Thailand"]
    expect(tab.locator("#order")).to_be_disabled()  # this method says of none how sure it is
    keys.press("r", "e")
    expect(tab.locator("#shared-values")).to_have_text("continent Asia (2 of 3 rejected, too)")


def test_a_name_that_is_taken_is_told_and_nothing_is_lost(tab: Page) -> None:
    open_answer(tab)
    keep(tab, "taken")
    tab.locator("#set-close").click()
    rows(tab).first.focus()
    tab.keyboard.press("n")
    tab.locator("#keep-name").fill("TAKEN")
    tab.keyboard.press("Enter")
    expect(tab.locator("#error-keep")).to_contain_text("there is a set")
    tab.keyboard.press("Escape")
    assert seeds(tab, "positive") == ["Japan", "Thailand"]
    tab.route("**/v1/sets/*/events", lambda route: route.abort())
    rows(tab).first.focus()
    tab.keyboard.press("o")
    tab.locator("#open-list button", has_text="taken").click()
    expect(tab.locator("#set-name")).to_have_text("taken")
    rows(tab).first.focus()
    tab.keyboard.press("a")
    expect(tab.locator("#set-problem")).to_contain_text("Not kept")
    tab.unroute_all()
    tab.locator("#set-problem button").click()
    expect(tab.locator("#set-problem")).to_be_empty()
    expect(tab.locator("#set-state")).to_contain_text("3 accepted")
