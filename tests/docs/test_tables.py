"""Tables of the documents name what the code has: all of it, and nothing else."""

from __future__ import annotations

import re
from typing import get_args

from engine.corpus.importing.source import formats
from engine.corpus.readers.tables import ENTITY_COLUMNS, SENTENCE_COLUMNS
from engine.methods import ABLATIONS, METHODS
from engine.models.families import FAMILIES
from engine.queries.answer_table import SCHEMA
from serve.http.requests import ExpandRequest
from serve.http.responses import Code
from serve.settings import ServeSettings, StageSettings
from tests.support.documents import ROOT, code_spans, first_cells

DOCS = ROOT / "docs"


def test_methods() -> None:
    assert set(first_cells(DOCS / "methods.md", "Method table")) == set(METHODS)
    assert set(ABLATIONS) <= set(code_spans(DOCS / "methods.md"))


def test_what_a_query_may_change() -> None:
    """The rows of the table, such as: | `Retrieve` | `k` (1 to 2,000), `hubness` (0 to 2, …) |."""
    told: dict[str, dict[str, tuple[float, float]]] = {}
    for line in (DOCS / "methods.md").read_text(encoding="utf-8").splitlines():
        if stage := re.match(r"\| `([A-Za-z]+)` \| `\w+` \([\d.,]+ to ", line):
            bounds = re.findall(r"`(\w+)` \((?:between )?([\d.,]+) (?:to|and) ([\d.,]*\d)", line)
            told[stage[1]] = {name: (number(low), number(high)) for name, low, high in bounds}
    stages = {type(stage) for pipeline in METHODS.values() for stage in pipeline.stages}
    assert told == {kind.__name__: dict(kind.per_request) for kind in stages if kind.per_request}


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_formats_and_their_fields() -> None:
    page = DOCS / "data-formats.md"
    assert set(first_cells(page, "Sentences")) == set(SENTENCE_COLUMNS)
    assert set(first_cells(page, "Entities")) == set(ENTITY_COLUMNS)
    assert set(first_cells(page, "Results of `expand`")) == set(SCHEMA.names)
    assert set(formats()) <= set(code_spans(page))


def test_encoder_families() -> None:
    assert set(first_cells(DOCS / "encoders.md", "Families", column=1)) == set(FAMILIES)


def test_the_fields_of_a_query_and_the_errors() -> None:
    page = DOCS / "serving.md"
    operations = ("GET", "POST", "PUT", "DELETE", "/")
    fields = [name for name in first_cells(page, "Ask") if not name.startswith(operations)]
    assert set(fields) == set(ExpandRequest.model_fields)
    assert set(first_cells(page, "Errors", column=1)) == set(get_args(Code)) - {"method_not_allowed"}


def test_settings_of_the_service() -> None:
    named = [span for span in first_cells(DOCS / "serving.md", "Settings") if not span.startswith("--")]
    for span in named:
        outer, _, inner = span.removeprefix("stages.NAME").partition(".")
        assert outer in ServeSettings.model_fields or inner in StageSettings.model_fields, span
