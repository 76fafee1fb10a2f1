"""The real application on loopback, and a real browser in front of it."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from engine.catalogue.sentences import SENTENCES
from engine.corpus.schema import MENTION_SCHEMA
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from serve.http.routes import create_app
from serve.sets.access import LocalSets
from tests.support.bundles import publish_vectors, write_entities
from tests.support.encoders import write_encoder
from tests.support.language_models import tiny_model
from tests.support.services import open_snapshot, running, service_maker

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

PATIENCE_MS = 30_000
"""Time that a test waits for what must come: other tests run at the same time."""

expect.set_options(timeout=PATIENCE_MS)

ASIAN = ["Japan", "Thailand", "Vietnam", "Laos", "Nepal", "India"]
EUROPEAN = ["Norway", "Sweden", "Finland", "Denmark", "Iceland"]
MARKUP = "<img src=x onerror=\"document.title='broken'\">"
FORMULA = '=SUM(A1) "x", y'
ASTRAL = "𝔘topia"
COMMA = "Springfield, Ohio"
HARD = [MARKUP, FORMULA, ASTRAL, "日本橋", "مصر الجديدة", "long " * 20 + "name", "3", COMMA]
NAMES = [*ASIAN, *EUROPEAN, *HARD, *(f"place {i}" for i in range(200))]
ALIASES = {"Thailand": ["Siam"]}
WITH_IMAGE = "Vietnam"
ODD_ATTRIBUTES = ["constructor", "__proto__", "toString"]


@dataclass
class Seen:
    """A record of what a browser did besides what it showed."""

    hosts: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def _png(side: int = 4) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\x00" + b"\xc0\x20\x20" * side) * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _write_sentences(path: Path) -> None:
    rows = [
        {
            "entity_id": i,
            "sentence": f"𝔒nce {name} {rest}.",
            "start": 5,
            "end": 5 + len(name),
            "image": "red.png" if name == WITH_IMAGE else None,
        }
        for i, name in enumerate(NAMES)
        for rest in ("was here", "was there")
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MENTION_SCHEMA), path)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Asian countries near each other, European ones near each other, hard names and others anywhere."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(len(NAMES), 16)) * 0.3
    vectors[: len(ASIAN), 0] += 2
    vectors[len(ASIAN) : len(ASIAN) + len(EUROPEAN), 1] += 2

    def more(staged: Path) -> None:
        continents = dict.fromkeys(ASIAN, "Asia") | dict.fromkeys(EUROPEAN, "Europe")
        attributes = [{"continent": [continents[n]]} if n in continents else {} for n in NAMES]
        for entity in (1, 2, 3):
            attributes[entity] |= {name: ["odd"] for name in ODD_ATTRIBUTES}
        about = [f"{name} is a place." for name in NAMES]
        write_entities(staged / "entities.parquet", NAMES, ALIASES, about, attributes)
        _write_sentences(staged / SENTENCES)
        write_encoder(staged / "encoder", 16, 0)

    folder = tmp_path_factory.mktemp("page-workspace")
    (folder / "red.png").write_bytes(_png())
    return publish_vectors(Workspace.open(folder), NAMES, {"mask": vectors}, None, tiny_model(), more)


MakeSite = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serve_site(bundle: Bundle) -> MakeSite:
    """Returns a context in which the application runs, with the given settings and delay."""
    make_service = service_maker(open_snapshot(bundle), bundle)

    def serve(sets: Path | None = None, **given: object) -> AbstractContextManager[str]:
        return running(create_app(make_service(**given), sets=LocalSets(sets) if sets else None))

    return serve


@pytest.fixture(scope="session")
def site(serve_site: MakeSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_site(tmp_path_factory.mktemp("sets") / "sets.sqlite") as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; not for the session, since its driver holds an event loop that other tests need."""
    if not shutil.which(CHROMIUM):
        pytest.skip(f"no browser at {CHROMIUM}: run `make browser`, or name one with CHROMIUM=...")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser, site: str) -> Iterator[Page]:
    """A fresh tab; when the test is done it has asked this machine only, and nothing broke in it."""
    context = chromium.new_context(base_url=site, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE_MS)
    seen = Seen()
    context.on("request", lambda request: seen.hosts.add(request.url.split("/")[2].split(":")[0]))
    page = context.new_page()
    page.on("pageerror", lambda error: seen.problems.append(str(error)))
    page.on("console", lambda line: _note(seen, line.type, line.text))
    yield page
    context.close()
    assert seen.hosts <= {"127.0.0.1"}
    assert seen.problems == []


def _note(seen: Seen, kind: str, text: str) -> None:
    """Keep what the browser complains of; that an answer was an error is a test's own business."""
    if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
        seen.problems.append(text)
