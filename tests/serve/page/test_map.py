"""The map of a set on the page: drawn, moved, read and judged in, by keys alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.actions import Keys, focused, names, open_answer, rows, seeds

pytestmark = pytest.mark.browser

FEW = "#p=Japan&p=Thailand&n=Norway&k=12&method=retexpan"


def test_a_map_is_opened_moved_read_and_judged_in_by_keys(tab: Page) -> None:
    open_answer(tab, FEW)
    shown = names(tab)
    rows(tab).first.focus()
    keys = Keys(tab)
    keys.press("m")
    points = tab.locator("#map .map-point")
    expect(points).to_have_count(15)
    assert focused(tab) == "map-drawing"
    expect(tab.locator("#map .map-point.positive")).to_have_count(2)
    expect(tab.locator("#map .map-point.negative")).to_have_count(1)
    expect(tab.locator("#map-about")).to_contain_text(re.compile(r"15.entities.*The map shows \d+ %"))
    why = tab.locator("#map-why")
    expect(why.locator("h3")).to_have_text("Japan")
    expect(why.locator(".near.positive .name")).to_have_text("Thailand")  # not itself
    keys.press("j", "j", "j")
    expect(why.locator("h3")).to_have_text(shown[0])
    expect(why).to_contain_text("in the answer; place 1")
    expect(why.locator(".sentence mark")).to_have_text(shown[0])
    expect(tab.locator("#map .map-lines line")).to_have_count(2)
    where = points.nth(3).get_attribute("transform")
    keys.press("+", "ArrowLeft")
    assert points.nth(3).get_attribute("transform") != where
    keys.press("0")
    assert points.nth(3).get_attribute("transform") == where
    keys.press("a")
    expect(points.nth(3)).to_have_class(re.compile("positive"))
    expect(why.locator(".side.positive")).to_have_attribute("aria-pressed", "true")
    expect(tab.locator("#map-rows tr").nth(3)).to_contain_text("accepted")
    keys.press("Enter")
    expect(tab.locator("#details-title")).to_have_text(shown[0])
    keys.press("Escape", "Escape")
    expect(tab.locator("#map")).to_be_hidden()
    assert shown[0] in seeds(tab, "positive")


def test_the_table_says_what_the_map_shows_and_chooses_in_it(tab: Page) -> None:
    open_answer(tab, FEW)
    tab.locator("#show-map").click()
    tab.locator("#map-table summary").click()
    table = tab.locator("#map-rows tr")
    expect(table).to_have_count(15)
    expect(table.nth(2)).to_contain_text(re.compile(r"Norwayrejected(Japan|Thailand) -?0\.\d{3}–"))
    table.nth(2).get_by_role("button").click()
    expect(tab.locator("#map-why h3")).to_have_text("Norway")
    tab.locator("#map .cancel").click()
    tab.route("**/v1/map", lambda route: route.abort())
    tab.locator("#show-map").click()
    expect(tab.locator("#error-map")).to_contain_text("does not answer")


def test_views_of_a_plane_keep_what_is_looked_at(tab: Page) -> None:
    tab.goto("/")
    found = tab.evaluate(
        """async () => {
            const plane = await import(new URL("page/plane.js", document.baseURI));
            const [w, h] = [400, 200];
            const points = [{ x: -1, y: 0 }, { x: 3, y: 1 }];
            const whole = plane.wholeView(points, w, h);
            const at = { left: 300, top: 40 };
            const near = plane.zoomed(whole, 4, w, h, at);
            const [across, down] = [at.left - w / 2, at.top - h / 2];
            const back = ({ cx, cy, scale }) => [cx + across / scale, cy - down / scale];
            const aside = { x: 9, y: 9 };
            const corners = [[50, 50], [52, 50], [54, 51], [900, 50]];
            const places = corners.map(([left, top]) => ({ left, top, width: 40 }));
            return {
                places: points.map((point) => plane.placeOf(point, whole, w, h)),
                kept: [back(whole), back(near)],
                most: plane.zoomed(whole, 1e9, w, h).scale / whole.scale,
                moved: plane.placeOf(points[0], plane.moved(whole, 7, -5), w, h),
                shown: plane.placeOf(aside, plane.showing(whole, aside, w, h), w, h),
                same: plane.showing(whole, points[1], w, h) === whole,
                one: plane.wholeView([{ x: 2, y: 2 }], w, h).scale,
                labels: plane.labelled(places, w, h, 16),
            };
        }"""
    )
    first, second = found["places"]
    assert (first["left"], second["left"]) == pytest.approx((200 - 172, 200 + 172))
    assert first["top"] > second["top"], "up is more"
    assert found["kept"][0] == pytest.approx(found["kept"][1]), "what is under the pointer stays"
    assert found["most"] == 80
    assert (found["moved"]["left"], found["moved"]["top"]) == pytest.approx(
        (first["left"] + 7, first["top"] - 5)
    )
    assert found["shown"] == pytest.approx({"left": 200, "top": 100})
    assert found["same"]
    assert found["one"] > 0
    labels = found["labels"]
    assert labels[3] is None, "outside"
    written = [one for one in labels if one]
    assert len(written) >= 2
    for i, one in enumerate(written):
        for other in written[:i]:
            assert abs(one["left"] - other["left"]) >= 40 or abs(one["top"] - other["top"]) >= 16
