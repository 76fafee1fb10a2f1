"""Alerts and panels are PromQL that Prometheus reads, over metrics and labels that there are.

Expressions are parsed here, names and labels compared with those of the program's own registry, and Ray's
names looked for in Ray. No Prometheus evaluates them in these tests; `promtool check rules` of Prometheus
2.42 took the file, and `promtool test rules` made eight of the nine rules of the service fire on invented
series, when it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

import serve
from serve.settings import ServeSettings
from serve.telemetry.metrics import Metrics

FOLDER = Path(serve.__file__).parent / "telemetry"
GROUPS = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
PANELS = [
    (panel["title"], target["expr"].replace("$__rate_interval", "5m"))
    for panel in json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    for target in panel.get("targets", [])
]


def labels() -> dict[str, set[str]]:
    """Return the labels of each sample that the service can export."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if not hasattr(metric, "_labelnames"):
            continue
        own, name = set(metric._labelnames), metric._name
        suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[
            metric._type
        ]
        for suffix in suffixes:
            found[name + suffix] = own | ({"le"} if suffix == "_bucket" else set())
    return found


LABELS = labels()


def selectors(node: Any) -> Iterator[Any]:
    """Yield the selectors of an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql_parser.Call):
        for one in node.args:
            yield from selectors(one)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, (promql_parser.AggregateExpr, promql_parser.ParenExpr, promql_parser.UnaryExpr)):
        yield from selectors(node.expr)
    else:
        assert isinstance(node, (promql_parser.NumberLiteral, promql_parser.StringLiteral)), type(node)


def check(expression: str) -> None:
    found = list(selectors(promql_parser.parse(expression)))
    assert found, expression
    ours: set[str] = set()
    for selector in found:
        if selector.name.startswith("ray_"):
            continue
        assert selector.name in LABELS, selector.name
        ours |= LABELS[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in LABELS[selector.name], f"{selector.name} has no label {matcher.name}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {name.strip() for name in grouped.split(",")} <= ours, expression


def test_the_registry_is_read_whole() -> None:
    assert {family.name for family in Metrics().registry.collect()} == {
        re.sub("_(total|bucket|sum|count)$", "", name) for name in LABELS
    }


@pytest.mark.parametrize("name", RULES)
def test_an_alert_is_over_what_there_is(name: str) -> None:
    check(RULES[name]["expr"])


@pytest.mark.parametrize(("title", "expression"), PANELS)
def test_a_panel_is_over_what_there_is(title: str, expression: str) -> None:
    check(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "sum(rate(seedset_request_total[5m]))",
        'seedset_requests_total{code="200"}',
        "sum by (method) (seedset_requests_total)",
    ],
)
def test_what_there_is_not_would_be_found(expression: str) -> None:
    with pytest.raises(AssertionError):
        check(expression)
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql_parser.parse("sum(rate(seedset_requests_total[5m])")


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_what_is_wrong_and_what_to_do(name: str) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("page", "warn")
    assert set(rule["annotations"]) == {"summary", "remedy"}
    assert re.fullmatch(r"\d+m", rule.get("for", "1m"))
    known = set().union(*LABELS.values())
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= known
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_the_queue_s_bound_is_the_setting_s() -> None:
    bound = ServeSettings.model_fields["max_queued"].default
    assert RULES["SeedsetQueueFull"]["expr"].endswith(f"* {bound}")


def test_ray_has_what_is_asked_of_it() -> None:
    import ray

    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "reporter"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    asked = {name for rule in RULES.values() for name in re.findall(r"\bray_(\w+)", rule["expr"])}
    assert len(asked) > 3
    for name in asked:
        assert f'"{name}"' in source, name
