"""Lay out a report in the shape of the papers' tables: UltraWiki 2-9, 15, 17-19; MESED 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from engine.evaluation.comparison import Document, Row, main_column
from engine.evaluation.long_tail import HEADER, confusion_rows
from engine.evaluation.metrics import CUTOFFS
from engine.evaluation.report import COLUMNS

Lines = list[list[str]]


@dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    title: str
    header: list[str]
    rows: Lines
    notes: list[str] = field(default_factory=list)


SIDES = (("Pos", "PosAvg", "PosMAP"), ("Neg", "NegAvg", "NegMAP"), ("Comb", "Avg", "CombMAP"))
MAPS = tuple(f"MAP@{k}" for k in CUTOFFS)

Patterns = tuple[str, ...]

SUBSETS: Mapping[str, Patterns] = {
    # "-untrained": rows of another bundle, without entity prediction or continued pre-training.
    "UltraWiki, table 3: modules": (
        "retexpan",
        "retexpan-untrained",
        "genexpan",
        "genexpan-trie",
        "genexpan-untrained",
    ),
    "UltraWiki, table 7: contrastive learning": ("retexpan", "retexpan+contrast*"),
    "UltraWiki, table 8: chain of thought": (
        "genexpan",
        "genexpan+cot",
        "genexpan+cot-class",
        "genexpan+cot-positive",
        "genexpan+cot-negative",
        "genexpan+cot-*-given",
    ),
    "UltraWiki, table 9: RetExpan and GenExpan together": (
        "retexpan",
        "retexpan+genexpan",
        "genexpan",
        "genexpan+retexpan",
    ),
    "UltraWiki, table 18: confidence-based segments": ("retexpan", "retexpan+cds"),
}
"""Tables of MAP alone: methods by name or pattern. A table of one row is left out: it compares nothing."""

ENHANCED: Patterns = (
    "retexpan",
    "retexpan+contrast",
    "retexpan+ra",
    "genexpan",
    "genexpan+cot",
    "genexpan+ra",
)
"""The rows of UltraWiki's table 17."""

WITHOUT_NEGATIVES = (
    ("probexpan+segments", "probexpan"),
    ("retexpan", "retexpan-negative"),
    ("genexpan", "genexpan-negative"),
    ("multiexpan+segments", "multiexpan"),
)
"""Methods with and without their re-ranking by the negative seeds: UltraWiki's table 4. The last is ours."""

NEGATIVES_IN_PROMPT = ("genexpan", "genexpan+negatives")


def tables(document: Document, seconds: Mapping[str, float | None] | None = None) -> list[Table]:
    """Return every table that the measured rows fill.

    Args:
        document: see :func:`engine.evaluation.comparison.document`.
        seconds: of a query, by method; shown beside the differences.
    """
    rows = [row for row in document["rows"] if "why_not" not in row]
    found = [_significance(document, rows, seconds or {})]
    if document["negatives"]:
        found += [*_ultrawiki(rows)]
    else:
        header = ["method", *COLUMNS, "Avg"]
        lines = [[row["method"], *_cells(row["overall"], "Pos", COLUMNS, "PosAvg")] for row in rows]
        found.append(Table("MESED, table 3: main results", header, lines))
    found += [*_fine(rows), *_tails(rows), _confusion(rows), *_sweeps(document)]
    lacking = [[row["method"], row["why_not"]] for row in document["rows"] if "why_not" in row]
    # A report of an earlier version does not say which sweeps it left out.
    lacking += [[f"sweep: {one['title']}", one["why_not"]] for one in document.get("sweeps_left_out", [])]
    found.append(Table("Not measured", ["method", "why not"], lacking))
    return [one for one in found if one.rows]


def _ultrawiki(rows: Sequence[Row]) -> Iterator[Table]:
    header = ["method", "", *COLUMNS, "Avg"]
    yield Table("UltraWiki, table 2: main results", header, _by_side(rows, COLUMNS))
    yield from _subset(rows, "UltraWiki, table 3: modules")
    yield _with_and_without(rows)
    yield from _slices(rows)
    for title in SUBSETS:
        if "table 3" not in title:
            yield from _subset(rows, title)
    yield _recall(rows)
    chosen = _chosen(rows, ENHANCED)
    if len(chosen) > 1:
        yield Table("UltraWiki, table 17: enhancements", header, _by_side(chosen, COLUMNS))


