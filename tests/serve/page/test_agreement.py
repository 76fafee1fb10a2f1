"""How far two curators agree, on the page: a second opinion by keys, figures, and where they do not."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.actions import Keys, open_answer, rows, seeds
from tests.serve.page.test_sets import keep, settled

pytestmark = pytest.mark.browser


def test_a_second_opinion_is_given_blind_and_compared(tab: Page) -> None:
    open_answer(tab)
    expect(tab.locator("#set-agreement")).to_be_hidden()
    keep(tab, "judged twice")
    rows(tab).first.focus()
    keys = Keys(tab)
    keys.press("g")
    expect(tab.locator("#agreement-about")).to_contain_text("No entity was judged by several curators yet")
    expect(tab.locator("#second-title")).to_have_text("Not judged by ada (0)")
    tab.locator("#agreement-curator").fill("bob")
    tab.locator("#agreement-curator").press("Tab")
    unseen = tab.locator("#second-opinions > li")
    expect(unseen).to_have_count(3)
    assert "accepted" not in tab.locator("#second-opinions").inner_text()
    judged = [unseen.nth(place).get_attribute("data-name") for place in range(3)]
    unseen.first.focus()
    for left, key in ((2, "a"), (1, "a"), (0, "a")):
        keys.press(key)
        expect(unseen).to_have_count(left)
    expect(tab.locator("#agreement-about")).to_contain_text(
        re.compile(r"3.entities were judged.* 2 of 3 \(67 %\)")
    )
    expect(tab.locator("#agreement-pairs tr")).to_have_text([re.compile(r"ada, bob2 of 3 \(67 %\)0\.00")])
    split = tab.locator("#disagreements > li")
    expect(split).to_have_count(1)
    expect(split).to_contain_text(
        re.compile("Norway.*ada rejected it.*bob accepted it.*In the set it is accepted")
    )
    assert "Norway" in judged
    assert set(seeds(tab, "positive")) == {"Japan", "Thailand", "Norway"}
    split.get_by_role("button", name="Reject Norway").click()
    expect(split).to_have_count(0)
    expect(tab.locator("#agreement-pairs tr")).to_have_text([re.compile("3 of 3.*1.00")])
    keys.press("Escape")
    assert seeds(tab, "negative") == ["Norway"]
    settled(tab)
