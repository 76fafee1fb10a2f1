"""A JavaScript client, made of our OpenAPI document by a generator of others, asks a served application."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serve.http.routes import create_app
from serve.sets.access import LocalSets
from tests.support.services import MakeService, running

HERE = Path(__file__).parent
MODULES = Path(os.environ.get("SEEDSET_TEST_NODE_MODULES", Path(sys.prefix) / "javascript" / "node_modules"))
GENERATOR = MODULES / "@hey-api" / "openapi-ts" / "bin" / "run.js"

TOKEN = "secret"


def node(*words: object) -> str:
    """Run a script; return what it printed."""
    done = subprocess.run(
        ["node", *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_generated_client_asks_and_changes_a_set(make_service: MakeService, tmp_path: Path) -> None:
    if not shutil.which("node") or not GENERATOR.exists():
        pytest.skip(f"no node, or no generator below {MODULES}: run `make javascript`")
    tokens = {"ada": {"rights": "curate", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}}
    app = create_app(make_service(tokens=tokens), sets=LocalSets(tmp_path / "sets.sqlite"))
    with running(app) as url:
        document, client = tmp_path / "openapi.json", tmp_path / "client"
        document.write_bytes(httpx.get(f"{url}/openapi.json").content)
        node(GENERATOR, "--input", document, "--output", client, "--silent")
        told = json.loads(node(HERE / "call.cjs", MODULES, client, url, TOKEN))
        query = {"positive": ["entity 1"], "negative": [2], "top_k": 3}
        headers = {"authorization": f"Bearer {TOKEN}"}
        here = httpx.post(f"{url}/v1/expand", json=query, headers=headers).json()
        streamed = httpx.post(
            f"{url}/v1/expand", json={"positive": ["entity 1"], "top_k": 3}, headers=headers
        ).json()
    assert told["results"] == here["results"]
    assert told["streamed"] == streamed["results"]
    assert told["entity"] == "entity 1"
    assert told["found"][0] == "entity 12"
    status, error = told["unknown"]
    assert (status, error["code"], error["field"]) == (422, "unknown_entity", "positive.0")
    assert "entity 1" in error["suggestions"]
    assert told["changed"] == ["ada", 2, {"accepted": 1, "rejected": 0}]
    assert told["refused"] == [403, "forbidden"]
