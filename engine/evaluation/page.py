"""Write a report as one HTML file: tables and figures in it, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from engine.evaluation.comparison import Document
from engine.evaluation.plots import Plot
from engine.evaluation.report import markdown_table
from engine.evaluation.tables import Table

IN_PERCENT = (
    "All figures in percent. Pos: against what is wanted, higher is better. Neg: against what the negative "
    "seeds stand for, lower is better. Comb: (Pos + 100 - Neg) / 2."
)
NOT_MEASURED = "Queries that were not measured"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 0 1rem 4rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; }
p.note, figcaption { color: GrayText; font-size: .85rem; }
td.text { text-align: left; white-space: normal; }
"""


def html(document: Document, tables: Sequence[Table], plots: Sequence[Plot], title: str) -> str:
    """Return the page.

    Args:
        document: says what was measured.
        tables: in the order of the page.
        plots: shown after the first table.
        title: of the page.
    """
    parts = [f"<h1>{escape(title)}</h1>", _about(document), *map(_table, tables[:1])]
    parts += [_figure(plot) for plot in plots]
    parts += map(_table, tables[1:])
    parts.append(_refused(document))
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"


def markdown(document: Document, tables: Sequence[Table], title: str) -> str:
    """Return what :func:`html` shows, without figures, for a terminal or a repository."""
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in _facts(document).items()), ""]
    lines += [IN_PERCENT, ""]
    for table in tables:
        lines += [f"## {table.title}", "", *markdown_table(table.header, table.rows), ""]
        lines += [line for note in table.notes for line in (note, "")]
    if document["refused"]:
        lines += [f"## {NOT_MEASURED}", "", *(f"- {one}" for one in _refusals(document)), ""]
    return "\n".join(lines)


def _facts(document: Document) -> dict[str, str]:
    """Return what was measured on."""
    classes = ", ".join(f"{label} {n}" for label, n in document["classes"].items())
    missing = f"{document['missing_truth']} true names are not in the vocabulary"
    return {
        "bundle": document["bundle"],
        "queries": f"{document['queries']} ({classes})",
        "truth": f"protocol {document['protocol']}; {missing}",
    }


def _about(document: Document) -> str:
    facts = _facts(document).items()
    cells = "".join(f"<li>{escape(name)}: {escape(value)}</li>" for name, value in facts)
    return f"<ul>{cells}</ul><p>{IN_PERCENT}</p>"


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    kind = ' class="text"' if len(table.header) == 2 else ""
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    grid = f"<table><thead><tr>{header}</tr></thead>\n<tbody>{rows}</tbody></table>"
    return f'<h2>{escape(table.title)}</h2>\n<div class="wide">{grid}</div>{notes}'


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.png).decode()
    caption = escape(plot.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _refusals(document: Document) -> list[str]:
    """Return a line for each query that was refused."""
    return [
        f"{one['source']}:{one['position']} {one['query_id'] or ''}: {one['reason']}"
        for one in document["refused"]
    ]


def _refused(document: Document) -> str:
    items = "".join(f"<li>{escape(one)}</li>" for one in _refusals(document))
    return f"<h2>{NOT_MEASURED}</h2><ul>{items}</ul>" if items else ""
