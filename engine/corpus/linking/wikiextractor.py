"""Read texts as WikiExtractor leaves them (``--json --links``): a paragraph a line, links as in HTML."""

from __future__ import annotations

import html
import re

from engine.corpus.linking.markup import Link, MarkedText, without_entities

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)\b([^<>]*)>")
_HREF = re.compile(r"""\bhref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_ESCAPED = re.compile(r"&lt;a href=.{0,2000}?&lt;/a&gt;", re.DOTALL)


def read_wikiextractor(text: str) -> MarkedText:
    """Return a text without tags, and its links.

    Links whose own signs are written as entities (``&lt;a href=…``), as some versions write them, are links
    as well.
    """
    text = _ESCAPED.sub(lambda found: html.unescape(found.group()), text)
    pieces: list[str] = []
    links: list[Link] = []
    size = last = 0
    opened: tuple[int, str] | None = None
    for tag in _TAG.finditer(text):
        piece = _plain(text[last : tag.start()])
        pieces.append(piece)
        size, last = size + len(piece), tag.end()
        if tag[2].lower() != "a":
            continue
        if opened and opened[0] < size:
            links.append(Link(opened[0], size, opened[1]))
        target = None if tag[1] else _HREF.search(tag[3])
        opened = (size, without_entities("".join(filter(None, target.groups())))) if target else None
    pieces.append(_plain(text[last:]))
    return MarkedText("".join(pieces), links)


def _plain(text: str) -> str:
    """Return a piece between two tags: its characters, a blank line in the place of each line break."""
    return without_entities(text).replace("\n", "\n\n")
