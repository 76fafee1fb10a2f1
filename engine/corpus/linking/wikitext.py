"""Read MediaWiki's markup (wikitext): plain text, and the places of its links.

What a reader of the page would see as running text stays. Templates, tables, references, headings, files with
their captions, categories and links to other languages are left out: no template is expanded. What is written
wrongly (brackets that are never closed) stays as text, without the brackets.

Why not mwparserfromhell (0.7.2, with its C tokenizer): a reader over its tree finds the same links in the
same places on 1,000 well-formed pages, but parses 8,700 sentences/s on a core where this module reads 56,000
and the link is to reach 20,000. Its time grows with the square of signs that are never closed (8,000 times
``<ref>`` take 1.8 s, 100,000 more than a minute), so that one broken page holds up a job. And its nodes know
no places in the text that is shown: most of what is here would be needed on top of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

from engine.corpus.linking.languages import is_wiki_of_language
from engine.corpus.linking.markup import Link, MarkedText, without_entities

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_NOWIKI, _END_NOWIKI = (re.compile(rf"<{tag}\s*>", re.IGNORECASE) for tag in ("nowiki", "/nowiki"))
_MARKUP = re.compile(r"[\[\]{}|<>'=*#:;_!-]")

_HIDDEN = (
    "ref|references|math|chem|ce|gallery|timeline|syntaxhighlight|source|score|pre|imagemap|hiero|graph|mapframe|"
    "maplink|indicator|templatestyles|templatedata|categorytree|inputbox|style|script"
)
"""Elements whose content is no running text."""
_ELEMENT = re.compile(rf"<(/?)({_HIDDEN})\b([^<>]*)>", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"</?(?:p|div|li|ul|ol|dl|dd|dt|blockquote|center|table|tr|td|th|h[1-6]|hr)\b[^<>]*>", re.I
)
_BREAK_TAG = re.compile(r"<br\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")

_BRACES = re.compile(r"\{{2,}|\}{2,}|^[ \t:]*\{\|(?!\})|^[ \t]*\|\}(?!\})", re.MULTILINE)
_SWITCH = re.compile(r"__[^\W\d_a-z]{3,}__")
_LINE = re.compile(r"^(?:(=[^\n]*=[ \t]*|-{4,}[ \t]*)$|([*#:;]+[ \t]*)([^\n]*)$)", re.MULTILINE)
_QUOTES = re.compile("'{2,}")
_EXTERNAL = re.compile(r"(?<!\[)\[(?:[a-z]{2,10}:)?//[^\s\[\]]+[ \t]*([^\[\]\n]*)\](?!\])", re.IGNORECASE)
_BRACKETS = re.compile(r"\[\[|\]\]")
_QUALIFIER = re.compile(r" *\([^()]*\) *$")
_TRAIL = regex.compile(r"\p{Ll}+")
"""Letters that belong to the link in front of them, in scripts that have small letters."""

DEPTH = 16
"""Brackets within each other that are looked at: a file's caption has links, and hardly ever another file."""

_REDIRECT = re.compile(
    r"\s*#(?:redirect|weiterleitung|redirection|redirección|redirecionamento|rinvia|doorverwijzing|patrz|"
    r"omdirigering|omdiriger|ohjaus|uudelleenohjaus|átirányítás|přesměruj|yönlendi̇?rme|перенаправление|"
    r"перенапр|перенаправлення|تحويل|重定向|转向|転送|リダイレクト|넘겨주기)\s*:?\s*\[\[",
    re.IGNORECASE,
)

_LEFT_OUT_NAMES = (
    "file image media datei bild fichier archivo imagen immagine ficheiro imagem bestand "
    "afbeelding plik grafika файл изображение зображення fil tiedosto kuva soubor fájl "
    "kép dosya resim ملف صورة קובץ תמונה ファイル 画像 文件 图像 檔案 圖像 파일 그림 "
    "category kategorie catégorie categoría categoria categorie kategoria категория "
    "категорія kategori luokka kategória تصنيف קטגוריה カテゴリ 分类 分類 분류 "
)
_LEFT_OUT = frozenset(_LEFT_OUT_NAMES.split())
"""Namespaces, in several languages, of links that are no text: files and categories."""


class _Frame:
    """What stands behind brackets that are not closed yet: pieces of text, and the links in it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.links: list[Link] = []
        self.size = 0

    def add(self, text: str) -> None:
        """Add a piece of text."""
        self.pieces.append(text)
        self.size += len(text)

    def add_link(self, text: str, target: str) -> None:
        """Add a link's text."""
        self.links.append(Link(self.size, self.size + len(text), target))
        self.add(text)

    def add_frame(self, frame: _Frame) -> None:
        """Add all of another one."""
        self.links += (Link(self.size + a, self.size + b, target) for a, b, target in frame.links)
        self.pieces += frame.pieces
        self.size += frame.size


def read_wikitext(text: str) -> MarkedText:
    """Return the running text of a page's markup, and its links; a page that is a redirect has none.

    A link's text goes on with the small letters behind it, as it is shown: ``[[lion]]s``.
    """
    if _REDIRECT.match(text):
        return MarkedText("", [])
    text = _COMMENT.sub("", text.replace("\r\n", "\n"))
    for strip in (_with_literals, _without_elements, _without_braces, _without_lines, _without_signs):
        text = strip(text)
    return _resolved(text)


