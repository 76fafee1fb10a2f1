"""The demo's second half: the same countries, read and seen.

A workspace of its own, with the sentences of countries and the pictures of their flags; a backbone that
is made here; and a question that no sentence answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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

Run = Callable[..., None]

SEEDS = ["France", "Italy", "Ireland"]
WANTED, CLASS = "flags of three upright stripes", "image_vertical_tricolour"
ANSWERS = {"lexical": "by words", "image": "by looks", "multimodal": "by both"}
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
        records = map(json.loads, (sample / file).read_text(encoding="utf-8").splitlines())
        own = [r for r in records if r.get("entity", r.get("name")) in names]
        for record in own:
            if "image" in record:
                record["image"] = str((sample / record["image"]).resolve())
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in own]
        (output / file).write_text("".join(lines), encoding="utf-8")
        counts[file] = len(lines)
    return counts


def read_and_seen(run: Run, folder: Path, console: Console, epochs: int) -> None:
    """Take the countries from corpus to measured answers.

    Args:
        run: runs a job by its module and arguments.
        folder: of the demo, with the sample; receives the backbone and the workspace.
        console: to talk on.
        epochs: of training.
    """
    sample, source = folder / "sample", folder / "countries"
    workspace = str(folder / "workspace-pictures")
    counts = countries_alone(sample, source)
    pictures = len(list((sample / IMAGES).iterdir()))
    console.print(f"\ncountries alone: {counts}, {pictures} pictures of flags", soft_wrap=True)
    loss = make_backbone(folder / "backbone")
    console.print(f"a vision backbone, made of invented flags: {folder / 'backbone'} (loss {loss:.2f})")
    run("jobs.import_corpus", "--format", "jsonl", "--source", str(source), "--workspace", workspace)
    run("jobs.image_features", "--workspace", workspace, "--model", str(folder / "backbone"), "--grid", "3")
    run("jobs.preprocess", "--workspace", workspace, "--images")
    layers = ["--visual-layers", "1", "--cross-layers", "1", "--epochs", str(epochs)]
    run("jobs.train_encoder", "--workspace", workspace, "--modality", "text+image", *layers)
    run("jobs.build_index", "--workspace", workspace)
    bundle = Bundle.open(Workspace.open(workspace))
    console.print(_answers(bundle))
    console.print(_measured(bundle, sample / "multimodal" / "query"))


def _answers(bundle: Bundle) -> Table:
    """Return what words, looks and both answer, members of the class in green."""
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