def _chosen(rows: Sequence[Row], patterns: Patterns) -> list[Row]:
    """Return the rows of the patterns, in their order, each once."""
    found: dict[str, Row] = {}
    for pattern in patterns:
        found |= {row["method"]: row for row in rows if fnmatchcase(row["method"], pattern)}
    return list(found.values())


def _subset(rows: Sequence[Row], title: str) -> Iterator[Table]:
    chosen = _chosen(rows, SUBSETS[title])
    if len(chosen) > 1:
        yield Table(title, ["method", "", *MAPS, "Avg"], _by_side(chosen, MAPS))


def _by_side(rows: Sequence[Row], columns: Sequence[str]) -> Lines:
    """Return a line for each row and side; of MAP alone the average is that of MAP."""
    return [
        [row["method"], side, *_cells(row["overall"], side, columns, every if columns == COLUMNS else maps)]
        for row in rows
        for side, every, maps in SIDES
    ]


def _cells(values: Mapping[str, float], side: str, columns: Sequence[str], average: str) -> list[str]:
    return [f"{values[name]:.2f}" for name in (*(f"{side}{column}" for column in columns), average)]


def _with_and_without(rows: Sequence[Row]) -> Table:
    named = {row["method"]: row for row in rows}
    lines: Lines = []
    for with_them, without in WITHOUT_NEGATIVES:
        if with_them in named and without in named:
            pair = [named[with_them], named[without]]
            lines += _by_side(pair, COLUMNS)
            for side, average, _ in SIDES:
                columns = [*(f"{side}{column}" for column in COLUMNS), average]
                changes = [pair[0]["overall"][c] - pair[1]["overall"][c] for c in columns]
                lines.append(["Δ, what they bring", side, *(f"{one:+.2f}" for one in changes)])
    title = "UltraWiki, table 4: re-ranking by negative seeds"
    return Table(title, ["method", "", *COLUMNS, "Avg"], lines)


_SLICES = {
    "attributes": "UltraWiki, table 5: attributes of both sides the same, or different",
    "counts": "UltraWiki, table 6: numbers of attributes (|A+|, |A−|)",
    "negative_seeds": "By number of negative seeds in the query",
}


def _slices(rows: Sequence[Row]) -> Iterator[Table]:
    """Yield the tables of slices, of RetExpan and what the paper compares with it."""
    chosen = _chosen(rows, ("retexpan", "retexpan+contrast", "genexpan", "default")) or list(rows[:1])
    for name, title in _SLICES.items():
        lines: Lines = []
        for row in chosen:
            for group, values in row["slices"].get(name, {}).items():
                lines += [
                    [row["method"], group, str(values["queries"]), side, *_cells(values, side, MAPS, maps)]
                    for side, _, maps in SIDES
                ]
        yield Table(title, ["method", "", "queries", "", *MAPS, "Avg"], lines)


def _recall(rows: Sequence[Row]) -> Table:
    """Return what the first stages recall. The paper's "recall" falls with K, so it cannot be a share of the
    class: it is taken as the hits of the class among the first K, by min(|class|, K).
    """
    lines: Lines = []
    for row in _chosen(rows, (*NEGATIVES_IN_PROMPT, "retexpan", "default")):
        overall = row["overall"]
        for title, prefix in (("recall, phase 1", "RecallFineP"), ("CombMAP", "CombMAP")):
            if f"{prefix}@10" in overall:
                cells = [f"{overall[f'{prefix}@{k}']:.2f}" for k in CUTOFFS]
                lines.append([row["method"], title, *cells])
    notes = ["Recall in phase 1 is P@K of the first stage against the fine-grained class."]
    title = "UltraWiki, table 15: recall of the first stage"
    return Table(title, ["method", "", *(f"@{k}" for k in CUTOFFS)], lines, notes)


def _fine(rows: Sequence[Row]) -> Iterator[Table]:
    columns = [f"Fine{column}" for column in COLUMNS]
    own = [row for row in rows if columns[0] in row["overall"]]
    lines = [[row["method"], *(f"{row['overall'][c]:.2f}" for c in columns)] for row in own]
    yield Table("The fine-grained class as truth", ["method", *COLUMNS], lines)
    recalls = sorted({c for row in rows for c in row["overall"] if c.startswith("Recall@")}, key=_cutoff)
    own = [row for row in rows if recalls and recalls[0] in row["overall"]]
    lines = [[row["method"], *(f"{row['overall'][c]:.2f}" for c in recalls)] for row in own]
    yield Table("Recall of the first stage", ["method", *recalls], lines)


