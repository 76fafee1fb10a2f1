"""The page: a fixed set of files, read when the service starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent.parent / "page"
INDEX = "index.html"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page, and a digest by which a browser knows whether it has it already."""

    content: bytes
    media_type: str
    tag: str

    def answer(self, request: Request) -> Response:
        """Return the file, or that the browser has it. It asks each time: names stay as they are."""
        headers = {"Cache-Control": "no-cache", "ETag": self.tag}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Return the page's files by name: those of known types, none in folders below."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path.name] = PageFile(content, TYPES[path.suffix], tag)
    return found
