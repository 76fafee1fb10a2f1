"""Report a method on a set of queries: a dictionary for programs, Markdown for people."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.errors import QueryError
from engine.evaluation.long_tail import HEADER, confusion_rows
from engine.evaluation.measuring import (
    Measures,
    QueryScore,
    Runner,
    across_classes,
    by_truth,
    in_order,
    scores,
)
from engine.evaluation.metrics import CUTOFFS, Means
from engine.queries.formats import QuerySet
from engine.query import no_answer, summed

Report = dict[str, Any]
"""``protocol``; ``overall`` and ``by_class``: see :meth:`engine.evaluation.metrics.Means.result`; counts; and
``negatives``: whether any query has negative seeds or negative truth. Where none has, only the Pos columns
say anything. ``no_answer``, if no query has one: why. The columns say nothing then (CombMAP would be 50)."""

COLUMNS = tuple(f"{name}@{k}" for name in ("MAP", "P") for k in CUTOFFS)

_POSITIVE = [*(f"Pos{column}" for column in COLUMNS), "PosAvg"]


def evaluate(
    runner: Runner,
    queries: QuerySet,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
    batch_dependent: bool = False,
    measures: Measures | None = None,
    on_score: Callable[[QueryScore], None] | None = None,
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
        measures: what is measured; default: the papers' columns, by our protocol.
        on_score: called with every measured query, such as what writes them.

    Raises:
        QueryError: no query has positive truth.
    """
    measures = measures or Measures()
    usable, _ = by_truth(queries.queries)
    if not usable:
        raise QueryError("no query has positive truth (pos_gt), so nothing can be measured")
    batches = across_classes(usable) if batch_dependent else in_order(usable, batch_size)
    started = time.perf_counter()
    overall, by_class, degraded, answered = Means(), defaultdict[str, Means](Means), 0, 0
    first_note = ""
    counts: dict[str, int] = {}
    stages: float | None = None
    for batch in scores(runner, batches, measures):
        for score in batch:
            overall.add(score.columns)
            by_class[score.query.label].add(score.columns)
            degraded += bool(score.degraded)
            answered += bool(len(score.ranking))
            first_note = first_note or next(iter(score.degraded), "")
            counts = summed([counts, score.counts])
            if score.seconds is not None:  # a query that every stage refused has none
                stages = (stages or 0.0) + score.seconds
            if on_score:
                on_score(score)
        if on_batch:
            on_batch(len(batch))
    # What the stages took, though it was in another run; of a runner that does not say, what passed.
    seconds = time.perf_counter() - started if stages is None else stages
    return {
        "protocol": measures.protocol,
        "overall": overall.result(),
        "by_class": {label: by_class[label].result() for label in sorted(by_class)},
        "negatives": any(q.query.negative or q.negative.size for q in usable),
        "seconds_per_query": round(seconds / len(usable), 6),
        "degraded": degraded,
        "answered": answered,
        **({} if answered else {"no_answer": no_answer(len(usable), first_note)}),
        "counts": counts,
        "missing_truth": queries.missing,
        "refused": refused_of(queries),
    }


def refused_of(queries: QuerySet) -> list[dict[str, Any]]:
    """Return the queries that are not measured, and why: refused, or without positive truth."""
    return [one.as_json() for one in [*queries.refused, *by_truth(queries.queries)[1]]]


def markdown(reports: Mapping[str, Report], heading: str) -> str:
    """Return the papers' table over all methods, then each method's results by class."""
    lines = [f"# {heading}", "", *markdown_table(*side_rows(reports)), ""]
    for name, report in reports.items():
        lines += [f"## {name}", "", f"`{report.get('pipeline', name)}`", ""]
        lines += [*markdown_table(*class_rows(report)), ""]
        overall = report["overall"]
        counts = (
            f"{overall['queries']} queries, {_cost(report)}"
            f"{len(report['refused'])} refused, {report['degraded']} degraded, "
            f"{report['missing_truth']} truth names are not in the vocabulary; protocol {report['protocol']}."
        )
        if counted := report.get("counts"):
            counts += f" Counted: {', '.join(f'{name} {n}' for name, n in counted.items())}."
        lines += [counts, ""]
        lines += [f"Note: {report[key]}." for key in ("note", "no_answer") if key in report] + [""]
        for title, header, rows in slice_tables(report):
            lines += [f"### {name}: {title}", "", *markdown_table(header, rows), ""]
        lines += [
            f"- refused: `{r['source']}:{r['position']}` {r['query_id'] or ''}: {r['reason']}"
            for r in report["refused"]
        ]
    return "\n".join(lines).rstrip() + "\n"


def _cost(report: Report) -> str:
    seconds = report["seconds_per_query"]
    return "" if seconds is None else f"{1e3 * seconds:.2f} ms a query, "


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


SLICE_TITLES = {
    "attributes": "positive and negative attributes the same, or different",
    "counts": "by numbers of attributes (|A+|, |A−|)",
    "negative_seeds": "by number of negative seeds",
}


def slice_tables(report: Report) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield title, header and rows of what a report says of groups of queries and of entities."""
    columns = ["PosMAP", "NegMAP", "CombMAP", "PosMAP@10", "PosMAP@100"]
    for name, groups in report.get("slices", {}).items():
        rows = [[g, str(v["queries"]), *_numbers(v, columns)] for g, v in groups.items()]
        yield SLICE_TITLES[name], ["", "queries", *columns], rows
    if any(column.startswith("FineMAP") for column in report["overall"]):
        columns = [f"Fine{column}" for column in COLUMNS]
        yield "the fine-grained class as truth", list(COLUMNS), [_numbers(report["overall"], columns)]
    if recalls := [column for column in report["overall"] if column.startswith("Recall@")]:
        yield "recall of the first stage", recalls, [_numbers(report["overall"], recalls)]
    if report.get("tail"):
        rows = [
            [one["sentences"], str(one["truth"]), "" if one["share"] is None else f"{one['share']:.2f}"]
            for one in report["tail"]
        ]
        yield "true entities by number of sentences", ["sentences", "true", "found among 100, %"], rows
    if report.get("confusion"):
        yield "expected and expanded, in queries an entity", HEADER, confusion_rows(report["confusion"])


def _numbers(values: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{values[column]:.2f}" for column in columns]


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table in Markdown: the first column to the left, the others to the right."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    ruler = ["---" if place == 0 else "---:" for place in range(len(header))]
    return [line(header), line(ruler), *map(line, rows)]