def _cutoff(column: str) -> int:
    return int(column.rpartition("@")[2])


def _tails(rows: Sequence[Row]) -> Iterator[Table]:
    own = [row for row in rows if row["tail"]]
    if own:
        header = ["method", *(one["sentences"] for one in own[0]["tail"])]
        counts = ["true entities", *(str(one["truth"]) for one in own[0]["tail"])]
        lines = [
            [row["method"], *("" if one["share"] is None else f"{one['share']:.1f}" for one in row["tail"])]
            for row in own
        ]
        notes = ["Of the true entities with so many sentences, the share among the first 100, in percent."]
        yield Table("Long tail: true entities by number of sentences", header, [counts, *lines], notes)


def _confusion(rows: Sequence[Row]) -> Table:
    """Return UltraWiki's table 19, of each method two rows."""
    lines = [[row["method"], *cells] for row in rows for cells in confusion_rows(row.get("confusion", []))]
    notes = [
        "In how many queries of its class an entity was expected (a true answer) or not, and expanded (among "
        "the first 100) or not, in the mean of the entities; queries that have it as a seed are left out."
    ]
    return Table(
        "UltraWiki, table 19: the long tail and the other entities", ["method", *HEADER], lines, notes
    )


def _sweeps(document: Document) -> Iterator[Table]:
    """Yield a table for each sweep: what its figure shows, and the mean over the cut-offs."""
    sides = SIDES if document["negatives"] else SIDES[:1]
    columns = [f"{side}MAP@{k}" for side, _, _ in sides for k in (CUTOFFS[0], CUTOFFS[-1])]
    columns.append(main_column(document["negatives"]))
    for sweep in document["sweeps"]:
        lines = [
            [str(value), *(f"{one[column]:.2f}" for column in columns)]
            for value, one in zip(sweep["values"], sweep["overall"], strict=True)
        ]
        title = f"{sweep['title']}: {sweep['method']}, {sweep['queries']} queries"
        yield Table(title, [sweep["setting"], *columns], lines)


def _significance(document: Document, rows: Sequence[Row], seconds: Mapping[str, float | None]) -> Table:
    column, baseline = main_column(document["negatives"]), document["statistics"]["baseline"]
    lines = []
    for row in rows:
        low, high = row["intervals"][column]
        cells = [row["method"], str(row["overall"]["queries"]), f"{row['overall'][column]:.2f}"]
        cells.append(f"{low:.2f} to {high:.2f}")
        cells += _test(row.get("against"), row["method"] == baseline)
        cells += [_milliseconds(seconds.get(row["method"])), str(row["degraded"])]
        lines.append(cells)
    header = [
        "method",
        "queries",
        column,
        "95 % interval",
        f"minus {baseline}",
        "95 % interval",
        "p",
        "p (Holm)",
    ]
    notes = [f"{name}: {document['statistics'][name]}." for name in ("intervals", "test")]
    notes.append("An interval takes queries as independent; those of one ultra-fine class are alike.")
    if baseline not in [row["method"] for row in rows]:
        notes.append(f"No tests: the baseline {baseline} was not measured.")
    noted: dict[str, list[str]] = {}  # many methods that ask a language model have one note
    for row in rows:
        if "note" in row:
            noted.setdefault(row["note"], []).append(row["method"])
    notes += [f"{', '.join(methods)}: {note}." for note, methods in noted.items()]
    notes += [
        f"{row['method']}: {row['degraded']} of {row['overall']['queries']} answers lack something, such as: "
        f"{row['degraded_such_as']}."
        for row in rows
        if row.get("degraded_such_as")
    ]
    if any(row["overall"]["queries"] < document["queries"] for row in rows):
        notes.append(
            "Methods with fewer queries were measured on a sample: compare their figures with others' by the "
            "difference, which is of the same queries."
        )
    return Table("All methods", [*header, "ms a query", "degraded"], lines, notes)


def _test(test: Mapping[str, Any] | None, is_baseline: bool) -> list[str]:
    if test is None:
        return ["(baseline)" if is_baseline else "", "", "", ""]
    interval = f"{test['low']:+.2f} to {test['high']:+.2f}"
    return [f"{test['difference']:+.2f}", interval, f"{test['p']:.4f}", f"{test['p_holm']:.4f}"]


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.1f}"
