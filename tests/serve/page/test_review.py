"""Blind opinions on the page: each judges alone, and how they agree is shown once nobody is left."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.actions import Keys, open_answer, seeds
from tests.serve.page.test_sets import keep, other, settled

__all__ = ["other"]  # the fixture

pytestmark = pytest.mark.browser


def judge_blind(tab: Page, who: str, accepted: set[str]) -> None:
    """Judge the set whose review is shown, by keys."""
    tab.locator("#review-curator").fill(who)
    tab.locator("#review-curator").press("Tab")
    rows = tab.locator("#review-rows > li")
    expect(rows).to_have_count(3)
    expect(tab.locator("#review-about")).to_contain_text(f"0 of 3\u00a0entities judged as {who}")
    assert set(rows.locator(".mark").all_inner_texts()) == {"not judged"}
    rows.first.focus()
    for place in range(3):
        tab.keyboard.press("a" if rows.nth(place).get_attribute("data-name") in accepted else "r")
        expect(tab.locator("#review-about")).to_contain_text(f"{place + 1} of 3")
    tab.once("dialog", lambda dialog: dialog.accept())
    tab.locator("#review-done").click()
    expect(tab.locator("#review-about")).to_contain_text(f"{who}, you are done")


def test_two_judge_a_set_and_see_nothing_of_each_other_before_both_are_done(tab: Page, other: Page) -> None:
    open_answer(tab)
    keep(tab, "judged blind")
    tab.locator("#set-agreement").click()
    expect(tab.locator("#reviews")).to_contain_text("There is none yet")
    tab.locator("#review-begin").click()
    expect(tab.locator("#agreement")).to_be_hidden()
    expect(tab.locator("#review-curator")).to_have_value("ada")
    judge_blind(tab, "ada", {"Japan", "Thailand"})
    Keys(tab).press("Escape")
    tab.locator("#set-agreement").click()
    expect(tab.locator("#reviews")).to_contain_text("ada is done")
    expect(tab.locator("#reviews")).to_contain_text("Blind until two or more are done")
    assert tab.locator("#review-figures").count() == 0

    other.goto("/")
    other.keyboard.press("o")
    other.get_by_role("button", name="Judge judged blind blind").click()
    expect(other.locator("#error-review")).to_contain_text("Say who you are first")
    judge_blind(other, "bob", {"Japan", "Norway"})
    assert other.locator("#positive .seed").count() == 0, "the set was not opened"

    Keys(tab).press("Escape")
    tab.locator("#set-agreement").click()
    expect(tab.locator("#review-figures li")).to_have_text(
        [
            re.compile(r"ada, bob: 1 of 3, kappa -0\.50"),
            re.compile(r"ada and the set: 3 of 3, kappa 1\.00"),
            re.compile(r"bob and the set: 1 of 3, kappa -0\.50"),
        ]
    )
    expect(tab.locator("#review-split li")).to_have_text(
        ["Norway: accepted by bob; rejected by ada", "Thailand: accepted by ada; rejected by bob"]
    )
    Keys(tab).press("Escape")
    assert (seeds(tab, "positive"), seeds(tab, "negative")) == (["Japan", "Thailand"], ["Norway"])
    settled(tab)
