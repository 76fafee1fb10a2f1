"""Command line: writes the sample data set into a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from examples.queries import make_queries
from examples.sentences import describe, write_class
from examples.tables import attributes_of, load_classes, load_table, values

EXAMPLE = """\
example:
  python -m examples.make_sample --output /tmp/sample

writes
  /tmp/sample/entities.jsonl         one entity a line: name, aliases, description, attributes
  /tmp/sample/sentences.jsonl        one sentence a line with the offsets of the mention
  /tmp/sample/queries/<class>.json   queries with seeds and ground truth, one file a class

The output is the same on every run.
"""


def entity_records(cls: str) -> list[dict[str, object]]:
    """The entities of a class as they are written out."""
    return [
        {
            "name": name,
            "aliases": values(row, "aliases"),
            "description": describe(cls, row),
            "attributes": attributes_of(cls, row),
        }
        for name, row in load_table(cls).items()
    ]


def sentence_records(cls: str) -> list[dict[str, object]]:
    """The sentences of a class as they are written out."""
    return [
        {"entity": s.entity, "sentence": s.text, "start": s.start, "end": s.end} for s in write_class(cls)
    ]


def write_lines(path: Path, records: Iterable[dict[str, object]]) -> int:
    """Writes one JSON object a line and says how many there were."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def write_sample(output: Path) -> dict[str, int]:
    """Writes the whole sample and counts what was written."""
    (output / "queries").mkdir(parents=True, exist_ok=True)
    classes = list(load_classes())
    counts = {
        "entities": write_lines(
            output / "entities.jsonl", (r for cls in classes for r in entity_records(cls))
        ),
        "sentences": write_lines(
            output / "sentences.jsonl", (r for cls in classes for r in sentence_records(cls))
        ),
        "queries": 0,
    }
    for cls in classes:
        queries = make_queries(cls)
        text = json.dumps(queries, ensure_ascii=False, indent=1) + "\n"
        path = output / "queries" / f"{cls}.json"
        path.write_text(text, encoding="utf-8", newline="\n")
        counts["queries"] += len(queries)
    return counts


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.make_sample",
        description="Write the sample data set (entities, sentences, queries) into a folder.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to write, made if missing"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    args = parse_args(argv)
    counts = write_sample(args.output)
    print(", ".join(f"{number} {what}" for what, number in counts.items()), "->", args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
