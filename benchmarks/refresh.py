"""Measure what a corpus that has grown costs, against making everything anew, and how far answers move.

A source in UltraWiki's layout is imported without a share of its sentences and without a few entities, which
come later, drawn at random. Two workspaces then have the whole: one by `import --append` and `refresh`, the
other from nothing. Costs are seconds of the processor, which other work on the machine changes less than
times; both run in one process. With --queries, `default` is measured in both, on the queries of that folder.

    python -m benchmarks.refresh --source wikispeedia-mini --queries wikispeedia-mini/query
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report import report
from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import ImportSource
from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.settings import EncoderSettings
from jobs import console
from jobs.settings import TrainingProcesses
from jobs.steps.bundle_comparison import measured, neighbor_overlap_of
from jobs.steps.encoder_training import train
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.index_building import build
from jobs.steps.model_input import preprocess
from jobs.steps.refreshing import HowRefreshed, Refresh
from jobs.workers.executor import LocalExecutor

COST_BAR = 0.1
"""Share of the cost of making everything anew."""

SEED = 13


def write_halves(source: Path, target: Path, share: float) -> tuple[int, int]:
    """Write the corpus without some sentences and entities, and these; return how many sentences each has."""
    rng = random.Random(SEED)
    names = (source / "entities.txt").read_text(encoding="utf-8").splitlines()
    sentences = json.loads((source / "ent2sents.json").read_text(encoding="utf-8"))
    told = json.loads((source / "ent2text.json").read_text(encoding="utf-8"))
    late = set(rng.sample(names, max(1, round(share / 2 * len(names)))))
    base: dict[str, list[str]] = {}
    more: dict[str, list[str]] = {name: [] for name in names if name in late}
    for name in names:
        for one in sentences.get(name, []):
            is_late = name in late or rng.random() < share / 2
            (more if is_late else base).setdefault(name, []).append(one)
    early = [name for name in names if name not in late]
    for folder, part, listed in (("base", base, early), ("more", more, list(more))):
        (target / folder).mkdir()
        (target / folder / "entities.txt").write_text("".join(f"{one}\n" for one in listed), encoding="utf-8")
        (target / folder / "ent2sents.json").write_text(json.dumps(part), encoding="utf-8")
        of_these = {name: told[name] for name in listed if name in told}
        (target / folder / "ent2text.json").write_text(json.dumps(of_these), encoding="utf-8")
    return sum(map(len, base.values())), sum(map(len, more.values()))


class _Costs:
    """Seconds of the processor by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def of(self, step: str, work: Callable[[], object]) -> None:
        """Do some work and note what it took."""
        started = time.process_time()
        work()
        self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - started


def add(workspace: Workspace, source: Path, append: bool) -> None:
    """Import a source, or append it."""
    import_corpus(workspace, ImportSource(str(source)), ImportSettings(append=append))


def make_all(workspace: Workspace, costs: _Costs) -> None:
    """Make everything from a corpus."""
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(embedded_model_path())))
    costs.of("preprocess", lambda: preprocess(workspace, EMBEDDED, settings, LocalExecutor()))
    # Else a pool makes them, whose processor seconds are not this process's.
    frozen = open_inputs(workspace)
    costs.of("frozen layers", lambda: frozen_cache(workspace, frozen, EMBEDDED, executor=LocalExecutor()))
    costs.of("train-encoder", lambda: train(workspace, EncoderSettings()))
    costs.of("build-index", lambda: build(workspace, executor=LocalExecutor()))


def main(
    source: Annotated[Path, typer.Option(help="Folder in UltraWiki's layout.")],
    share: Annotated[float, typer.Option(help="Share of the sentences that come later.")] = 0.01,
    epochs: Annotated[int, typer.Option(help="Epochs of a training that goes on; 0: the encoder stays.")] = 0,
    queries: Annotated[str, typer.Option(help="Also measure `default` on these queries.")] = "",
) -> None:
    """Measure append and refresh against making everything anew."""
    with tempfile.TemporaryDirectory() as folder:
        halves, grown, whole = Path(folder), _Costs(), _Costs()
        before, late = write_halves(source, halves, share)
        ours, plain = (Workspace.open(halves / name) for name in ("ours", "plain"))
        add(ours, halves / "base", append=False)
        make_all(ours, _Costs())
        grown.of("import", lambda: add(ours, halves / "more", append=True))
        ours = Workspace.open(halves / "ours")
        how = HowRefreshed(epochs, True, TrainingProcesses(), 1)
        grown.of("planning", lambda: Refresh(ours, how))
        for step in Refresh(ours, how).steps:
            grown.of(step.command, step.run)

        def import_all() -> None:
            add(plain, halves / "base", append=False)
            add(plain, halves / "more", append=True)

        whole.of("import", import_all)
        plain = Workspace.open(halves / "plain")
        make_all(plain, whole)
        bundles = [Bundle.open(workspace) for workspace in (ours, plain)]
        kept = neighbor_overlap_of(*bundles) or 0.0
        figures = {}
        if queries:
            was, now = (measured(ours, [bundle], queries)[0] for bundle in bundles)
            figures = {"comb_map_grown": was["CombMAP"], "comb_map_anew": now["CombMAP"]}
    total = sum(whole.seconds.values())
    ratio = sum(grown.seconds.values()) / total
    report(
        f"{late} sentences appended to {before}, then refresh, against everything anew (processor seconds)",
        ["", "append, refresh", "anew", "ratio"],
        [
            [
                step,
                f"{(own := grown.seconds.get(step, 0.0)):.1f}",
                f"{(anew := whole.seconds.get(step, 0.0)):.1f}",
                f"{own / anew:.2f}" if anew else "",
            ]
            for step in dict.fromkeys([*whole.seconds, *grown.seconds])
        ],
        name="refresh",
        ratio=ratio,
        seconds_anew=total,
        neighbors_in_common=kept,
        **figures,
        holds=ratio <= COST_BAR,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.refresh --source wikispeedia-mini")
