"""The demo's second half: the same countries, by text and by images.

A workspace of its own, with the sentences of countries and the images of their flags; a backbone that
is made here; and a question that no sentence answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.evaluation.report import evaluate
from engine.methods import method
from engine.queries.formats import read_queries
from engine.query import Query
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from examples.backbone import make_backbone
from examples.multimodal import COUNTRIES, IMAGES, class_members
from examples.tables import load_table

if TYPE_CHECKING:  # tests use what is here without the commands
    from examples.demo_steps import Steps

SEEDS = ["France", "Italy", "Ireland"]
WANTED, CLASS = "flags of three upright stripes", "image_vertical_tricolour"
ANSWERS = {"lexical": "by text", "image": "by images", "multimodal": "by both"}
MEASURED = ("lexical", "image", "multimodal", "default")
KINDS = ("image", "text", "both")
"""What tells the members of a class: the first word of its name."""
SHOWN = 12


def countries_alone(sample: Path, output: Path) -> dict[str, int]:
    """Write what the sample says and shows of countries as a source of its own, and count the records."""
    names = set(load_table(COUNTRIES))
    output.mkdir(parents=True, exist_ok=True)
    counts = {}
    for file in ("entities.jsonl", "sentences.jsonl", "sentences_images.jsonl"):
        records = [json.loads(line) for line in (sample / file).open(encoding="utf-8")]
        own = [r for r in records if r.get("entity", r.get("name")) in names]
        for record in own:
            if "image" in record:
                record["image"] = str((sample / record["image"]).resolve())
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in own]
        (output / file).write_text("".join(lines), encoding="utf-8")
        counts[file] = len(lines)
    return counts


def text_and_images(steps: Steps, folder: Path, console: Console, epochs: int) -> None:
    """Take the countries from corpus to measured answers.

    Args:
        steps: runs the commands.
        folder: of the demo, with the sample; receives the backbone and the workspace.
        console: to talk on.
        epochs: of training.
    """
    sample, source = folder / "sample", folder / "countries"
    workspace, backbone = str(folder / "workspace-images"), folder / "backbone"
    counts = countries_alone(sample, source)
    images = len(list((sample / IMAGES).iterdir()))
    console.print(f"\ncountries alone: {counts}, {images} images of flags", soft_wrap=True)
    with steps.timed("examples.backbone"):
        loss = make_backbone(backbone)
    console.print(f"a vision backbone, made of invented flags: {backbone} (loss {loss:.2f})")
    place = ("--workspace", workspace)
    alone = (*place, "--workers", "1")
    steps.run("import", "--format", "jsonl", "--source", str(source), *place)
    steps.run("image-features", *alone, "--model", str(backbone), "--grid", "3")
    steps.run("preprocess", *alone, "--images")
    layers = ["--visual-layers", "1", "--cross-layers", "1", "--epochs", str(epochs)]
    steps.run("train-encoder", *place, "--modality", "text+image", *layers)
    steps.run("build-index", *alone)
    bundle = Bundle.open(Workspace.open(workspace))
    with steps.timed("questions with images"):
        console.print(_answers(bundle))
        console.print(_measured(bundle, sample / "multimodal" / "query"))


def _answers(bundle: Bundle) -> Table:
    """Return the answers by text, by images and by both, members of the class in green."""
    names = bundle.vocabulary.names
    seeds = bundle.vocabulary.resolve_all(SEEDS)
    members = set(class_members(CLASS))
    table = Table(title=f"\n{WANTED}: like {', '.join(SEEDS)}", title_justify="left", box=None)
    columns = []
    for name, heading in ANSWERS.items():
        (expansion,) = method(name).open(bundle)([Query("flags", seeds, top_k=SHOWN)])
        found = [names[i] for i in expansion.ranking.ids]
        hits = sum(one in members for one in found)
        table.add_column(f"{heading} ({hits} of {len(found)} right)")
        columns.append([f"[green]{one}[/green]" if one in members else one for one in found])
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _measured(bundle: Bundle, folder: Path) -> Table:
    """Return MAP@10 of some methods, by what tells the members of the classes."""
    queries = read_queries(Store.open(folder), bundle.vocabulary)
    table = Table(
        title=f"\nMAP@10 of {len(queries.queries)} queries, in percent", title_justify="left", box=None
    )
    for column in ("method", *(f"told by {kind}" for kind in KINDS), "all"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name in MEASURED:
        report = evaluate(method(name).open(bundle), queries)
        by_kind = [
            np.mean([row["PosMAP@10"] for cls, row in report["by_class"].items() if cls.startswith(kind)])
            for kind in KINDS
        ]
        table.add_row(name, *(f"{value:.1f}" for value in (*by_kind, report["overall"]["PosMAP@10"])))
    return table
