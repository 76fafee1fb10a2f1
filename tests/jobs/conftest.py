"""Share what the tests of jobs need: a workspace with model input, made once, and a small local Ray."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.session import session
from engine.corpus.inputs.format import InputSettings
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.storage.workspace import Workspace
from jobs.steps.model_input import preprocess
from jobs.workers import executor
from jobs.workers.executor import LocalExecutor
from tests.support.corpora import run_import, ultrawiki
from tests.support.grown import Generation, Grown, grown

METALS = ["iron", "gold", "zinc", "lead", "tin", "silver"]
TOLD = ["is found in mines", "melts in a furnace", "was known to smiths", "is sold by weight", "shines"]


def import_metals(workspace: str, raw: Path) -> None:
    """Import 6 entities with 60 sentences; all but the last have a description."""
    sentences = {n: [f"We know that {n} {t} {w}." for t in TOLD for w in ("here", "there")] for n in METALS}
    described = {n: f"{n} is a metal." for n in METALS[:-1]}
    run_import(workspace, ultrawiki(raw, sentences, ent2text=described), "ultrawiki")


def prepare_metals(folder: Path) -> tuple[Workspace, str, str]:
    """Import :func:`import_metals`, and make the model input of the encoder in ``folder / "m"``.

    Returns:
        The workspace, the encoder's folder, and the input's key.
    """
    import_metals(str(folder / "w"), folder / "raw")
    workspace, model = Workspace.open(folder / "w"), str(folder / "m")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(model)), max_length=64)
    return workspace, model, preprocess(workspace, model, settings, LocalExecutor()).key


@contextmanager
def no_cluster() -> Iterator[None]:
    """Commands use no cluster where one process is enough, though another test may have connected to one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "has_cluster", lambda: False)
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


@pytest.fixture(scope="package")
def ray_local() -> Iterator[None]:
    """A Ray of two CPUs in this process, for tests marked ray. It ends with the tests of jobs."""
    with session(cpus=2):
        yield


@pytest.fixture(autouse=True)
def _actors_go_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """The error that a test caught may hold actors, and these cores of a cluster that the next one needs."""
    yield
    if "ray_local" in request.fixturenames:
        gc.collect()


@pytest.fixture(scope="session")
def grown_original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Generation]]:
    """A workspace of three generations, not to be changed."""
    folder = tmp_path_factory.mktemp("grown")
    return folder / "w", grown(folder / "w", folder / "raw")[1]


@pytest.fixture
def work(grown_original: tuple[Path, list[Generation]], tmp_path: Path) -> Grown:
    """A copy of a workspace of three generations, to clean."""
    shutil.copytree(grown_original[0], tmp_path / "w")
    return Workspace.open(tmp_path / "w"), grown_original[1]
