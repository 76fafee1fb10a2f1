"""The whole system on the embedded sample: corpus, trainings, index, service, answers, metrics, pictures.

Every step is the command that a user would type, run on one small Ray cluster on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.local import free_port, local_cluster
from examples.demo_pictures import read_and_seen
from examples.make_sample import write_sample
from serve.run import served
from serve.settings import ServeSettings

POSITIVE = ["Japan", "Thailand", "Jordan", "Morocco"]
NEGATIVE = ["Norway", "Spain", "Denmark"]
WANTED = "monarchies, but none in Europe"
SHOWN = 20
COMPOSED = "default+lm-rerank"
"""Retrieval recall, then generative re-ranking, then re-ranking by the negative seeds."""

console = Console(highlight=False)


class Steps:
    """Runs the steps and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a block as a step."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started

    def run(self, module: str, *arguments: str) -> None:
        """Run a job as a user would; end the demo if it fails."""
        console.print(f"\n$ python -m {module} {' '.join(arguments)}", style="bold cyan", soft_wrap=True)
        with self.timed(module):
            done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
        if done.returncode:
            sys.exit(f"{module} ended with status {done.returncode}")

    def show(self) -> None:
        """Print the time of each step."""
        table = Table(title="seconds", title_justify="left", box=None)
        for name, seconds in self.seconds.items():
            table.add_row(name, f"{seconds:.1f}")
        table.add_row("in all", f"{sum(self.seconds.values()):.1f}", style="bold")
        console.print(table)


def prepare(steps: Steps, folder: Path, epochs: int, lm_epochs: int) -> None:
    """Make the sample and everything up to a published bundle."""
    workspace = str(folder / "workspace")
    sample = str(folder / "sample")
    with steps.timed("examples.make_sample"):
        console.print(f"the embedded sample: {write_sample(Path(sample))}", soft_wrap=True)
    steps.run("jobs.import_corpus", "--format", "jsonl", "--source", sample, "--workspace", workspace)
    steps.run("jobs.preprocess", "--workspace", workspace)
    steps.run("jobs.train_encoder", "--workspace", workspace, "--epochs", str(epochs))
    steps.run("jobs.build_index", "--workspace", workspace)
    model = ["--init-from-config", "tiny", "--vocab-size", "2048", "--lists", "40"]
    steps.run("jobs.pretrain_lm", "--workspace", workspace, *model, "--epochs", str(lm_epochs))


def ask(url: str, negative: list[str], method: str = COMPOSED) -> list[dict[str, Any]]:
    """Return the entities that the service ranks best."""
    body = {"positive": POSITIVE, "negative": negative, "top_k": SHOWN, "method": method}
    console.print(f"POST {url}/v1/expand {json.dumps(body)}", style="cyan", soft_wrap=True)
    request = urllib.request.Request(
        f"{url}/v1/expand", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return list(json.load(answer)["results"])


def compare(without: list[dict[str, Any]], with_negative: list[dict[str, Any]]) -> None:
    """Print both lists side by side, and what the negative seeds changed."""
    before = {r["name"]: r["rank"] for r in without}
    after = {r["name"] for r in with_negative}
    table = Table(title=f"\n{WANTED}: like {', '.join(POSITIVE)}", title_justify="left", box=None)
    for column in ("rank", "positive seeds only", f"and not like {', '.join(NEGATIVE)}", "change"):
        table.add_column(column)
    for old, new in zip(without, with_negative, strict=True):
        left = old["name"] if old["name"] in after else f"[red]{old['name']} (goes)[/red]"
        moved = before.get(new["name"])
        if moved is None:
            change = "[green]new[/green]"
        else:
            change = "" if moved == new["rank"] else f"{moved - new['rank']:+d}"
        table.add_row(str(new["rank"]), left, new["name"], change)
    console.print(table)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo-workspace"), help="made anew each time")
    parser.add_argument("--epochs", type=int, default=12, help="of training (default: 12)")
    parser.add_argument("--lm-epochs", type=int, default=3, help="of the language model (default: 3)")
    parser.add_argument("--picture-epochs", type=int, default=2, help="of read and seen (default: 2)")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    steps = Steps()
    with local_cluster(nodes=1, cpus_per_node=os.cpu_count() or 2) as cluster:
        os.environ["RAY_ADDRESS"] = cluster.address
        prepare(steps, options.folder, options.epochs, options.lm_epochs)
        workspace = str(options.folder / "workspace")
        settings = ServeSettings(workspace=workspace)
        with steps.timed("serve.run, three questions"), served(settings, port=free_port()) as url:
            console.print(f"\nserving at {url}", style="bold cyan")
            without, with_negative = ask(url, []), ask(url, NEGATIVE)
            generated = ask(url, NEGATIVE, "genexpan")
        compare(without, with_negative)
        console.print(f"\ngenerated by the language model alone: {', '.join(r['name'] for r in generated)}")
        queries = str(options.folder / "sample" / "queries")
        names = ["retexpan", "retexpan+lm-rerank", "default", COMPOSED]
        methods = [word for name in names for word in ("--method", name)]
        steps.run("jobs.evaluate", "--workspace", workspace, "--queries", queries, *methods)
        read_and_seen(steps.run, options.folder, console, options.picture_epochs)
    steps.show()


if __name__ == "__main__":
    main()