def _with_literals(text: str) -> str:
    """Write what is literal (``<nowiki>``) with entities, so that nothing takes it for markup."""
    *closed, rest = _END_NOWIKI.split(text)
    pieces: list[str] = []
    for piece in closed:
        before, *literal = _NOWIKI.split(piece, maxsplit=1)
        pieces += before, *(_MARKUP.sub(_escaped, text) for text in literal)
    return "".join([*pieces, rest])


def _escaped(found: re.Match[str]) -> str:
    """Return a sign of the markup as an entity."""
    return f"&#{ord(found.group())};"


def _without(text: str, spans: Iterator[tuple[int, int]]) -> str:
    """Return a text without places of it, which are in order and may lie within each other."""
    kept, last = [], 0
    for start, end in spans:
        if start > last:
            kept.append(text[last:start])
        last = max(last, end)
    return "".join([*kept, text[last:]])


def _without_elements(text: str) -> str:
    """Leave out the elements whose content is no text; of one that is never closed the tag alone."""
    return _without(text, _hidden(text)) if _ELEMENT.search(text) else text


def _hidden(text: str) -> Iterator[tuple[int, int]]:
    closed = {tag[2].lower(): tag.start() for tag in _ELEMENT.finditer(text) if tag[1]}
    start, name = 0, ""
    for tag in _ELEMENT.finditer(text):
        here = tag[2].lower()
        if name:
            if tag[1] and here == name:
                yield start, tag.end()
                name = ""
        elif tag[1] or tag[3].rstrip().endswith("/") or closed.get(here, -1) < tag.end():
            yield tag.span()
        else:
            start, name = tag.start(), here


def _without_braces(text: str) -> str:
    """Leave out templates, parameters and tables, which may lie within each other."""
    return _without(text, iter(sorted(_braced(text)))) if "{" in text or "}" in text else text


def _braced(text: str) -> Iterator[tuple[int, int]]:
    """Yield the places of templates and tables, and of signs of them that have no counterpart."""
    opened: list[tuple[bool, int]] = []  # of a table, and where
    number = [0, 0]  # of templates and tables that are open
    for sign in _BRACES.finditer(text):
        yield sign.span()
        held = sign.group().strip(" \t:")
        is_table, n = held in ("{|", "|}"), 1 if held in ("{|", "|}") else len(held) // 2
        if held[0] == "{":
            opened += [(is_table, sign.start())] * n
            number[is_table] += n
            continue
        for _ in range(min(n, number[is_table])):
            was_table, start = opened.pop()
            while was_table is not is_table:
                number[was_table] -= 1
                was_table, start = opened.pop()
            number[is_table] -= 1
            yield start, sign.end()


def _without_lines(text: str) -> str:
    """Make items of lists paragraphs, and leave out headings, rules and switches."""
    text = _SWITCH.sub("", text)
    return _LINE.sub(lambda line: f"\n\n{line[3]}\n\n" if line[2] else "\n\n", text)


def _without_signs(text: str) -> str:
    """Leave out the signs of bold and italic type, tags, and the addresses of links that leave the wiki."""
    text = _QUOTES.sub(lambda run: "'" * (1 if len(run[0]) == 4 else max(0, len(run[0]) - 5)), text)
    if "<" in text:
        text = _TAG.sub("", _BREAK_TAG.sub(" ", _BLOCK_TAG.sub("\n\n", text)))
    return _EXTERNAL.sub(lambda link: link[1], text) if "//" in text else text


def _resolved(text: str) -> MarkedText:
    """Return a text without brackets, and the links that they were."""
    frames = [_Frame()]
    last = too_deep = 0
    for sign in _BRACKETS.finditer(text):
        frames[-1].add(text[last : sign.start()])
        last = sign.end()
        if sign.group() == "[[":
            if too_deep or len(frames) > DEPTH:
                too_deep += 1
            else:
                frames.append(_Frame())
        elif too_deep:
            too_deep -= 1
        elif len(frames) > 1:
            trail = _TRAIL.match(text, last)
            last = trail.end() if trail else last
            frame = frames.pop()
            _close(frame, trail[0] if trail else "", frames[-1])
    frames[-1].add(text[last:])
    for frame in frames[1:]:
        frames[0].add_frame(frame)
    return _finished(frames[0])


def _close(frame: _Frame, trail: str, outer: _Frame) -> None:
    """Add what a pair of brackets holds to what stands around it: a link's text, or nothing of a file."""
    target, bar, shown = "".join(frame.pieces).partition("|")
    title = target.lstrip(" :")
    space, colon, _ = title.partition(":")
    if (
        colon
        and title == target.lstrip()
        and (space.strip().lower() in _LEFT_OUT or is_wiki_of_language(space))
    ):
        outer.add(trail)
    elif frame.links or "\n" in target or "\n\n" in shown:  # no link holds another, or a paragraph's end
        outer.add_frame(frame)
        outer.add(trail)
    else:
        outer.add_link((shown or _QUALIFIER.sub("", title) if bar else title) + trail, target.strip())


def _finished(frame: _Frame) -> MarkedText:
    """Return the text with the characters that entities stand for."""
    text = "".join(frame.pieces)
    pieces: list[str] = []
    links: list[Link] = []
    size = last = 0
    for link in frame.links:
        before, shown = (without_entities(text[a:b]) for a, b in ((last, link.start), (link.start, link.end)))
        pieces += before, shown
        start = size + len(before)
        size, last = start + len(shown), link.end
        links.append(Link(start, size, link.target))
    return MarkedText("".join([*pieces, without_entities(text[last:])]), links)
