"""A stand-in for the Hugging Face hub with one data set: what its library asks for when it reads files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

JSON = {"Content-Type": "application/json"}


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    found = [
        {"type": "file", "path": name, "size": len(content), "oid": f"{hash(content):x}"}
        for name, content in files.items()
    ]
    folders = {name[: m.start()] for name in files for m in re.finditer("/", name)}
    return found + [{"type": "directory", "path": name, "size": 0, "oid": "0"} for name in sorted(folders)]


class _Handler(BaseHTTPRequestHandler):
    files: Mapping[str, bytes]
    name: str

    def log_message(self, format: str, *given: Any) -> None:
        pass

    def _send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or JSON)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        asked = urlparse(self.path)
        path = unquote(asked.path)
        if found := re.fullmatch(rf"/datasets/{self.name}/resolve/main/(.*)", path):
            self._send_file(self.files.get(found[1]))
        elif found := re.fullmatch(rf"/api/datasets/{self.name}/tree/main(?:/(.*))?", path):
            top = f"{found[1]}/" if found[1] else ""
            whole = parse_qs(asked.query).get("recursive", ["false"])[0].lower() == "true"
            below = [one for one in _entries(self.files) if one["path"].startswith(top)]
            shown = [one for one in below if whole or "/" not in one["path"][len(top) :]]
            self._send(json.dumps(shown).encode())
        elif re.fullmatch(rf"/api/datasets/{self.name}(/revision/main)?", path):
            about = {"id": self.name, "sha": "a" * 40, "siblings": [], "tags": [], "private": False}
            self._send(json.dumps(about).encode())
        else:
            self._send(b'{"error": "Repository not found"}', 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _send_file(self, content: bytes | None) -> None:
        if content is None:
            self._send(b"{}", 404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{hash(content):x}"', "X-Repo-Commit": "a" * 40, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(content, 200, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], 206, headers)


@contextmanager
def hub(name: str, files: dict[str, bytes]) -> Iterator[str]:
    """Serve a data set's files on this machine while the block runs; yield the hub's address."""
    handler = type("Handler", (_Handler,), {"files": files, "name": name})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
