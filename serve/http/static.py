"""Serve the page's files to a browser."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent.parent / "page"
INDEX = "index.html"

# What a machine's own table says of scripts varies, and with `nosniff` browsers run no other type.
mimetypes.add_type("text/javascript", ".js")


class PageFiles(StaticFiles):
    """The files of a folder. A browser asks each time whether it has the newest: names stay as they are."""

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__(directory=folder)

    def file_response(self, *given: Any, **named: Any) -> Response:
        """Return the file, or that the browser has it."""
        response = super().file_response(*given, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response
