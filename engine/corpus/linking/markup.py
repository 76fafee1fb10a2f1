"""Define texts whose links mark mentions: plain text, and the places of the links in it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

Markup = Literal["none", "wikitext", "wikiextractor"]
"""What texts are written in: nothing that marks mentions, MediaWiki's markup, what WikiExtractor leaves."""

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


class Link(NamedTuple):
    """A link of a text.

    Args:
        start, end: characters of the plain text that are the link, end exclusive.
        target: title of the page that it leads to, as it is written.
    """

    start: int
    end: int
    target: str


class MarkedText(NamedTuple):
    """A text without its markup, paragraphs apart by a blank line; and its links, in order."""

    text: str
    links: list[Link]


ReadMarkup = Callable[[str], MarkedText]
"""A reader of a text with markup."""


def without_entities(text: str) -> str:
    """Return a text with the characters that HTML's entities (``&amp;``) stand for.

    Only those that end in a semicolon: what merely begins like one ("AT&T") stays.
    """
    return text if "&" not in text else _ENTITY.sub(lambda found: html.unescape(found.group()), text)
