"""The page in a browser where input or surroundings are odd: lists, input methods, no storage, a proxy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serve.page.actions import ASKED, names, open_answer, paste, rows, seeds, type_seed
from tests.serve.page.conftest import COMMA, ODD_ATTRIBUTES, MakeSite

pytestmark = pytest.mark.browser


def test_of_many_results_only_what_is_seen_is_drawn_and_judging_redraws_none(tab: Page) -> None:
    open_answer(tab)
    drawn = rows(tab).evaluate_all(
        "all => all.filter(e => e.firstChild.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert 0 < drawn < 60, "rows out of sight cost nothing"
    kept = rows(tab).nth(0).element_handle()
    tab.keyboard.press("a")
    tab.keyboard.press("u")
    assert kept.evaluate("row => row.isConnected"), "a row that is built anew loses the focus"


def test_an_attribute_may_be_called_anything(tab: Page) -> None:
    tab.goto("/#p=Japan&k=20")
    rows(tab).first.wait_for()
    for attribute in ODD_ATTRIBUTES:
        tab.locator("#attribute").select_option(attribute)
        tab.locator("#value").fill("odd")
        tab.locator("#add-condition").click()
        assert f"f.{attribute}=odd" in tab.url
    conditions = tab.locator("#filter .seed")
    assert conditions.all_inner_texts() == [f"{attribute} = odd\n×" for attribute in ODD_ATTRIBUTES]
    tab.locator("#expand").click()
    expect(rows(tab)).to_have_count(3)
    tab.locator('[aria-label="Remove the condition __proto__ = odd"]').click()
    expect(conditions).to_have_count(2)
    tab.goto("/#p=Japan&k=20&f.constructor=add")
    tab.locator("#error-filter .suggestion", has_text="odd").click()
    assert conditions.all_inner_texts() == ["constructor = odd\n×"]


KEY = """([id, init]) => document.getElementById(id).dispatchEvent(
  new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...init }))"""


def test_enter_that_ends_a_composition_takes_nothing(tab: Page) -> None:
    tab.goto("/")
    tab.locator("#value").fill("Asia")
    tab.locator("#search").fill("日本")
    expect(tab.locator("#completion-0")).to_have_text("日本橋")
    for composing in ({"isComposing": True}, {"keyCode": 229}):
        for element in ("search", "value"):
            assert tab.evaluate(KEY, [element, composing]), "the key is left to the input method"
    expect(tab.locator("#search")).to_have_value("日本")
    assert (seeds(tab, "positive"), tab.locator("#filter .seed").count()) == ([], 0)
    for element in ("search", "value"):
        assert not tab.evaluate(KEY, [element, {"keyCode": 13}])
    expect(tab.locator("#positive .seed .name")).to_have_text("日本橋")
    assert tab.locator("#filter .seed").count() == 1


LISTS = [
    ("Japan\nThailand\r\n\n  Laos \nJapan\n", ["Japan", "Thailand", "Laos"]),
    ("Japan, Thailand,Laos", ["Japan", "Thailand", "Laos"]),
    ("Japan\tThailand\nLaos\tNepal", ["Japan", "Thailand", "Laos", "Nepal"]),
    (f"{COMMA}\nJapan, Laos", [COMMA, "Japan", "Laos"]),
    ('"Springfield, Ohio",Laos;" place ""7"""', [COMMA, "Laos"]),
    ("日本橋、Japan，Laos", ["日本橋", "Japan", "Laos"]),
    ("\n".join(f"place {n}" for n in range(90)), [f"place {n}" for n in range(90)]),
]


def test_a_pasted_list_is_accepted_as_far_as_it_is_known(tab: Page) -> None:
    tab.goto("/")
    for text, expected in LISTS:
        paste(tab, text)
        expect(tab.locator("#positive .seed .name")).to_have_text(expected)
        expect(tab.locator("#search")).to_have_value("")
        unknown = tab.locator("#unmatched li bdi").first
        if '"' in text:
            expect(unknown).to_have_text('place "7"')
        else:
            expect(unknown).to_be_hidden()
        tab.locator("#undo").click()
        assert seeds(tab, "positive") == []


def test_one_pasted_name_stays_in_the_box_and_none_is_cut(tab: Page) -> None:
    tab.goto("/")
    for text in ("Japan", COMMA, "Laos\n"):
        paste(tab, text)
        expect(tab.locator("#search")).to_have_value(text.strip())
        expect(tab.locator("#completion-0")).to_have_text(text.strip())
        tab.locator("#search").fill("")
    paste(tab, "x" * 513)
    expect(tab.locator("#error-seeds")).to_contain_text("at most 512 characters, and this one 513")
    assert (tab.locator("#search").input_value(), seeds(tab, "positive")) == ("", [])


