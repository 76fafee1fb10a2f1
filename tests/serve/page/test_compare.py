"""Two answers side by side, and what an answer's entities have, as conditions."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.actions import Keys, focused, names, open_answer, rows, seeds

pytestmark = pytest.mark.browser

FEW = "#p=Japan&p=Thailand&n=Norway&k=12&method=retexpan"


def settled(tab: Page) -> None:
    expect(tab.locator("#changed")).to_be_hidden()
    expect(tab.locator("#results")).not_to_have_attribute("aria-busy", "true")


def test_the_answer_before_and_another_method_stand_side_by_side(tab: Page) -> None:
    open_answer(tab, FEW)
    before = names(tab)
    rows(tab).first.focus()
    keys = Keys(tab)
    keys.press("r", "e")
    settled(tab)
    after = names(tab)
    keys.press("c")
    assert focused(tab).startswith("compare-left")
    table = tab.locator("#compare-rows tr")
    expect(table).to_have_count(len({*before, *after}))
    first = table.filter(has=tab.get_by_role("button", name=before[0], exact=True))
    expect(first).to_contain_text(re.compile("1–only leftrejected"))
    both = len({*before[:10]} & {*after[:10]})
    expect(tab.locator("#compare-about")).to_contain_text(f"of the first 10: {both} in both")
    tab.locator("#compare-show-right").click()
    expect(table).to_have_count(len({*after} - {*before}))
    tab.locator("#compare-show-both").click()
    table.first.focus()
    keys.press("j", "a")
    judged = table.nth(1).locator(".name").inner_text()
    expect(table.nth(1)).to_contain_text("accepted")
    assert judged in seeds(tab, "positive")
    tab.locator("#compare-right").select_option("retexpan-negative")
    expect(tab.locator("#compare-right option:checked")).to_contain_text(
        "retexpan-negative, 3 seeds, 2 rejected"
    )
    keys.press("Escape")
    expect(tab.locator("#compare")).to_be_hidden()
    assert names(tab) == after, "the list is still that of the page's own method"


def test_agreement_and_moves_are_those_of_a_plain_count(tab: Page) -> None:
    tab.goto("/")
    found = tab.evaluate(
        """async () => {
            const { compared } = await import(new URL("page/compare.js", document.baseURI));
            const letters = (text) => [...text];
            return [["abcd", "bax"], ["", "a"], ["abcdefghijkl", "lbcdefghijka"]].map(
                ([left, right]) => compared(letters(left), letters(right)));
        }"""
    )
    whole, none, long = found
    places = [(row["name"], row["left"], row["right"]) for row in whole["rows"]]
    assert places == [
        *(("a", 1, 2), ("b", 2, 1), ("c", 3, None), ("x", None, 3), ("d", 4, None)),
    ]
    assert whole["agreement"] == [{"k": 3, "both": 2}]
    assert none["agreement"] == []
    assert long["agreement"] == [{"k": 10, "both": 9}, {"k": 12, "both": 12}]


def test_what_the_results_have_is_a_condition_by_a_click(tab: Page) -> None:
    open_answer(tab, FEW)
    tab.locator("#facets summary").click()
    asian = tab.locator("#facet-rows .facet", has_text="Asia")
    expect(asian).to_have_text("Asia 4")
    expect(asian).to_have_attribute("aria-label", "Asia: 4 of the results, 6 of all; show only these")
    asian.click()
    expect(rows(tab)).to_have_count(4)
    expect(tab.locator("#filter .seed")).to_have_text(re.compile("continent = Asia"))
    expect(asian).to_have_attribute("aria-pressed", "true")
    asian.click()
    expect(rows(tab)).to_have_count(12)
    expect(tab.locator("#filter .seed")).to_have_count(0)
