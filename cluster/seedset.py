"""List every command of the repository, and run one: the command ``seedset``.

``seedset train-encoder`` is ``python -m jobs.train_encoder``, which stays for ``ray job submit``. A command
is named by its module, and imported when it is run, so that the list and a completion answer at once.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cluster.commandline import Command, GroupedOptions, run_app

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
        "link": Entry("jobs.link", "Find the entities of a table in raw texts, for import."),
        "import": Entry("jobs.import_corpus", "Import a corpus of sentences and images into a workspace."),
        "choose-images": Entry("jobs.choose_images", "Choose the best of several images for each sentence."),
        "image-features": Entry("jobs.image_features", "Compute patch features of the corpus' images."),
        "preprocess": Entry("jobs.preprocess", "Make the masked model input of the corpus."),
        "clean": Entry("jobs.clean", "Remove former bundles and what nothing that is kept needs."),
