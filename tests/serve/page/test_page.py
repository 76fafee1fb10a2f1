"""The page in a real browser, over the real application."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.serve.page.conftest import ASTRAL, COMMA, FORMULA, HARD, MARKUP, ODD_ATTRIBUTES, MakeSite

pytestmark = pytest.mark.browser

ASKED = "#p=Japan&p=Thailand&n=Norway&k=200&method=retexpan"


def rows(tab: Page) -> Locator:
    return tab.locator("#results > li")


def names(tab: Page) -> list[str]:
    return tab.locator("#results > li > .name").all_text_contents()


def open_answer(tab: Page, fragment: str = ASKED) -> None:
    tab.goto(f"/{fragment}")
    rows(tab).first.wait_for()


def focused(tab: Page) -> str:
    return str(tab.evaluate("document.activeElement.id || document.activeElement.innerText"))


def type_seed(tab: Page, text: str, key: str = "Enter") -> None:
    tab.locator("#search").press_sequentially(text)
    tab.keyboard.press(key)


def seeds(tab: Page, side: str) -> list[str]:
    return tab.locator(f"#{side} .seed .name").all_inner_texts()


def test_a_query_by_keyboard_alone_from_search_to_a_second_answer(tab: Page) -> None:
    tab.goto("/")
    tab.keyboard.press("/")
    assert focused(tab) == "search"
    tab.locator("#search").press_sequentially("nor")
    expect(tab.locator("#completions li").first).to_have_text("Norway")
    expect(tab.locator("#search")).to_have_attribute("aria-activedescendant", "completion-0")
    tab.keyboard.press("Shift+Enter")
    tab.locator("#search").press_sequentially("swed")
    tab.locator("#add-negative").click()
    tab.locator('[aria-label="Remove Sweden"]').click()
    tab.locator("#search").press_sequentially("p")
    expect(tab.locator("#completions li").nth(1)).to_have_text("place 1")
    tab.keyboard.press("ArrowDown")
    expect(tab.locator("#completion-1")).to_have_attribute("aria-selected", "true")
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    type_seed(tab, "JAP")  # Enter comes before the list does
    type_seed(tab, "siam")
    expect(tab.locator("#positive .seed")).to_have_count(2)
    assert (seeds(tab, "positive"), seeds(tab, "negative")) == (["Japan", "Thailand"], ["Norway"])

    tab.locator("#expand").press("Enter")
    rows(tab).first.wait_for()
    first = names(tab)[:3]
    assert set(first) <= {"Vietnam", "Laos", "Nepal", "India"}
    tab.keyboard.press("Shift+Tab")  # a shortcut works wherever no text is typed
    tab.locator("#results > li").first.focus()
    tab.keyboard.press("a")
    tab.keyboard.press("r")
    expect(rows(tab).nth(0)).to_have_class(re.compile("accepted"))
    expect(rows(tab).nth(1)).to_have_class(re.compile("rejected"))
    assert seeds(tab, "positive") == ["Japan", "Thailand", first[0]]
    assert seeds(tab, "negative") == ["Norway", first[1]]
    assert first[2] in focused(tab)
    tab.keyboard.press("k")
    assert first[1] in focused(tab)
    tab.keyboard.press("e")
    expect(tab.locator("#changed")).to_be_hidden()
    assert not {first[0], first[1]} & set(names(tab))
    assert names(tab)[0] in focused(tab), "the focus goes on in the new list"


def test_evidence_is_shown_and_marked(tab: Page) -> None:
    open_answer(tab)
    row = rows(tab).nth(names(tab).index("Vietnam"))
    expect(row.locator(".near.positive")).to_have_text(
        re.compile(r"\+nearest positive seed (Japan|Thailand) 0\.\d{3}")
    )
    expect(row.locator(".near.negative")).to_have_text(
        re.compile(r"−nearest negative seed Norway -?0\.\d{3}")
    )
    assert row.locator(".sentence mark").first.inner_text() == "Vietnam"
    row.focus()
    expect(row.locator(".more .sentence")).to_have_text("𝔒nce Vietnam was there.")
    assert "segment" in row.locator(".numbers").inner_text()
    canvas = row.locator("canvas")
    expect(canvas).to_have_attribute("width", "4")  # the image's own, once it is drawn
    assert canvas.evaluate("c => [...c.getContext('2d').getImageData(2, 2, 1, 1).data]") == [192, 32, 32, 255]
    assert "bundle" in tab.locator("#about-answer").inner_text()


def test_seeds_are_undone_and_done_again(tab: Page) -> None:
    open_answer(tab)
    tab.keyboard.press("j")
    tab.keyboard.press("a")
    tab.locator('[aria-label="Make Norway a positive seed"]').click()
    assert focused(tab) == "+", "the same seed's button keeps the focus"
    assert "Norway" in seeds(tab, "positive")
    tab.locator("#undo").click()
    assert seeds(tab, "negative") == ["Norway"]
    tab.locator("#results > li").first.focus()
    tab.keyboard.press("u")
    assert seeds(tab, "positive") == ["Japan", "Thailand"]
    expect(tab.locator("#undo")).to_be_disabled()
    tab.keyboard.press("Shift+U")
    tab.keyboard.press("Shift+U")
    assert len(seeds(tab, "positive")) == 4
    tab.locator('[aria-label="Remove Japan"]').click()
    assert "Japan" not in seeds(tab, "positive")
    assert tab.evaluate("document.activeElement !== document.body")


def test_filters_choose_and_are_mended(tab: Page) -> None:
    open_answer(tab, "#p=Japan&k=20")
    tab.locator("#value").fill("Europ")
    tab.keyboard.press("Enter")
    tab.locator("#expand").click()
    tab.locator("#error-filter .suggestion").click()
    assert tab.locator("#filter .seed").all_inner_texts() == ["continent = Europe\n×"]
    assert focused(tab) == "expand"
    tab.keyboard.press("Enter")
    expect(rows(tab)).to_have_count(5)
    assert set(names(tab)) == {"Norway", "Sweden", "Finland", "Denmark", "Iceland"}
    tab.locator("#filter .remove").click()
    tab.locator("#expand").click()
    expect(rows(tab)).to_have_count(20)


def test_a_wrong_name_is_told_at_its_place_and_mended_by_a_click(tab: Page) -> None:
    tab.goto("/")
    type_seed(tab, "Japan")
    expect(tab.locator("#positive .seed")).to_have_count(1)
    type_seed(tab, "Tailand")
    expect(tab.locator("#positive .seed")).to_have_count(2)
    tab.locator("#expand").click()
    expect(tab.locator(".seed.wrong .name")).to_have_text("Tailand")
    expect(tab.locator("#error-seeds")).to_contain_text("unknown entity")
    tab.locator("#error-seeds .suggestion", has_text=re.compile("^Thailand$")).click()
    expect(tab.locator("#error-seeds")).to_be_empty()
    assert seeds(tab, "positive") == ["Japan", "Thailand"]
    tab.keyboard.press("Enter")
    rows(tab).first.wait_for()
    tab.locator("#top-k").fill("999999")
    tab.locator("#top-k").press("Enter")
    expect(tab.locator("#error-top-k")).to_contain_text("1000")


def refuse(tab: Page, status: int, error: dict[str, object]) -> None:
    """Let the server's answers to queries be this error, until the next call of `unroute_all`."""
    told = {"suggestions": [], "field": None, "message": "no", **error}
    headers = {"Retry-After": "3"} if status == 503 else {}
    tab.route("**/v1/expand*", lambda route: route.abort())
    tab.route(
        "**/v1/expand/stream",
        lambda route: route.fulfill(status=status, json={"error": told}, headers=headers),
    )


