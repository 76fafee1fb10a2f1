"""Requests of every shape, right and wrong, made from the OpenAPI document: each is answered as it says."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.python import asgi
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from serve.audit.recorder import LocalAudit, Recorder
from serve.http.routes import create_app
from serve.sets.access import LocalSets
from serve.settings import ServeSettings
from tests.support.services import METHOD_NAMES, MakeService

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]

ASKED = METHOD_NAMES[:4]
"""Methods that are asked for: of those that generate, which takes long, one."""

EXAMPLES = int(os.environ.get("SEEDSET_TEST_EXAMPLES", "25"))
"""Requests of either kind for each operation; `make test-long` asks for 500."""

WITH_INPUT = [
    ("POST", "/v1/expand"),
    ("POST", "/v1/expand/batch"),
    ("POST", "/v1/expand/stream"),
    ("POST", "/v1/map"),
    ("POST", "/v1/type"),
    ("GET", "/v1/entities"),
    ("POST", "/v1/entities/lookup"),
    ("GET", "/v1/entities/{given}"),
    ("GET", "/v1/bundles/{bundle}/entities/{entity}"),
    ("GET", "/v1/images/{entity}/{n}"),
    ("POST", "/v1/expand/export"),
    ("POST", "/v1/entities/export"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/sets"),
    ("POST", "/v1/sets"),
    ("POST", "/v1/sets/import"),
    ("GET", "/v1/sets/{set_id}"),
    ("GET", "/v1/sets/{set_id}/events"),
    ("POST", "/v1/sets/{set_id}/events"),
    ("GET", "/v1/sets/{set_id}/agreement"),
    ("GET", "/v1/sets/{set_id}/export"),
    ("DELETE", "/v1/sets/{set_id}"),
    ("GET", "/v1/sets/{set_id}/reviews"),
    ("POST", "/v1/sets/{set_id}/reviews"),
    ("POST", "/v1/sets/{set_id}/reviews/marks"),
    ("DELETE", "/v1/sets/{set_id}/reviews"),
    ("PUT", "/v1/entities/{given}"),
    ("DELETE", "/v1/entities/{given}"),
    ("GET", "/v1/overlay"),
]
ANY_TEXT = [("PUT", "/v1/entities/{given}"), ("DELETE", "/v1/entities/{given}")]
"""Of these, no path is malformed: it is a name. Bodies are in ``test_overlay``."""
FOREIGN = [
    ("GET", "/v1/reconcile"),
    ("POST", "/v1/reconcile"),
    ("GET", "/v1/reconcile/suggest/entity"),
    ("GET", "/v1/reconcile/suggest/property"),
    ("GET", "/v1/reconcile/suggest/type"),
    ("GET", "/v1/reconcile/properties"),
    ("GET", "/v1/reconcile/preview"),
    ("GET", "/v1/reconcile/flyout"),
]
"""Operations of another's protocol: any text may stand in a form's field, and clients add their own."""
SELDOM_DONE = [
    ("GET", "/v1/images/{entity}/{n}"),
    ("POST", "/v1/sets/import"),
    ("POST", "/v1/sets/{set_id}/events"),
    ("DELETE", "/v1/sets/{set_id}"),
    ("POST", "/v1/sets/{set_id}/reviews"),
    ("POST", "/v1/sets/{set_id}/reviews/marks"),
    ("DELETE", "/v1/sets/{set_id}/reviews"),
    ("PUT", "/v1/entities/{given}"),
    ("DELETE", "/v1/entities/{given}"),
    ("GET", "/v1/overlay"),
]
"""Of these, requests that are well formed mostly name what there is not: an image, a version, an overlay."""

WITHOUT_INPUT = [
    ("GET", "/v1/attributes"),
    ("GET", "/v1/methods"),
    ("GET", "/v1/bundle"),
    ("GET", "/v1/caller"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def app(make_service: MakeService, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("kept")
    sets = LocalSets(folder / "sets.sqlite")
    audit = LocalAudit(ServeSettings(workspace="w", audit=str(folder / "audit.jsonl")))
    return create_app(make_service(max_queries=3), sets=sets, recorder=Recorder(audit))


@pytest.fixture(scope="module")
def set_id(app: FastAPI) -> str:
    """A set that there is."""
    return str(TestClient(app).post("/v1/sets", json={"name": "a set"}).json()["id"])


@pytest.fixture(scope="module")
def schema(app: FastAPI) -> BaseSchema:
    found = schemathesis.openapi.from_asgi("/openapi.json", app)
    found.config.generation.allow_x00 = True
    return found


@pytest.fixture(scope="module")
def session(app: FastAPI) -> Iterator[Any]:
    with asgi.get_client(cast(Any, app)) as client:
        yield client


SHOWN_FIELDS = (
    "filter",
    "exclude",
    "min_score",
    "offset",
    "group_by",
    "per_group",
    "diversity",
    "facets",
    "context",
)


def answerable(body: Any, asks: bool) -> Any:
    """Turn most of what a body names into what the bundle holds, so that stages have work too.

    Args:
        body: drawn by the document.
        asks: whether it is a query, or several.
    """
    if isinstance(body, list):
        return [answerable(one, asks) for one in body]
    if not isinstance(body, dict):
        return body
    known: dict[str, Callable[[Any], Any]] = {
        "queries": partial(answerable, asks=True),
        "question": partial(answerable, asks=True),
        "positive": _seeds,
        "negative": _seeds,
        "exclude": _seeds,
        "context": _pairs,
        "entities": _seeds,
        "offset": lambda given: given % 3 if type(given) is int else given,
        "group_by": lambda given: "parity" if _is_replaced(given) else given,
        "facets": lambda given: (
            ["parity"] if isinstance(given, list) and _is_replaced(repr(given)) else given
        ),
        "method": _method,
        "text": _text,
        "mentions": _places,
        "filter": _filter,
        "names": _seeds,
        "bundle": lambda given: None if isinstance(given, str) else given,
    }
    found = {key: known[key](value) if key in known else value for key, value in body.items()}
    if asks and not found.get("positive") and "queries" not in found:
        found["positive"] = [1, 2]  # the document cannot say that one seed of either kind is needed
    # What all of them ask at once cannot be; so each asks for few of these.
    return {key: v for key, v in found.items() if key not in SHOWN_FIELDS or not _digest(key + repr(v)) % 4}


def _seeds(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    return [
        one % 500
        if type(one) is int
        else f"entity {_digest(one) % 500}"
        if _is_replaced(one)
        else _weighed(one)
        for one in given
    ]


def _pairs(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    return [
        dict(zip(one, _seeds([*one.values()]), strict=True)) if isinstance(one, dict) else one
        for one in given
    ]


def _weighed(given: Any) -> Any:
    """Let a seed with a weight be of the bundle: the document cannot say that a name or an id is needed."""
    if isinstance(given, dict) and "vector" in given:
        return {**given, "vector": {"mask": [float(place) for place in range(16)]}}
    if not isinstance(given, dict) or "sentences" in given or "weight" not in given:
        return given
    return {"id": _digest(repr(given)) % 500, "weight": given["weight"]}


def _method(given: Any) -> Any:
    return ASKED[_digest(given) // 4 % len(ASKED)] if _is_replaced(given) else given


def _text(given: Any) -> Any:
    return f"{given.translate({91: None, 93: None})} [[Oslo]]." if _is_replaced(given) else given


def _places(given: Any) -> Any:
    """Let the marks say where mentions are: places drawn at random are hardly ever in the text."""
    return None if _is_replaced(repr(given)) else given


def _filter(given: Any) -> Any:
    return {"parity": ["odd"]} if given and _is_replaced(repr(given)) else given


def _is_replaced(given: Any) -> bool:
    """Return whether a text is one of the three in four that are replaced: always the same ones."""
    return isinstance(given, str) and _digest(given) % 4 > 0


def _digest(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))


def test_every_operation_is_tried(schema: BaseSchema) -> None:
    results = list(schema.get_all_operations())
    operations = [one.ok() for one in results if isinstance(one, Ok)]
    assert len(operations) == len(results)
    found = [(one.method.upper(), one.path) for one in operations]
    assert sorted(found) == sorted(WITH_INPUT + FOREIGN + WITHOUT_INPUT)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        pytest.param(*operation, mode, id=f"{'-'.join(operation)}-{mode.value}")
        for operation in WITH_INPUT
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or operation not in ANY_TEXT
    ],
)
def test_every_request_is_answered_as_the_document_says(
    schema: BaseSchema, session: Any, set_id: str, method: str, path: str, mode: GenerationMode
) -> None:
    # In a batch, what is wrong with one query is told in its place.
    checks = [c for c in CHECKS if c is not negative_data_rejection or "batch" not in path]
    statuses: set[int] = set()

    # What makes a file takes the bodies of the operations without one; imports of sets take long.
    examples = max(EXAMPLES // 5, 5) if path.endswith(("/export", "/import")) else EXAMPLES

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            case.body = answerable(case.body, asks=path.startswith(("/v1/expand", "/v1/map")))
            known = {"bundle": "current", "set_id": set_id}
            case.path_parameters = {
                name: known.get(name) or (_seeds([given])[0] if name != "n" else given)
                for name, given in (case.path_parameters or {}).items()
            }
        statuses.add(case.call_and_validate(session=session, checks=checks).status_code)

    ask()
    done = mode is GenerationMode.POSITIVE and (method, path) not in SELDOM_DONE
    assert (200 in statuses) >= done, statuses


@pytest.mark.parametrize(("method", "path"), FOREIGN, ids=lambda one: one)
def test_another_protocol_is_spoken_as_the_document_says(
    schema: BaseSchema, session: Any, method: str, path: str
) -> None:
    statuses: set[int] = set()

    @settings(max_examples=max(EXAMPLES // 5, 5), derandomize=True, database=None)
    @given(schema[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: schemathesis.Case) -> None:
        for fields in (case.query, case.body):
            for name in ("id", "queries"):
                if isinstance(fields, dict) and fields.get(name):
                    seed = _seeds([fields[name]])[0]
                    fields[name] = seed if name == "id" else json.dumps({"q0": {"query": seed}})
        statuses.add(case.call_and_validate(session=session, checks=CHECKS).status_code)

    ask()
    assert 200 in statuses, statuses


@pytest.mark.parametrize(("method", "path"), WITHOUT_INPUT, ids=lambda one: one)
def test_what_takes_nothing_answers_as_the_document_says(
    schema: BaseSchema, session: Any, method: str, path: str
) -> None:
    response = schema[path][method].Case().call_and_validate(session=session, checks=CHECKS)
    assert response.status_code == 200
