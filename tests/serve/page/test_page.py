"""The page in a real browser, over the real application."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.serve.page.actions import ASKED, focused, names, open_answer, paste, rows, seeds, type_seed
from tests.serve.page.conftest import ASTRAL, FORMULA, HARD, MARKUP, MakeSite

pytestmark = pytest.mark.browser


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
    assert "group in the list" in row.locator(".numbers").inner_text()
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


def test_the_list_says_where_the_proposed_set_ends(tab: Page) -> None:
    def proposing(route: Route) -> None:
        response = route.fetch()
        text = response.text()
        assert '"counts":{}' in text
        text = text.replace('"counts":{}', '"counts":{"proposed":4}')
        route.fulfill(response=response, body=text.replace('"evidence":{', '"evidence":{"probability":0.5,'))

    open_answer(tab)
    expect(tab.locator("#results .end")).to_have_count(0)
    tab.route("**/v1/expand/stream", proposing)
    tab.reload()
    expect(rows(tab).nth(3).locator(".end")).to_have_text("the proposed set ends here")
    expect(tab.locator("#results .end")).to_have_count(1)
    expect(tab.locator("#judged")).to_contain_text(
        re.compile(r"(\d+) left, \1 of them unsure; of the 4 proposed 0 judged")
    )
    expect(tab.locator("#legend")).to_contain_text("a probability of 0.3 to 0.7")


def test_a_misspelt_name_is_offered_and_taken_only_once_it_was_seen(tab: Page) -> None:
    tab.goto("/")
    type_seed(tab, "Tailand")  # Enter comes before the list does
    expect(tab.locator("#completions li").first).to_have_text("Thailand")
    assert seeds(tab, "positive") == []
    tab.keyboard.press("Enter")
    assert seeds(tab, "positive") == ["Thailand"]
    tab.locator("#search").press_sequentially("sia")
    expect(tab.locator("#completions li").first.locator(".alias")).to_have_text("also Siam")


def test_of_a_pasted_list_what_is_not_known_is_matched_by_a_click(tab: Page) -> None:
    tab.goto("/")
    paste(tab, "Japan\nTailand\nAtlantis Minor\nSiam")
    expect(tab.locator("#positive .seed .name")).to_have_text(["Japan", "Thailand"])  # an alias is its entity
    unknown = tab.locator("#unmatched li")
    expect(unknown).to_have_count(2)
    unknown.first.get_by_role("button", name="Thailand").click()
    expect(unknown).to_have_count(1)
    tab.get_by_role("button", name="Leave them out").click()
    expect(tab.locator("#unmatched")).to_be_hidden()
    assert seeds(tab, "positive") == ["Japan", "Thailand"]
    content = "\ufeffLaos\r\nNepal,India\r\n".encode()
    tab.locator("#upload").set_input_files({"name": "list.csv", "mimeType": "text/csv", "buffer": content})
    expect(tab.locator("#positive .seed .name")).to_have_text(["Japan", "Thailand", "Laos", "Nepal", "India"])


def test_a_wrong_name_is_told_at_its_place_and_mended_by_a_click(tab: Page) -> None:
    tab.goto("/#p=Japan&p=Tailand")
    expect(tab.locator("#positive .seed")).to_have_count(2)
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
    stages = ["let the language model name", "what is like the rejected", "find the evidence"]
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