BROKEN = """
history.replaceState = () => { throw new DOMException("too often", "SecurityError"); };
Object.defineProperty(window, "sessionStorage", { get() { throw new DOMException("no", "SecurityError"); } });
"""


def test_without_storage_and_history_the_page_works(chromium: Browser, serve_site: MakeSite) -> None:
    digest = hashlib.sha256(b"open sesame").hexdigest()
    with serve_site(tokens={"someone": digest}) as closed:
        tab = chromium.new_page(base_url=closed)
        broken: list[str] = []
        tab.on("pageerror", lambda error: broken.append(str(error)))
        tab.add_init_script(BROKEN)
        tab.goto(f"/{ASKED}")
        tab.locator("#token-text").fill("open sesame")
        tab.keyboard.press("Enter")
        rows(tab).first.wait_for()
        tab.locator('[aria-label="Remove Japan"]').click()
        expect(tab.locator("#changed")).to_be_visible()
        tab.locator("#expand").click()
        expect(tab.locator("#changed")).to_be_hidden()
        assert broken == []
        tab.close()


def test_an_answer_to_another_question_is_marked(tab: Page) -> None:
    open_answer(tab, "#p=Japan&k=20&method=retexpan")
    note, again = tab.locator("#changed"), tab.locator("#again")

    def fill(element: str, text: str) -> None:
        tab.locator(element).fill(text)
        tab.keyboard.press("Enter")

    changes: list[tuple[str, Callable[[], object]]] = [
        ("method", lambda: tab.locator("#method").select_option("retexpan+cds")),
        ("time", lambda: tab.locator("#within").select_option("30000")),
        ("evidence", lambda: tab.locator("#evidence").uncheck()),
        ("conditions", lambda: fill("#value", "Asia")),
        ("seeds", lambda: tab.locator('[aria-label="Make Japan a negative seed"]').click()),
        ("seeds", lambda: type_seed(tab, "Laos")),
    ]
    for part, change in changes:
        change()
        expect(note).to_contain_text(part)
        expect(tab.locator("#results")).to_have_class(re.compile("stale"))
        if not seeds(tab, "positive"):
            continue
        again.click()
        expect(note).to_be_hidden()
        expect(tab.locator("#results")).not_to_have_class(re.compile("stale"))
    tab.locator("#undo").click()
    tab.locator("#evidence").check()
    tab.locator("#top-k").fill("7")
    tab.keyboard.press("Tab")
    expect(note).to_contain_text("seeds, number of results, and evidence")


def test_behind_a_prefix_that_a_proxy_takes_away_images_load(tab: Page) -> None:
    tab.route(re.compile("^http://[^/]+/(?!behind/)"), lambda route: route.abort())
    tab.route(
        "**/behind/**",
        lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/behind/", "/"))),
    )
    tab.goto(f"/behind/{ASKED}")
    rows(tab).first.wait_for()
    rows(tab).nth(names(tab).index("Vietnam")).focus()
    expect(rows(tab).locator("canvas").first).to_have_attribute("width", "4")


def test_numbers_do_not_break_inside(tab: Page) -> None:
    open_answer(tab)
    tab.set_viewport_size({"width": 320, "height": 640})
    broken = """all => all.filter(e => e.firstChild && getComputedStyle(e).whiteSpace !== "nowrap").length"""
    numbers = tab.locator("#results .score, #results .rank, #results .numbers dd, #results .near")
    assert numbers.count() > 10
    assert numbers.evaluate_all(broken) == 0
    assert re.search(r"\d\u00a0m?s\b", tab.locator("#about-answer").text_content() or "")


def test_what_of_the_address_is_not_understood_is_told(tab: Page) -> None:
    told = tab.locator("#unread")
    for address in (
        "/?p=Japan",
        "/#p=Japan&methd=joint&k=2",
        "/#p=Japan&k=many",
        "/#p=Japan&k=2&k=3",
        "/#q=Japan",
    ):
        tab.goto("about:blank")
        tab.goto(address)
        expect(told).to_contain_text("not understood")
    expect(told).to_contain_text("q=Japan")
    tab.goto("about:blank")
    tab.goto("/#p=Japan&n=Norway&k=2&method=retexpan&within=1000&evidence=off&f.continent=Asia")
    expect(rows(tab)).to_have_count(2)
    assert told.is_hidden()
