"""Command lines made of settings: types, bounds, groups, the file, precedence, and what errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typer.testing import CliRunner

from cluster.commandline import Command, command, preformatted
from cluster.options import CommandSettings, Flag, Group, declared, options_of
from engine.errors import FormatError, UserError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rate: float = Field(default=0.5, gt=0, le=1, description="A rate")
    found: str = ""


class Layers(BaseModel):
    depth: int = Field(default=2, ge=1, description="Layers.")
    both: bool = Field(default=True, description="A pair of flags.")
    seed: int = Field(default=13, ge=0, description="Of the draw.")
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _not_deep_alone(self) -> Layers:
        if self.depth > 9 and not self.both:
            raise ValueError("so many layers need both")
        return self


class Wide(BaseModel):
    seed: int = Field(default=7, ge=3, description="Of the draw.")
    width: int = declared(Layers, "depth")


class Told(CommandSettings):
    place: str = Field(description="Where.")
    many: list[str] = Field(default=[], description="Repeated.")
    most: int | None = Field(default=None, le=9, description="At most.  [default: as many as there are]")
    stage: Literal[1, 2, 3] = Field(default=1, description="A number of three.")
    form: Annotated[Literal["a", "b"], Flag("--format")] = Field(default="a", description="A form.")
    file: Path | None = Field(default=None, description="A file.")
    layers: Annotated[Layers, Group(without=["inner.found"])] = Layers(depth=4)
    wide: Annotated[Wide, Group(label="if wide", flags={"width": "--breadth"})] = Wide()
    named: dict[str, Inner] = Field(default={}, description="In files only.")
    at_once: int = Field(default=1, description="Together.")
    strict: bool = Field(default=False, description="No pardon")


ran: list[Told] = []


@command("tell --place here", about=preformatted("A ``code``    column\n\n=="))
def main(settings: Told) -> None:
    """Do what is told."""
    ran.append(settings)


def file(folder: Path, text: str) -> Path:
    path = folder / "told.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_type_comes_through() -> None:
    words = "--place p --many a --many b --most 3 --stage 2 --format b --file f --depth 5 --no-both"
    told = main.parse(f"{words} --rate 1e-2 --seed 9 --breadth 6 --strict".split())
    assert told == Told(
        place="p",
        many=["a", "b"],
        most=3,
        stage=2,
        form="b",
        file=Path("f"),
        layers=Layers(depth=5, both=False, seed=9, inner=Inner(rate=0.01)),
        wide=Wide(seed=9, width=6),
        strict=True,
    )


def test_what_is_not_given_is_as_declared() -> None:
    assert main.parse(["--place", "p"]) == Told(place="p")
    told = main.parse(["--place", "p", "--rate", "1"])
    assert told.layers == Layers(depth=4, inner=Inner(rate=1)), "the rest of the group's default stays"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--place is required: give it here or in a settings file"),
        ("--place p --depth 0", "--depth 0: give a whole number, at least 1"),
        ("--place p --depth many", "--depth many: give a whole number, at least 1"),
        ("--place p --rate 2", "--rate 2: give a number, more than 0, at most 1"),
        ("--place p --most 10", "--most 10: give a whole number, at most 9"),
        ("--place p --stage 4", "--stage 4: give one of 1, 2, 3"),
        ("--place p --format c", "--format c: give one of a, b"),
        ("--place p --seed 1", "--seed 1: give a whole number, at least 3"),
        ("--place p --depth 10 --no-both", "so many layers need both"),
        ("--place p --depth 0 --stage 4", "--stage 4: give one of 1, 2, 3; --depth 0: give a whole number"),
        ("--place p --set named.x.rate=2", "--set named.x.rate: 2: Input should be less than or equal to 1"),
        ("--place p --set nmed.x=2", "no setting is called 'nmed'; did you mean named?"),
        ("--place p --set named", "--set named: write key=value"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(words: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        main.parse(words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_gives_what_the_command_line_does_not(tmp_path: Path) -> None:
    text = "place: w\nmost: 4\nstrict: true\nmany: [x]\nrate: 0.25\nnamed: {a: {rate: 1}, b: {}}\n"
    path = file(tmp_path, text)
    told = main.parse(["--config", path, "--most", "5", "--no-strict", "--set", "named.b.rate=0.1"])
    assert (told.place, told.most, told.strict, told.many) == ("w", 5, False, ["x"])
    assert told.layers.inner.rate == 0.25
    assert {name: one.rate for name, one in told.named.items()} == {"a": 1, "b": 0.1}
    assert told.layers.depth == 4, "neither gives it"


@pytest.mark.parametrize("key", ["at_once", "at-once"])
def test_dashes_and_underscores_are_the_same(tmp_path: Path, key: str) -> None:
    assert main.parse(["--config", file(tmp_path, f"place: w\n{key}: 3\n")]).at_once == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("place: w\ndepht: 3\n", "told.yaml:2: no setting is called 'depht'; did you mean depth?"),
        ("place: w\nxyzzy: 3\n", "told.yaml:2: no setting is called 'xyzzy'; see --help"),
        ("place: w\nlayers: {depth: 3}\n", "no setting is called 'layers'"),
        ("place: w\nfound: x\n", "no setting is called 'found'"),
        ("place: [3]\n", "told.yaml:1: place: ['3']: give text"),
        ("place: w\nnamed: {a: {rate: 1}, a: {rate: 0.5}}\n", "told.yaml:2: a is given a second time"),
        ("place: w\nnamed:\n  a: {}\n  'a': {}\n", "told.yaml:4: a is given a second time"),
        ("place: w\n\ndepth: [1]\n", "told.yaml:3: depth: ['1']: give a whole number, at least 1"),
        ("place: w\ndepth: true\n", "told.yaml:2: depth: true: give a whole number, at least 1"),
        ("place: w\nstrict: perhaps\n", "told.yaml:2: strict: perhaps: give true or false"),
        ("place: w\nnamed: {a: {rat: 1}}\n", "told.yaml:2: named.a.rat: no such setting"),
        ("at_once: 3\nat-once: 4\n", "told.yaml:2: at-once is given a second time"),
        ("place: w\nx: &x {depth: 3}\n<<: *x\n", "told.yaml:3: merge keys (<<) are not taken"),
        ("place: w\ndepth: 3\ndepth: 4\n", "told.yaml:3: depth is given a second time"),
        ("no-both: 1\n", "no setting is called"),
        ("- place\n", "told.yaml: not a mapping"),
        ("place: [\n", "told.yaml: not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(UserError) as caught:
        main.parse(["--config", path])
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["no", "007", "2026-01-01", "1e3", "0x1F", "12:30", "true", "1.50", "1_000"])
def test_what_yaml_takes_for_something_else_stays_text(tmp_path: Path, text: str) -> None:
    path = file(tmp_path, f"place: {text}\nmany: [{text}]\nnamed: {{{text}: {{}}}}\nmost: 3\nstrict: yes\n")
    told = main.parse(["--config", path])
    assert (told.place, told.many, list(told.named)) == (text, [text], [text])
    assert (told.most, told.strict) == (3, True)
    assert main.parse(["--config", file(tmp_path, "place: w\nmost: null\nstage: 2\n")]).stage == 2


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.yaml: No such file"):
        main.parse(["--config", tmp_path / "nowhere.yaml"])


@pytest.mark.parametrize(
    "words", ["", "--seed 5 --depth 3 --many a --many é --format b --set named.x.rate=1"]
)
def test_printed_settings_are_taken_back(tmp_path: Path, words: str) -> None:
    given = ["--place", "w", *words.split()]
    printed = CliRunner().invoke(main.app, [*given, "--print-config"]).stdout
    if not words:
        assert "# seed: 13; if wide 7\n" in printed, "two defaults are no setting"
    told = main.parse(["--config", file(tmp_path, printed)])
    assert told == main.parse(given)
    assert ran == [], "printing runs nothing"


def test_the_help_says_all() -> None:
    text = CliRunner().invoke(main.app, ["--help"], terminal_width=200).stdout
    for part in (
        "Do what is told.",
        "A code        column",
        "Where.  [required]",
        "At most.  [default: as many as there are]  [x<=9]",
        "A rate.  [default: 0.5; 0<x<=1]",
        "Of the draw.  [default: 13; if wide 7; x>=3]",
        "Layers.  [default: 4; x>=1]",
        "A pair of flags.  [default: both]",
        "No pardon.  [default: no-strict]",
        "--stage <1|2|3>",
        "--breadth <int>",
        "tell --place here",
    ):
        assert part in text, text
    assert "--named" not in text
    assert "--found" not in text


def test_an_option_without_a_description_is_not_made() -> None:
    class Silent(CommandSettings):
        depth: int = 3

    with pytest.raises(TypeError, match="depth has no description"):
        options_of(Silent)


def test_a_run_ends_with_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["--place", "p", "--depth", 0])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --depth 0: give a whole number, at least 1\n"


def test_a_command_is_its_function() -> None:
    calls: list[Told] = []

    def keep(settings: Told) -> None:
        """Keep."""
        calls.append(settings)

    Command(keep, "")(Told(place="p"))
    assert calls == [Told(place="p")]
