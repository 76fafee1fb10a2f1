"""Report a method on a set of queries: a dictionary for programs, Markdown for people."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from engine.errors import QueryError
from engine.evaluation.metrics import CUTOFFS, average, measure
from engine.queries.formats import LabelledQuery, QuerySet, RefusedQuery
from engine.query import Expansion, Query
from engine.refusals import Code, Refusal

Runner = Callable[[Sequence[Query]], list[Expansion]]

Report = dict[str, Any]
"""``overall`` and ``by_class``: see :func:`engine.evaluation.metrics.average`; counts; and ``negatives``:
whether any query has negative seeds or negative truth. Where none has, only the Pos columns say anything."""

COLUMNS = tuple(f"{name}@{k}" for name in ("MAP", "P") for k in CUTOFFS)

_POSITIVE = [*(f"Pos{column}" for column in COLUMNS), "PosAvg"]


def evaluate(
    runner: Runner,
    queries: QuerySet,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
    batch_dependent: bool = False,
) -> Report:
    """Run the queries in batches and return the report.

    Every query is asked for at least as many entities as the longest metric looks at. A query
    without positive truth has nothing that a ranking could find: it is left out, and listed with
    the refused ones. An empty negative truth is no mistake (nothing can intrude): its Neg columns
    are 0.

    Args:
        runner: an opened pipeline.
        queries: see :func:`engine.queries.formats.read_queries`.
        batch_size: queries handed over at once.
        on_batch: called with the number of queries just done.
        batch_dependent: hand over one query of each class at a time, the first of each, then the second …,
            for a pipeline whose answers depend on the other queries of a call
            (:attr:`engine.stages.base.Pipeline.batch_dependent`).

    Raises:
        QueryError: no query has positive truth.
    """
    usable, unusable = _by_truth(queries.queries)
    if not usable:
        raise QueryError("no query has positive truth (pos_gt), so nothing can be measured")
    batches = _across_classes(usable) if batch_dependent else _in_order(usable, batch_size)
    started = time.perf_counter()
    answers: list[_Answer] = []
    for batch in batches:
        answers += _answered(runner, batch)
        if on_batch:
            on_batch(len(batch))
    seconds = time.perf_counter() - started
    return {
        "overall": average([answer.columns for answer in answers]),
        "by_class": _class_means(answers),
        "negatives": any(q.query.negative or q.negative.size for q in usable),
        "seconds_per_query": round(seconds / len(usable), 6),
        "degraded": sum(answer.degraded for answer in answers),
        "missing_truth": queries.missing,
        "refused": [one.as_json() for one in [*queries.refused, *unusable]],
    }


class _Answer(NamedTuple):
    """The result of a query: its class, its columns (see :func:`measure`), whether anything was skipped."""

    label: str
    columns: dict[str, float]
    degraded: bool


def _by_truth(queries: Sequence[LabelledQuery]) -> tuple[list[LabelledQuery], list[RefusedQuery]]:
    """Return the queries that can be measured, and the refusals of those without positive truth."""
    no_truth = Refusal(Code.NO_TRUTH, "no positive truth (pos_gt), so it cannot be measured")
    usable = [q for q in queries if q.positive.size]
    return usable, [RefusedQuery(q.label, 0, q.query.id, no_truth) for q in queries if not q.positive.size]


def _in_order(queries: Sequence[LabelledQuery], batch_size: int) -> list[Sequence[LabelledQuery]]:
    return [queries[start : start + batch_size] for start in range(0, len(queries), batch_size)]


def _answered(runner: Runner, batch: Sequence[LabelledQuery]) -> list[_Answer]:
    """Run one batch, asking for as many entities as the longest metric looks at, and measure it."""
    expansions = runner([replace(q.query, top_k=max(q.query.top_k, CUTOFFS[-1])) for q in batch])
    return [
        _Answer(q.label, measure(e.ranking.ids, q.positive, q.negative), bool(e.degraded))
        for e, q in zip(expansions, batch, strict=True)
    ]


def _class_means(answers: Sequence[_Answer]) -> dict[str, dict[str, float]]:
    """Return the mean columns of every class, by name."""
    by_class: dict[str, list[dict[str, float]]] = defaultdict(list)
    for answer in answers:
        by_class[answer.label].append(answer.columns)
    return {label: average(by_class[label]) for label in sorted(by_class)}


def _across_classes(queries: Sequence[LabelledQuery]) -> list[Sequence[LabelledQuery]]:
    """Return the first query of every class, then the second of every class that has one, and so on."""
    counts: Counter[str] = Counter()
    batches: list[list[LabelledQuery]] = []
    for labelled in queries:
        place = counts[labelled.label]
        counts[labelled.label] += 1
        if place == len(batches):
            batches.append([])
        batches[place].append(labelled)
    return [*batches]


def markdown(reports: Mapping[str, Report], heading: str) -> str:
    """Return the papers' table over all methods, then each method's results by class."""
    lines = [f"# {heading}", "", *markdown_table(*side_rows(reports)), ""]
    for name, report in reports.items():
        lines += [f"## {name}", "", f"`{report.get('pipeline', name)}`", ""]
        lines += [*markdown_table(*class_rows(report)), ""]
        overall = report["overall"]
        counts = (
            f"{overall['queries']} queries, {1e3 * report['seconds_per_query']:.2f} ms a query, "
            f"{len(report['refused'])} refused, {report['degraded']} degraded, "
            f"{report['missing_truth']} truth names are not in the vocabulary."
        )
        lines += [counts, ""]
        lines += [f"Note: {report['note']}.", ""] if "note" in report else []
        lines += [
            f"- refused: `{r['source']}:{r['position']}` {r['query_id'] or ''}: {r['reason']}"
            for r in report["refused"]
        ]
    return "\n".join(lines).rstrip() + "\n"


def side_rows(reports: Mapping[str, Report]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the papers' table.

    UltraWiki's has Pos, Neg and Comb columns, a line each. MESED's is the one without negatives: a line of
    MAP@K, P@K and their mean (the Pos columns).
    """
    if not any(report["negatives"] for report in reports.values()):
        rows = [[name, *_numbers(report["overall"], _POSITIVE)] for name, report in reports.items()]
        return ["method", *COLUMNS, "Avg"], rows
    rows = [
        [name, side, *_numbers(report["overall"], [*(f"{side}{c}" for c in COLUMNS), average_name])]
        for name, report in reports.items()
        for side, average_name in (("Pos", "PosAvg"), ("Neg", "NegAvg"), ("Comb", "Avg"))
    ]
    return ["method", "", *COLUMNS, "Avg"], rows


def key_figures(report: Report) -> dict[str, float]:
    """Return the few numbers that stand for a report: CombMAP and Avg, without negatives MAP and Avg."""
    overall = report["overall"]
    if report["negatives"]:
        return {name: overall[name] for name in ("CombMAP", "Avg")}
    return {"MAP@10": overall["PosMAP@10"], "MAP@100": overall["PosMAP@100"], "Avg": overall["PosAvg"]}


def class_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of one method's results by fine-grained class."""
    columns = ["PosMAP@10", "NegMAP@10", "CombMAP@10", "PosMAP@100", "CombMAP", "Avg"]
    header = columns
    if not report["negatives"]:
        columns, header = _POSITIVE, [*COLUMNS, "Avg"]
    rows = [
        [label, str(values["queries"]), *_numbers(values, columns)]
        for label, values in [*report["by_class"].items(), ("all", report["overall"])]
    ]
    return ["class", "queries", *header], rows


def _numbers(values: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{values[column]:.2f}" for column in columns]


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table in Markdown: the first column to the left, the others to the right."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    ruler = ["---" if place == 0 else "---:" for place in range(len(header))]
    return [line(header), line(ruler), *map(line, rows)]
