"""A relative path in a submitted job would lead into Ray's copy of the code: it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import StorageError, UserError
from engine.expander import Expander
from engine.models.hub import NamedModel
from engine.storage.relative import SUBMITTED, check_relative
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import evaluate
from tests.support.commands import run_command


@pytest.fixture(params=["in Ray's copy of the code", "where a node was started"])
def submitted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's working directory, with a folder ``work`` and a model in it."""
    copied = "copy" in request.param
    here = tmp_path / ("working_dir_files/_ray_pkg_0123456789abcdef" if copied else "home")
    (here / "work").mkdir(parents=True)
    (here / "model").mkdir()
    monkeypatch.chdir(here)
    if copied:
        monkeypatch.delenv(SUBMITTED, raising=False)
    else:
        monkeypatch.setenv(SUBMITTED, "{}")
    return here


@pytest.mark.parametrize("path", ["work", "./work", "../work", "new/output", "."])
def test_every_relative_path_is_refused_and_nothing_is_made(submitted: Path, path: str) -> None:
    words = "a relative path in a submitted job, .*absolute path that every node sees, or s3://"
    opened: tuple[Callable[[str], object], ...] = (Workspace.open, Store.open, Expander.open, check_relative)
    for one in opened:
        with pytest.raises(StorageError, match=words):
            one(path)
    assert sorted(found.name for found in submitted.iterdir()) == ["model", "work"]


def test_absolute_paths_homes_and_names_on_the_hub_pass(submitted: Path, tmp_path: Path) -> None:
    assert Workspace.open(tmp_path / "w").root.path == str(tmp_path / "w")
    assert Store.open("~/w").path == str(Path.home() / "w")
    assert Store.open(f"file://{tmp_path}/w").path == str(tmp_path / "w")
    assert NamedModel.open("bert-base-uncased", "--model").path == "bert-base-uncased"
    with pytest.raises(UserError, match=r"--model model: .*a relative path in a submitted job"):
        NamedModel.open("model", "--model")


def test_a_report_is_refused_before_the_work(submitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--workspace", submitted / "work", "--queries", submitted / "q.json", "--method", "default")
    assert run_command(evaluate.main, *words, "--json", "report.json") == 2
    assert "report.json: a relative path in a submitted job" in capsys.readouterr().err


def test_elsewhere_a_relative_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SUBMITTED, raising=False)
    monkeypatch.chdir(tmp_path)
    assert Workspace.open("work").root.path == str(tmp_path / "work")
