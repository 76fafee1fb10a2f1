"""A curator's whole way: from three seeds to a finished set, by keys alone, kept, exported, reopened."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from engine.storage.workspace import Workspace
from examples.tables import HERE
from serve.http.routes import create_app
from serve.sets.access import LocalSets
from tests.serve.page.actions import Keys, names, rows
from tests.serve.page.conftest import PATIENCE_MS
from tests.support.bundles import publish_vectors, write_entities
from tests.support.encoders import write_encoder
from tests.support.language_models import tiny_model
from tests.support.services import open_snapshot, running, service_maker

pytestmark = pytest.mark.browser

SEEDS = ("jap", "jam", "moro")
MOST_KEYS = 60


def countries() -> list[dict[str, str]]:
    """The sample's countries with their facts."""
    with (HERE / "facts" / "countries.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def countries_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The sample's countries, near each other by what they share, and more by what nobody asks for.

    No training: vectors are a part for each continent, government and sea access, and noise of twice that
    length, so that an answer is a fair way from the set.
    """
    facts = countries()
    random = np.random.default_rng(0)
    columns = ("continent", "government", "sea_access")
    parts = {(c, one[c]): random.normal(size=64) for c in columns for one in facts}
    shared = np.stack([np.sum([parts[c, one[c]] for c in columns], axis=0) for one in facts])
    vectors = shared + random.normal(size=shared.shape) * 2 * shared.std()
    known = [one["name"] for one in facts]

    def more(staged: Path) -> None:
        attributes = [{c: [one[c]] for c in columns if one[c]} for one in facts]
        write_entities(staged / "entities.parquet", known, attributes=attributes)
        write_encoder(staged / "encoder", 16, 0)

    folder = tmp_path_factory.mktemp("walk")
    bundle = publish_vectors(Workspace.open(folder), known, {"mask": vectors}, None, tiny_model(), more)
    service = service_maker(open_snapshot(bundle), bundle)()
    with running(create_app(service, sets=LocalSets(folder / "sets.sqlite"))) as url:
        yield url


def is_wanted(row_text: str) -> bool:
    """What the curator decides by: the row says that it is a monarchy, and not in Europe."""
    return "monarchy" in row_text and "Europe" not in row_text


def finish_by_keys(tab: Page, keys: Keys) -> None:
    """From an empty page to the set of all monarchies outside Europe."""
    keys.press("/")
    for start, letters in enumerate(SEEDS, 1):
        keys.press(*letters)
        expect(tab.locator("#completion-0")).to_be_visible()
        keys.press("Enter")
        expect(tab.locator("#positive .seed")).to_have_count(start)
    keys.press("Enter")  # in the empty box: expand
    answered(tab)
    keys.press("f")  # only what has the attributes that all three share
    answered(tab)
    for _ in range(2):  # those in Europe that stand high, until most of them stand low
        judge_first(tab, keys, 6)
        keys.press("e")
        answered(tab)
    judge_rest(tab, keys)


def answered(tab: Page) -> None:
    expect(tab.locator("#changed")).to_be_hidden()
    expect(tab.locator("#results")).not_to_have_attribute("aria-busy", "true")
    rows(tab).first.locator(".attributes").wait_for()


def decisions(tab: Page) -> list[bool]:
    return [is_wanted(text) for text in rows(tab).locator(".attributes").all_inner_texts()]


def judge_first(tab: Page, keys: Keys, n: int) -> None:
    for wanted in decisions(tab)[:n]:
        keys.press("a" if wanted else "r")


def judge_rest(tab: Page, keys: Keys) -> None:
    """Reject those among the wanted, then accept all down to the last of these at once."""
    wanted = decisions(tab)
    last = max((place for place, one in enumerate(wanted) if one), default=-1)
    place = 0
    while place < last:
        if not wanted[place]:
            keys.press("r")
            place += 1
        elif all(wanted[place : place + 10]) and place + 10 <= last:
            keys.press("Shift+J")
            place += 10
        else:
            keys.press("j")
            place += 1
    if last >= 0:
        keys.press("Shift+A")


def test_monarchies_outside_europe_are_finished_in_less_than_sixty_keys(
    chromium: Browser, countries_site: str
) -> None:
    expected = {
        one["name"] for one in countries() if one["government"] == "monarchy" and one["continent"] != "Europe"
    }
    context = chromium.new_context(base_url=countries_site, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    tab.goto("/")
    keys = Keys(tab)
    finish_by_keys(tab, keys)
    keys.press("n")
    name = tab.locator("#keep-name").input_value()
    keys.press("Enter")
    expect(tab.locator("#set-name")).to_have_text(name)
    expect(tab.locator("#keep-set")).to_be_hidden()
    with tab.expect_download() as download:
        keys.press("x")
    assert keys.pressed < MOST_KEYS
    text = download.value.path().read_text(encoding="utf-8").removeprefix("\ufeff")
    found = {row["name"] for row in csv.DictReader(io.StringIO(text)) if row["status"] == "accepted"}
    assert found == expected

    elsewhere = chromium.new_context(base_url=countries_site)
    elsewhere.set_default_timeout(PATIENCE_MS)
    other = elsewhere.new_page()
    other.goto("/")
    other.keyboard.press("o")
    other.locator("#open-list button", has_text=name).click()
    expect(other.locator("#positive-count")).to_have_text(f"({len(expected)})")
    other.locator("#results-title").wait_for()
    assert not expected & set(names(other))
    elsewhere.close()
    context.close()
