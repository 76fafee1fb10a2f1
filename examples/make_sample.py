"""Command line: writes the sample data set into a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from examples.multimodal import COUNTRIES, picture_contexts, with_images, write_images, write_queries
from examples.queries import make_queries
from examples.sentences import describe, write_class
from examples.tables import attributes_of, load_classes, load_table, values

EXAMPLE = """\
example:
  python -m examples.make_sample --output /tmp/sample
  python -m examples.make_sample --output /tmp/elements --class elements

writes
  /tmp/sample/entities.jsonl         one entity a line: name, aliases, description, attributes
  /tmp/sample/sentences.jsonl        one sentence a line with the offsets of the mention, and an image
                                     for some: a path relative to the folder
  /tmp/sample/sentences_images.jsonl contexts that are an image without a sentence
  /tmp/sample/images/                pictures of flags
  /tmp/sample/queries/<class>.json   queries with seeds and ground truth, one file a class
  /tmp/sample/multimodal/            multi-modal queries in MESED's layout

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
    """The sentences of a class as they are written out; those of countries partly with an image."""
    records: list[dict[str, object]] = [
        {"entity": s.entity, "sentence": s.text, "start": s.start, "end": s.end} for s in write_class(cls)
    ]
    return with_images(records) if cls == COUNTRIES else records


def write_lines(path: Path, records: Iterable[dict[str, object]]) -> int:
    """Writes one JSON object a line and says how many there were."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def write_small_sample(output: Path, cls: str) -> dict[str, int]:
    """Writes entities, sentences and queries of one class alone, without images, and counts them."""
    output.mkdir(parents=True, exist_ok=True)
    sentences = ({k: v for k, v in one.items() if k != "image"} for one in sentence_records(cls))
    return {
        "entities": write_lines(output / "entities.jsonl", entity_records(cls)),
        "sentences": write_lines(output / "sentences.jsonl", sentences),
        "queries": _write_queries(output, cls),
    }


def _write_queries(output: Path, cls: str) -> int:
    queries = make_queries(cls)
    path = output / "queries" / f"{cls}.json"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(queries, ensure_ascii=False, indent=1) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    return len(queries)


def write_sample(output: Path) -> dict[str, int]:
    """Writes the whole sample and counts what was written."""
    output.mkdir(parents=True, exist_ok=True)
    classes = list(load_classes())
    entities = [record for cls in classes for record in entity_records(cls)]
    counts = {
        "entities": write_lines(output / "entities.jsonl", entities),
        "sentences": write_lines(
            output / "sentences.jsonl", (r for cls in classes for r in sentence_records(cls))
        ),
        "queries": 0,
        "images": write_images(output),
        "contexts of an image alone": _write_picture_contexts(output),
        "multi-modal queries": write_queries(output / "multimodal", [str(r["name"]) for r in entities]),
    }
    counts["queries"] = sum(_write_queries(output, cls) for cls in classes)
    return counts


def _write_picture_contexts(output: Path) -> int:
    """Writes the contexts without a sentence, in a file of their own that importers read as well."""
    records = picture_contexts()
    return write_lines(output / "sentences_images.jsonl", records) if records else 0


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
    parser.add_argument(
        "--class", choices=list(load_classes()), dest="cls", help="write this class alone, without images"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    args = parse_args(argv)
    counts = write_small_sample(args.output, args.cls) if args.cls else write_sample(args.output)
    print(", ".join(f"{number} {what}" for what, number in counts.items()), "->", args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
