"""List every command of the repository, and run one: the command ``seedset``.

``seedset train-encoder`` is ``python -m jobs.train_encoder``, which stays for ``ray job submit``. A command
is named by its module, and imported when it is run, so that the list and a completion answer at once.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cluster.commandline import Command, GroupedOptions, run_app
from engine.versions import version_of

NAME = "seedset"

STACK = ("ray", "torch", "transformers", "deepspeed", "faiss-cpu", "pyarrow", "pydantic")
"""Distributions whose versions decide what a run does."""


class Entry(NamedTuple):
    """A command: the module that holds it, and what it does in one line."""

    module: str
    summary: str

    def load(self) -> Command[Any]:
        """Import the command."""
        found: Command[Any] = importlib.import_module(self.module).main
        return found


COMMANDS: dict[str, dict[str, Entry]] = {
    "Prepare": {
        "read-wikidata": Entry("jobs.read_wikidata", "Make a table of entities from a dump of Wikidata."),
        "link": Entry("jobs.link", "Find the entities of a table in raw texts, for import."),
        "import": Entry("jobs.import_corpus", "Import a corpus of sentences and images into a workspace."),
        "export": Entry("jobs.export", "Write the corpus as a Hugging Face data set."),
        "choose-images": Entry("jobs.choose_images", "Choose the best of several images for each sentence."),
        "image-features": Entry("jobs.image_features", "Compute patch features of the corpus' images."),
        "preprocess": Entry("jobs.preprocess", "Make the masked model input of the corpus."),
        "refresh": Entry("jobs.refresh", "Make anew what was made before the corpus grew."),
        "clean": Entry("jobs.clean", "Remove former bundles and what nothing that is kept needs."),
    },
    "Train": {
        "train-encoder": Entry("jobs.train_encoder", "Train the entity encoder, of text or with images."),
        "build-index": Entry("jobs.build_index", "Make the entity vectors and publish them as a bundle."),
        "mine-contrast": Entry(
            "jobs.mine_contrast", "Mine lists of entities like the seeds, for contrastive training."
        ),
        "pretrain-lm": Entry("jobs.pretrain_lm", "Train a language model on the corpus and publish it."),
        "label-mentions": Entry(
            "jobs.label_mentions", "Label mentions for a typing model from a few seeds of each type."
        ),
        "train-typing": Entry("jobs.train_typing", "Train a model that types mentions of entities."),
    },
    "Expand and evaluate": {
        "make-queries": Entry(
            "jobs.make_queries", "Make queries with known answers from entities' attributes."
        ),
        "expand": Entry("jobs.expand", "Expand a table of queries into Parquet."),
        "evaluate": Entry("jobs.evaluate", "Measure methods on queries with known answers."),
        "calibrate": Entry("jobs.calibrate", "Fit how probable it is that an answer belongs to the set."),
        "report": Entry("jobs.report", "Fill the papers' tables: every method, with tests and figures."),
        "reproduce": Entry(
            "jobs.reproduce", "Run all commands with a paper's settings, from its data to its table."
        ),
        "evaluate-typing": Entry(
            "jobs.evaluate_typing", "Measure predicted types, of a model or after a few examples."
        ),
        "type-mentions": Entry("jobs.type_mentions", "Type the mentions of a file into Parquet."),
        "ablate": Entry("jobs.ablate", "Train and measure MultiExpan without some of its parts."),
    },
    "Serve": {
        "serve": Entry("serve.run", "Serve expansions and the web page over HTTP."),
        "bundles": Entry("serve.operations.bundles", "List a workspace's bundles, or choose the one served."),
        "overlay": Entry(
            "serve.operations.overlay", "Write entities added and deleted while serving, for `import`."
        ),
        "token": Entry("serve.operations.token", "Make a bearer token for the service."),
        "audit": Entry("serve.operations.audit", "Read who asked and changed what of the service."),
    },
    "Cluster": {
        "check-cluster": Entry("cluster.check", "Check a cluster file, and list the nodes connected."),
        "size": Entry("cluster.size", "Plan a cluster: nodes, memory, disk, with the arithmetic."),
        "local-cluster": Entry("cluster.local", "Run several Ray nodes on this machine."),
        "crash": Entry(
            "cluster.crasher", "Kill parts of a small cluster at work; check that nothing is lost."
        ),
    },
}
"""Every command by its name, under the heading of the list, in the order of a first use."""

EXAMPLES = """
Examples:
  seedset import --help
  seedset bundles --workspace demo-workspace/workspace
  seedset serve --workspace demo-workspace/workspace
"""


def entries() -> Iterator[tuple[str, Entry]]:
    """Yield every command with its name."""
    for section in COMMANDS.values():
        yield from section.items()


class Commands(TyperGroup):
    """The commands as typer sees them: names and summaries until one is run or completed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for heading, section in COMMANDS.items():
            for name, entry in section.items():
                listed = TyperCommand(name, short_help=entry.summary, rich_help_panel=heading)
                self.add_command(listed)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the words name, imported, and the words that are left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        found = dict(entries()).get(name or "")
        return name, get_command(found.load().app) if found else command, rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, then the options."""
        for heading, section in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry.summary) for name, entry in section.items()])
        GroupedOptions.format_options(self, ctx, formatter)  # type: ignore[arg-type]


app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def version_lines() -> Iterator[str]:
    """Yield the version of the package, of Python, and of what decides a run, importing none of it."""
    yield f"{NAME} {version_of(NAME) or 'not installed'}"
    yield f"python {platform.python_version()}"
    for name in STACK:
        yield f"{name} {version_of(name) or 'not installed'}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print("\n".join(version_lines()))
        raise typer.Exit


@app.callback(epilog="\b" + EXAMPLES)
def _about(
    version: bool = typer.Option(
        False, "--version", help="Print the versions of the stack.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Expand sets of entities by positive and negative seeds: prepare a corpus, train, evaluate, serve.

    `seedset NAME --help` explains a command. On a cluster the same commands are modules, such as
    `ray job submit --working-dir . -- python -m jobs.train_encoder`.
    """


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line, on ``sys.argv`` or on these words."""
    run_app(app, words, NAME)


if __name__ == "__main__":
    main()
