"""--set and --method: from words and files to a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, declared
from engine.errors import UserError
from engine.methods import ABLATIONS, METHODS


class Told(CommandSettings):
    method: Annotated[list[str], METHOD_NAME] = Field(default=["retexpan"], description="Methods.")
    set: Changes = declared(MethodSettings, "set")


@command("told --set SegmentRerank.length=8", actions=[LIST_METHODS])
def main(settings: Told) -> None:
    """Take settings."""


class Deployment(BaseModel):
    replicas: int = Field(default=1, description="How many.")


class Served(CommandSettings):
    set: Changes = declared(MethodSettings, "set")
    wait: float = Field(default=1, description="Seconds.")
    stages: dict[str, Deployment] = Field(default={}, description="In files only.")


@command("served")
def serve(settings: Served) -> None:
    """Serve."""


def file(folder: Path, text: str) -> Path:
    path = folder / "told.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def parsed(*words: object) -> dict[str, str]:
    told = main.parse(words)
    return {name: str(pipeline) for name, pipeline in pipelines(told.method, told.set).items()}


def test_settings_come_from_words_and_files_and_words_count_more(tmp_path: Path) -> None:
    assert parsed("--set", "SegmentRerank.length=8", "--set", "Retrieve.k=9") == {
        "retexpan": "Retrieve(k=9) >> SegmentRerank(length=8)"
    }
    flat = file(tmp_path, "set: {SegmentRerank.length: 8, Retrieve.k: 9}")
    assert parsed("--config", flat) == {"retexpan": "Retrieve(k=9) >> SegmentRerank(length=8)"}
    deep = file(tmp_path, "set:\n  SegmentRerank: {length: 8, confidence: none}\n  Retrieve.k: 9\n")
    assert parsed("--config", deep) == {"retexpan": "Retrieve(k=9) >> SegmentRerank(length=8)"}
    flat = file(tmp_path, "set: {SegmentRerank.length: 8, Retrieve.k: 9}")
    both = parsed("--config", flat, "--set", "Retrieve.k=7")
    assert both == {"retexpan": "Retrieve(k=7) >> SegmentRerank(length=8)"}


def test_what_is_printed_is_what_is_read(tmp_path: Path) -> None:
    words = ["--set", "Retrieve.k=9", "--set", "SegmentRerank[1].length=8"]
    printed = CliRunner().invoke(main.app, [*words, "--print-config"], catch_exceptions=False)
    assert main.parse(["--config", file(tmp_path, printed.stdout)]) == main.parse(words)
    printed = CliRunner().invoke(main.app, ["--print-config"], catch_exceptions=False)
    assert main.parse(["--config", file(tmp_path, printed.stdout)]) == main.parse([])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set Retrieve.k", "--set Retrieve.k: write Stage.setting=value"),
        ("--set =3", "--set =3: write Stage.setting=value"),
        ("--set Retrieve.k=1 --set Retrieve.k=2", "--set Retrieve.k: given a second time"),
        ("--set Retrieve.kk=1", "Retrieve.kk: Retrieve has no such setting; did you mean k"),
        ("--set Retriev.k=1", "Retriev.k: no stage is called so here; did you mean Retrieve"),
        ("--method retexpann", "did you mean retexpan? give one of retexpan, "),
        ("--method nothing-like-it", "or module:NAME of a pipeline of your own"),
    ],
)
def test_a_mistake_is_named(words: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(*words.split())
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["set: 3", "set: [Retrieve.k]", "set: {Retrieve: {k: 1}, Retrieve.k: 2}"])
def test_a_mistake_in_a_file_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"told.yaml:1: set: "):
        parsed("--config", file(tmp_path, text))


def test_stages_and_other_settings_share_the_flag() -> None:
    words = ["--set", "SegmentRerank.length=8", "--set", "stages.Retrieve.replicas=2", "--set", "wait=3"]
    assert serve.parse(words) == Served(
        set={"SegmentRerank.length": "8"}, wait=3, stages={"Retrieve": Deployment(replicas=2)}
    )
    with pytest.raises(UserError, match="no setting is called 'wiat'; did you mean wait"):
        serve.parse(["--set", "wiat=3"])


def test_methods_are_listed_each_with_its_stages_and_a_line() -> None:
    done = CliRunner().invoke(main.app, ["--list-methods"], catch_exceptions=False)
    lines = done.stdout.splitlines()
    for name, pipeline in {**METHODS, **ABLATIONS}.items():
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{name}: "))
        assert lines[place + 1].strip() == str(pipeline)
    assert "SegmentRerank: by=embedding, view=mask, length=4, confidence=None" in lines
    shown = CliRunner().invoke(main.app, ["--help"], catch_exceptions=False).stdout
    assert "--set <Stage.setting=value>" in shown
    assert "--list-methods" in shown
