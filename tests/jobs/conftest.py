"""A workspace with model input, made once for the tests of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.corpus.inputs.format import InputSettings
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.storage.workspace import Workspace
from jobs.preprocess import preprocess
from jobs.workers import executor
from jobs.workers.executor import LocalExecutor
from tests.support.corpora import run_import, ultrawiki

METALS = ["iron", "gold", "zinc", "lead", "tin", "silver"]
TOLD = ["is found in mines", "melts in a furnace", "was known to smiths", "is sold by weight", "shines"]


def import_metals(workspace: str, raw: Path) -> None:
    """Import 6 entities with 60 sentences; all but the last have a description."""
    sentences = {n: [f"We know that {n} {t} {w}." for t in TOLD for w in ("here", "there")] for n in METALS}
    described = {n: f"{n} is a metal." for n in METALS[:-1]}
    run_import(workspace, ultrawiki(raw, sentences, ent2text=described), "ultrawiki")


@contextmanager
def no_cluster() -> Iterator[None]:
    """Commands use no cluster where one process is enough, though another test may have connected to one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "_has_cluster", lambda: False)
        yield


@pytest.fixture(scope="module")
def in_this_process() -> Iterator[None]:
    """All tests of a module run with :func:`no_cluster`."""
    with no_cluster():
        yield


@pytest.fixture
def alone() -> Iterator[None]:
    """One test runs with :func:`no_cluster`."""
    with no_cluster():
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local workspace with :func:`import_metals` and model input."""
    folder = tmp_path_factory.mktemp("metals")
    import_metals(str(folder / "w"), folder / "raw")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(embedded_model_path())))
    preprocess(Workspace.open(folder / "w"), EMBEDDED, settings, LocalExecutor())
    return folder / "w"
