"""The whole system on the embedded sample: corpus, trainings, index, service, answers, metrics, images.

Every step is the command that a user would type; they run in this process, so that libraries load once. Only
the service starts a small Ray cluster, on this machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.local import free_port
from engine.errors import UserError
from examples.demo_images import text_and_images
from examples.demo_steps import Steps
from examples.language_model import FOLDER as MODEL_FOLDER
from examples.language_model import LICENSE, fetch_model
from examples.make_sample import write_sample
from serve.run import served
from serve.settings import ServeSettings

SHOWN = 15
TIMEOUT_S = 120
"""For a machine that does other things, too: an answer takes seconds of a core."""

COMPOSED = "composed"
"""Retrieval recall, then generative re-ranking, then re-ranking by the negative seeds."""

LISTS = ("--neighbor-lists", "20", "--neighbor-view", "joint")  # the view that `default` searches
TINY = ("--init-from-config", "tiny", "--vocab-size", "2048", *LISTS, "--epochs", "2")
"""A new language model, of the sample alone: small enough for the time that there is."""

console = Console(highlight=False)


@dataclass(frozen=True)
class Question:
    """One of the sample's queries, in words."""

    file: str
    query_id: str
    wanted: str
    unwanted: str

    def read(self, queries: Path) -> dict[str, Any]:
        """Return the query with its seeds and its truth, which the sample made of its tables of facts."""
        found = json.loads((queries / self.file).read_text(encoding="utf-8"))
        (query,) = (one for one in found if one["query_id"] == self.query_id)
        return dict(query)


QUESTIONS = (
    Question("elements.json", "elements-003-2", "stable elements", "radioactive ones"),
    Question("solar_system.json", "solar_system-001-0", "moons of Uranus", "moons of Jupiter"),
)
"""Two that the negative seeds help; the table of all queries tells how it is in general."""


def prepare(steps: Steps, folder: Path, epochs: int, language_model: str) -> None:
    """Make the sample and everything up to a published bundle."""
    workspace = str(folder / "workspace")
    sample = str(folder / "sample")
    with steps.timed("examples.make_sample"):
        counts = write_sample(Path(sample))
        console.print("the embedded sample: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    steps.run("import", "--format", "jsonl", "--source", sample, "--workspace", workspace)
    steps.run("preprocess", "--workspace", workspace)
    steps.run("train-encoder", "--workspace", workspace, "--epochs", str(epochs))
    steps.run("build-index", "--workspace", workspace, "--workers", "1")
    model: tuple[str, ...] = TINY
    if language_model == "smollm2":
        with steps.timed("examples.language_model"):
            model = ("--model", str(fetch_model(MODEL_FOLDER)), "--epochs", "0")
        console.print(f"\nSmolLM2-135M-Instruct ({LICENSE}): {MODEL_FOLDER}")
    steps.run("pretrain-lm", "--workspace", workspace, *model)


def body_of(query: dict[str, Any], with_negative: bool) -> dict[str, Any]:
    """Return the body of a request."""
    negative = query["neg_seeds"] if with_negative else []
    return {"positive": query["pos_seeds"], "negative": negative, "top_k": SHOWN, "method": COMPOSED}


def ask(url: str, body: dict[str, Any]) -> list[str]:
    """Return the names of the entities that the service ranks best."""
    request = urllib.request.Request(
        f"{url}/v1/expand", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return [one["name"] for one in json.load(answer)["results"]]


def curl_line(url: str, body: dict[str, Any]) -> str:
    """Return the command that asks the same in a shell."""
    text = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {url}/v1/expand -H 'content-type: application/json' -d '{text}'"


def compare(question: Question, query: dict[str, Any], without: list[str], with_negative: list[str]) -> Table:
    """Return both answers side by side, with what is right and what is unwanted by the sample's facts."""
    right, unwanted = set(query["pos_gt"]), {*query["neg_gt"], *query["neg_seeds"]}
    title = f"\n{question.wanted}, but no {question.unwanted}: like {', '.join(query['pos_seeds'])}"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("rank", justify="right")
    named = ("positive seeds only", without), (f"not like {', '.join(query['neg_seeds'])}", with_negative)
    for heading, names in named:
        table.add_column(f"{heading}\n{share(names, right)} right, {share(names, unwanted)} unwanted")
    for rank, pair in enumerate(zip(without, with_negative, strict=True), start=1):
        table.add_row(str(rank), *(marked(name, right, unwanted) for name in pair))
    return table


def share(names: list[str], of: set[str]) -> str:
    """Return how many of some names are in a set: ``18 of 20``."""
    return f"{sum(name in of for name in names)} of {len(names)}"


def marked(name: str, right: set[str], unwanted: set[str]) -> str:
    """Return a name with a mark for a terminal, which tells without colours, too."""
    if name in right:
        return f"[green]+ {name}[/green]"
    return f"[red]- {name}[/red]" if name in unwanted else f"  {name}"


def question_the_service(steps: Steps, workspace: str, queries: Path) -> None:
    """Serve the bundle and show the answers of the composed graph."""
    console.print(f"\n$ seedset serve --workspace {workspace}", style="bold cyan")
    asked = [(question, question.read(queries)) for question in QUESTIONS]
    settings = ServeSettings(workspace=workspace, timeout_s=TIMEOUT_S)
    with steps.timed("serve, questions"), served(settings, port=free_port()) as url:
        console.print(COMPOSED, "is retrieval, then re-ranking by the language model, then by negative seeds")
        console.print(curl_line(url, body_of(asked[0][1], with_negative=True)), style="cyan", soft_wrap=True)
        for question, query in asked:
            answers = [ask(url, body_of(query, with_negative)) for with_negative in (False, True)]
            console.print(compare(question, query, *answers))
        console.print("+ right, - unwanted, by the sample's tables of facts")
        console.print(
            "Both questions were chosen because negative seeds help them; now all queries of the sample:"
        )


def closing(workspace: str, queries: Path) -> str:
    """Return what was built and how to go on with it."""
    body = body_of(QUESTIONS[0].read(queries), with_negative=True)
    return (
        f"\nBuilt in {workspace}: corpus, encoder, language model, index. Open its page:\n"
        "  make page     # then http://127.0.0.1:8000 in a browser; Ctrl-C stops it\n"
        f"or ask it from another terminal while that runs:\n  {curl_line('http://127.0.0.1:8000', body)}"
    )


def demonstrate(options: argparse.Namespace) -> None:
    """Run all steps."""
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    steps = Steps(console)
    workspace, queries = str(folder / "workspace"), folder / "sample" / "queries"
    prepare(steps, folder, options.epochs, options.language_model)
    question_the_service(steps, workspace, queries)
    # The pre-trained model takes seconds a query: for all of them there is no time.
    names = ["retexpan", "default", *([COMPOSED] if options.language_model == "tiny" else [])]
    methods = [word for name in names for word in ("--method", name)]
    steps.run("evaluate", "--workspace", workspace, "--queries", str(queries), *methods)
    text_and_images(steps, folder, console, options.image_epochs)
    console.print(steps.table())
    console.print(closing(workspace, queries), soft_wrap=True)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo-workspace"), help="made anew each time")
    parser.add_argument("--epochs", type=int, default=12, help="of the text encoder (default: 12)")
    parser.add_argument("--image-epochs", type=int, default=2, help="of the encoder with images (default: 2)")
    parser.add_argument(
        "--language-model",
        choices=("tiny", "smollm2"),
        default="tiny",
        help="tiny: trained here on the sample; smollm2: pre-trained, from a package (default: tiny)",
    )
    try:
        demonstrate(parser.parse_args())
    except UserError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