def test_what_the_server_refuses_now_can_be_asked_again(tab: Page) -> None:
    refuse(tab, 503, {"code": "overloaded", "message": "too much waits"})
    tab.goto(f"/{ASKED}")
    expect(tab.locator("#problem")).to_contain_text("too much waits. Try again in 3 s.")
    tab.unroute_all()
    tab.locator("#problem button").click()
    rows(tab).first.wait_for()
    assert tab.locator("#problem").is_hidden()
    refuse(tab, 422, {"code": "invalid_request", "field": "explain", "message": "nothing to explain by"})
    tab.locator("#expand").click()
    expect(tab.locator("#error-evidence")).to_contain_text("nothing to explain by")
    tab.unroute_all()
    tab.locator("#error-evidence button").click()
    expect(tab.locator("#error-evidence")).to_be_empty()
    expect(tab.locator(".near")).to_have_count(0)
    refuse(tab, 500, {"code": "internal", "message": "it broke", "id": "abc123"})
    tab.locator("#expand").click()
    expect(tab.locator("#problem")).to_have_text("it broke. (The log has it under abc123.)")


NOTE_ARRIVALS = """
window.shown = 0;
window.told = [];
new MutationObserver(() => {
  const names = [...document.querySelectorAll('#arrivals li')].filter((one) => one.checkVisibility());
  window.shown = Math.max(window.shown, names.length);
  const found = document.querySelector('#progress')?.textContent.match(/round \\d+, \\d+ found/);
  if (found) window.told.push(found[0]);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


def test_generation_is_watched_and_its_names_come_as_they_are_found(tab: Page) -> None:
    tab.add_init_script(NOTE_ARRIVALS)  # a small model may be done before a test can look
    tab.goto("/#p=Japan&n=Norway&k=30&method=genexpan")
    rows(tab).first.wait_for()
    assert tab.evaluate("window.shown") > 0
    stages = ["Generate", "SegmentRerank", "Explain"]
    expect(tab.locator("#steps li")).to_have_text([re.compile(stage) for stage in stages])
    assert tab.evaluate("window.told.length") > 0
    expect(tab.locator("#progress")).to_be_hidden()


def test_a_method_is_told_what_it_asks_for_and_its_reasoning_is_shown(tab: Page) -> None:
    tab.goto("/#p=Japan&k=5&method=retexpan")
    rows(tab).first.wait_for()
    expect(tab.locator("#class-name")).to_be_hidden()
    expect(tab.locator("#reasoning")).to_be_hidden()
    tab.locator("#method").select_option("genexpan+cot-class-given")
    expect(tab.locator("#shared")).to_be_hidden()
    tab.locator("#class-name").fill("countries of Asia")
    tab.locator("#expand").click()
    expect(tab.locator("#reasoning")).to_have_text("Classcountries of Asia")
    assert tab.url.endswith("method=genexpan%2Bcot-class-given&k=5&class=countries+of+Asia")
    tab.reload()
    expect(tab.locator("#class-name")).to_have_value("countries of Asia")
    expect(tab.locator("#reasoning")).to_have_text("Classcountries of Asia")


def test_an_attribute_that_is_given_twice_has_the_values_of_both(tab: Page) -> None:
    with tab.expect_request("**/v1/expand**") as asked:
        tab.goto("/#p=Japan&method=retexpan&shared=continent: Asia, Europe; continent: Africa; coast: yes")
    rows(tab).first.wait_for()
    shared = {"continent": ["Asia", "Europe", "Africa"], "coast": ["yes"]}
    assert json.loads(asked.value.post_data or "")["positive_attributes"] == shared


def test_a_running_request_is_stopped(chromium: Browser, serve_site: MakeSite) -> None:
    with serve_site(delay=600) as slow:
        tab = chromium.new_page(base_url=slow)
        tab.goto(f"/{ASKED}")
        expect(tab.locator("#stop")).to_be_visible()
        tab.locator("#stop").focus()
        with tab.expect_event("requestfailed", lambda request: "/v1/expand" in request.url):
            tab.keyboard.press("Enter")
        expect(tab.locator("#progress")).to_be_hidden()
        assert focused(tab) == "expand", "the button is gone, the focus is not"
        assert tab.locator("#problem").is_hidden()
        tab.close()


def test_without_streams_the_same_answer_comes(tab: Page) -> None:
    tab.route("**/v1/expand/stream", lambda route: route.abort())
    open_answer(tab)
    assert len(names(tab)) == 200


def test_csv_and_json_hold_what_was_found_and_judged(tab: Page) -> None:
    open_answer(tab)
    tab.keyboard.press("a")
    judged = names(tab)[0]
    for kind in ("csv", "json"):
        with tab.expect_download() as download:
            tab.locator(f"#save-{kind}").click()
        content = download.value.path().read_text(encoding="utf-8")
        tab.locator(f"#copy-{kind}").click()
        expect(tab.locator("#announcer")).to_have_text(f"Copied as {kind.upper()}")
        copied = tab.evaluate("navigator.clipboard.readText()")
        assert copied.splitlines() == content.removeprefix("\ufeff").splitlines()
        if kind == "csv":
            assert content.startswith("\ufeff")
            table = list(csv.DictReader(io.StringIO(copied)))
        else:
            whole = json.loads(content)
    assert [row["name"].removeprefix("'") for row in table[:200]] == names(tab)
    assert (table[0]["mark"], table[1]["mark"]) == ("accepted", "")
    by_name = {row["name"]: row["mark"] for row in table}
    assert f"'{FORMULA}" in by_name, "a spreadsheet shall not compute a name"
    assert by_name["Norway"] == "negative seed"
    assert table[0]["nearest_negative"] == "Norway"
    assert whole["results"][0]["name"] == judged
    assert [r["mark"] for r in whole["results"][:2]] == ["accepted", None]
    assert whole["seeds"] == {"positive": ["Japan", "Thailand", judged], "negative": ["Norway"]}
    assert whole["query"]["positive"] == ["Japan", "Thailand"]


def test_names_are_text_whatever_they_hold(tab: Page) -> None:
    open_answer(tab)
    assert set(HARD) <= set(names(tab))
    hard = rows(tab).nth(names(tab).index(ASTRAL))
    assert hard.locator("mark").first.text_content() == ASTRAL, "characters are counted, not UTF-16 units"
    tab.locator("#search").fill("<img")
    expect(tab.locator("#completion-0")).to_have_text(MARKUP)
    tab.keyboard.press("Enter")
    assert MARKUP in seeds(tab, "positive")
    tab.locator("#results > li > .name", has_text="<img").click()
    expect(tab.locator("#details h2")).to_have_text(MARKUP)
    assert tab.title() == "seedset"
    assert tab.locator("img").count() == 0
    tab.keyboard.press("Escape")
    tab.set_viewport_size({"width": 360, "height": 640})
    tab.locator("#search").fill("w" * 500)
    tab.keyboard.press("Enter")
    expect(tab.locator("#positive .seed")).to_have_count(4)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_the_address_holds_the_query(tab: Page) -> None:
    tab.goto("/")
    type_seed(tab, "Japan")
    expect(tab.locator("#positive .seed")).to_have_count(1)
    tab.locator("#describe").click()
    tab.locator("#new-name").fill("Atlantis & Co")
    tab.locator("#new-sentences").press("Control+Enter")
    tab.locator("#new-sentences").fill("Atlantis & Co sank.\nWho saw Atlantis & Co?")
    tab.locator("#new-entity button[value='-']").click()
    tab.locator("#top-k").fill("7")
    tab.keyboard.press("Tab")
    tab.locator("#method").select_option("retexpan")
    tab.locator("#evidence").uncheck()
    address = tab.url
    tab.goto("about:blank")
    tab.goto(address)
    expect(rows(tab)).to_have_count(7)
    assert seeds(tab, "positive") == ["Japan"]
    assert seeds(tab, "negative") == ["Atlantis & Co\nnew"]
    assert tab.locator("#method").input_value() == "retexpan"
    assert tab.locator(".near").count() == 0
    tab.evaluate("location.hash = '#p=Norway&k=3'")
    expect(rows(tab)).to_have_count(3)
    assert seeds(tab, "positive") == ["Norway"]


def test_an_entity_that_is_called_as_another_ones_id_does_not_stand_in_for_it(tab: Page) -> None:
    open_answer(tab)
    for name in ("Laos", "3"):  # the id of Laos is 3
        rows(tab).nth(names(tab).index(name)).locator("button.name").click()
        expect(tab.locator("#details h2")).to_have_text(name)
        expect(tab.locator("#details .description")).to_have_text(f"{name} is a place.")
        tab.keyboard.press("Escape")


def test_details_lead_on_to_neighbours(tab: Page) -> None:
    open_answer(tab)
    place = names(tab).index("Vietnam")
    rows(tab).nth(place).focus()
    tab.keyboard.press("Enter")
    details = tab.locator("#details")
    expect(details.locator(".description")).to_contain_text("is a place.")
    expect(details.locator(".facts")).to_contain_text("Asia")
    neighbour = details.locator("section li").first
    name = neighbour.locator(".name").inner_text()
    neighbour.locator(".side.positive").click()
    expect(neighbour.locator(".side.positive")).to_have_attribute(
        "aria-pressed", str(name != "Japan").lower()
    )
    neighbour.locator(".name").click()
    expect(details.locator("h2")).to_have_text(name)
    tab.keyboard.press("Escape")
    assert "Vietnam" in focused(tab)


def test_a_token_is_asked_for_once_and_kept_in_the_tab(chromium: Browser, serve_site: MakeSite) -> None:
    digest = hashlib.sha256(b"open sesame").hexdigest()
    with serve_site(tokens={"someone": digest}) as closed:
        tab = chromium.new_page(base_url=closed)
        tab.goto(f"/{ASKED}")
        for token, answer in (
            ("open\u200b sesame", "character 5 "),
            ("wrong", "does not take"),
            ("open sesame", ""),
        ):
            expect(tab.locator("#token")).to_be_visible()
            tab.locator("#token-text").fill(token)
            tab.keyboard.press("Enter")
            if answer:
                expect(tab.locator("#error-token")).to_contain_text(answer)
                assert token not in tab.locator("#token").inner_text()
        rows(tab).first.wait_for()
        assert tab.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        tab.reload()
        rows(tab).first.wait_for()
        assert tab.locator("#token").is_hidden()
        tab.close()


CONTROLS = {"button", "checkbox", "combobox", "link", "option", "spinbutton", "textbox"}
NAMED = CONTROLS | {"dialog", "image", "listbox", "main", "region", "search"}


def test_every_control_has_a_name_and_every_landmark_too(tab: Page) -> None:
    open_answer(tab, f"{ASKED}&f.continent=Asia")
    tree = tab.context.new_cdp_session(tab)
    steps: list[tuple[str, set[str]]] = [
        ("results", CONTROLS - {"textbox"} | {"main", "search"}),
        ("show-keys", {"dialog", "checkbox"}),
        ("describe", {"dialog", "textbox"}),
        ("name-0", {"dialog", "button"}),
    ]
    for opener, wanted in steps:
        if opener != "results":
            tab.locator(f"#{opener}").click()
            tab.locator("dialog[open]").wait_for()
        nodes = tree.send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node["ignored"] and node["role"]["value"] in NAMED]
        roles = {node["role"]["value"] for node in shown}
        assert roles >= wanted, opener
        assert [n["role"]["value"] for n in shown if not n.get("name", {}).get("value")] == []
        tab.keyboard.press("Escape")


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


def paste(tab: Page, text: str) -> None:
    tab.evaluate("text => navigator.clipboard.writeText(text)", text)
    tab.locator("#search").focus()
    tab.keyboard.press("Control+V")


LISTS = [
    ("Japan\nThailand\r\n\n  Laos \nJapan\n", ["Japan", "Thailand", "Laos"]),
    ("Japan, Thailand,Laos", ["Japan", "Thailand", "Laos"]),
    ("Japan\tThailand\nLaos\tNepal", ["Japan", "Thailand", "Laos", "Nepal"]),
    (f"{COMMA}\nJapan, Laos", [COMMA, "Japan", "Laos"]),
    ('"Springfield, Ohio",Laos;"a ""b"""', [COMMA, "Laos", 'a "b"']),
    ("日本橋、Japan，Laos", ["日本橋", "Japan", "Laos"]),
    ("\n".join(f"place {n}" for n in range(90)), [f"place {n}" for n in range(90)]),
]


def test_a_pasted_list_becomes_as_many_seeds(tab: Page) -> None:
    tab.goto("/")
    for text, expected in LISTS:
        paste(tab, text)
        expect(tab.locator("#positive .seed .name")).to_have_text(expected)
        expect(tab.locator("#search")).to_have_value("")
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
