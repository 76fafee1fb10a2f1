"""Hooks of the documentation's build (`mkdocs.yml`): formulas, the change log, and no network.

Formulas are written as LaTeX, which repository views show; the built pages hold MathML, which browsers show
without a script.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
FROM_NETWORK = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*\shref="https?:')


def on_files(files: Files, config: Any) -> Files:
    """Add the repository's change log as a page."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML."""
    return FORMULA.sub(_mathml, content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Check that a page loads nothing from a network.

    Raises:
        PluginError: it would.
    """
    if found := FROM_NETWORK.search(output):
        raise PluginError(f"{page.file.src_uri}: loads {found.group()} from a network")
    return output


def _mathml(found: re.Match[str]) -> str:
    shown = "block" if found.group(2) == "[" else "inline"
    return str(convert(html.unescape(found.group(3).strip()), display=shown))
