"""What tests of the page do and read in it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

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


class Keys:
    """A keyboard that counts what is pressed on it."""

    def __init__(self, tab: Page) -> None:
        self._tab, self.pressed = tab, 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self._tab.keyboard.press(key)
            self.pressed += 1


def paste(tab: Page, text: str) -> None:
    tab.evaluate("text => navigator.clipboard.writeText(text)", text)
    tab.locator("#search").focus()
    tab.keyboard.press("Control+V")


def seeds(tab: Page, side: str) -> list[str]:
    return tab.locator(f"#{side} .seed .name").all_inner_texts()
