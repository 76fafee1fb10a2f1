"""Every command of the repository: its help is its model's, and its printed settings are taken back."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster import seedset
from cluster.commandline import Command
from cluster.options import Option
from cluster.seedset import entries
from engine.corpus.blocks.settings import BlockSettings
from engine.errors import UserError
from engine.renames import warn_of_former

ROOT = Path(__file__).resolve().parents[1]

MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("jobs", "serve", "cluster")
    for file in (ROOT / folder).rglob("*.py")
    if "main.run()" in file.read_text(encoding="utf-8")
)

REQUIRED = {
    "cluster.crasher": "--source s",
    "cluster.size": "--entities 1 --sentences 1",
    "jobs.ablate": "--workspace w --queries q",
    "jobs.build_index": "--workspace w",
    "jobs.choose_images": "--table t --output o --clip c",
    "jobs.clean": "--workspace w",
    "jobs.calibrate": "--workspace w --queries q",
    "jobs.evaluate": "--workspace w --queries q --method default",
    "jobs.evaluate_typing": "--workspace w --test t",
    "jobs.expand": "--workspace w --queries q --method default",
    "jobs.export": "--workspace w --output o",
    "jobs.image_features": "--workspace w --model m",
    "jobs.import_corpus": "--workspace w --source s",
    "jobs.link": "--entities e --texts t --output o",
    "jobs.label_mentions": "--workspace w --seeds s --output o",
    "jobs.make_queries": "--workspace w --output o",
    "jobs.mine_contrast": "--workspace w --queries q",
    "jobs.preprocess": "--workspace w",
    "jobs.pretrain_lm": "--workspace w",
    "jobs.read_wikidata": "--dump d --output o",
    "jobs.refresh": "--workspace w",
    "jobs.report": "--workspace w --queries q",
    "jobs.reproduce": "--preset mesed --source s --workspace w",
    "jobs.train_encoder": "--workspace w",
    "jobs.train_typing": "--workspace w --data d",
    "jobs.type_mentions": "--workspace w --mentions m --output o",
    "serve.operations.audit": "--file f",
    "serve.operations.bundles": "--workspace w",
    "serve.operations.overlay": "--workspace w --output changes",
    "serve.run": "--workspace w",
}
"""The least that each command must be told."""


def command_of(module: str) -> Command[Any]:
    found: Command[Any] = importlib.import_module(module).main
    return found


def test_no_command_is_left_out() -> None:
    assert len(MODULES) == 33
    with_entry = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for folder in ("jobs", "serve", "cluster")
        for file in (ROOT / folder).rglob("*.py")
        if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
    }
    # What is shipped with the client alone has no settings of ours.
    own = {"cluster.seedset", "serve.integrations.mcp_command"}
    assert with_entry - own == set(MODULES), "a command line that is not made of settings"


@pytest.mark.parametrize("module", MODULES)
def test_the_help_is_the_models(module: str) -> None:
    command = command_of(module)
    settings = command.parse(REQUIRED.get(module, "").split())
    text = " ".join(CliRunner().invoke(command.app, ["--help"], terminal_width=10_000).stdout.split())
    assert "Examples:" in text
    for option in command.options:
        assert option.declared.description
        if option.shape == "nested" or (option.flag in REQUIRED.get(module, "") and not option.required):
            continue
        assert f"{option.flag} " in text
        assert " ".join(option.help.split()) in text
        for target in option.targets:
            if option.required:
                assert option.help.endswith(("[required]", "; required]")) or "[required;" in option.help
                continue
            default = reduce(getattr, target.path, settings)
            assert default == target.default
            assert _shown(option, default) in option.help


def _shown(option: Option, default: Any) -> str:
    if default in (None, "", (), [], {}):
        return ""
    if isinstance(default, bool):
        return option.words.split("/")[0 if default else 1].removeprefix("--")
    return str(default)


@pytest.mark.parametrize("module", MODULES)
def test_printed_settings_are_taken_back(module: str, tmp_path: Path) -> None:
    command, words = command_of(module), REQUIRED.get(module, "").split()
    done = CliRunner().invoke(command.app, [*words, "--print-config"], catch_exceptions=False)
    content = yaml.safe_load(done.stdout)
    if module == "serve.run":  # it prints a file for `serve deploy`
        content = content["applications"][0]["args"] | content["http_options"]
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert command.parse([command.file_flags[0], file]) == command.parse(words)
    assert command.parse(["--config", file]) == command.parse(words)


def test_the_kind_of_training_decides_the_defaults() -> None:
    train = command_of("jobs.train_encoder")
    text = train.parse(["--workspace", "w"]).training()
    images = train.parse(
        ["--workspace", "w", "--modality", "text+image", "--init", "random", "--clusters", "4"]
    ).training()
    assert (text.epochs, text.batch_size, text.learning_rate) == (12, 256, 2e-3)
    assert (images.epochs, images.batch_size, images.learning_rate) == (8, 64, 5e-4)
    assert (images.modality, images.summary, images.identity) == ("text+image", False, False)
    assert images.schedule.clusters == 4
    given = train.parse(["--workspace", "w", "--modality", "image", "--smoothing", "0.1", "--epochs", "3"])
    assert (given.training().schedule.smoothing, given.training().epochs) == (0.1, 3)
    assert given.text.smoothing == 0.1


def test_a_new_language_model_is_trained_otherwise_than_a_given_one() -> None:
    pretrain = command_of("jobs.pretrain_lm")
    old = pretrain.parse(["--workspace", "w", "--model", "gpt2"]).training(7_000_000_000)
    new = pretrain.parse(["--workspace", "w", "--init-from-config", "small", "--beta2", "0.9"]).training(1)
    assert (old.epochs, old.learning_rate, old.weight_decay, old.beta2) == (1, 1e-5, 1e-4, 0.999)
    assert (new.epochs, new.learning_rate, new.weight_decay, new.beta2) == (3, 1.5e-3, 0.1, 0.9)


def test_the_learning_rate_of_a_language_model_goes_by_its_size_unless_it_is_given(tmp_path: Path) -> None:
    pretrain, words = command_of("jobs.pretrain_lm"), ["--workspace", "w", "--model", "gpt2"]
    assert pretrain.parse(words).training(124_000_000).learning_rate == 2e-4
    assert pretrain.parse([*words, "--learning-rate", "3e-3"]).training(124_000_000).learning_rate == 3e-3
    assert pretrain.parse([*words, "--preset", "ultrawiki"]).training(1000).learning_rate == 1e-5
    printed = CliRunner().invoke(pretrain.app, [*words, "--print-config"], catch_exceptions=False).stdout
    (line,) = (line for line in printed.splitlines() if line.startswith("learning_rate:"))
    assert line.startswith("learning_rate: null  # by the model's size: 2e-4 up to 135M parameters, 1e-5")


NO_EFFECT = {
    "jobs.ablate": [
        "--table baselines --clusters 4",
        "--table baselines --row 'image encoder' --modality-dropout 0.1",
        "--row 'masked entity prediction' --row '+ contrastive' --clusters 4",
    ],
    "jobs.build_index": ["--masked-lm-sentences 9", "--untrained --no-text-distributions"],
    "jobs.evaluate": ["--set SegmentRerank.length=8"],
    "jobs.evaluate_typing": [
        "--examples 3",
        "--epochs 3",
        "--train f --objective-weight 0.2",
    ],
    "jobs.image_features": ["--patches crop --grid 4"],
    "jobs.preprocess": ["--description-names masked"],
    "jobs.pretrain_lm": [
        "--init-from-config tiny --neighbor-view joint",
        "--model gpt2 --vocab-size 999",
        "--init-from-config tiny --tokenizer gpt2 --vocab-size 999",
        "--model gpt2 --epochs 0 --learning-rate 1e-4",
        "--init-from-config tiny --epochs 0 --neighbor-lists 20",
    ],
    "jobs.report": [
        "--results r --set SegmentRerank.length=8",
        "--results r --sample-generating 3",
        "--sweep none --sweep-sample 9",
        "--no-plots --before 0123456789abcdef",
    ],
    "jobs.train_encoder": [
        "--init random",
        "--no-clustering",
        "--hidden 0.1",
        "--modality image --modality-dropout 0.1",
        "--modality text+image --last-layer-dropout 0.1",
        "--modality text+image --no-clustering --clusters 4",
        "--modality text+image --no-clustering --no-contrastive --refresh-pairs 2",
        "--modality text+image --no-clustering --no-contrastive --passes separate",
        "--modality image --no-prediction --smoothing 0.1",
        "--baseline vit --modality text+image",
        "--baseline clip --modality text",
        "--baseline vit --init lda",
        "--baseline vit --no-distillation",
        "--baseline vit --no-prediction",
        "--baseline vit --modality-dropout 0.1",
        "--baseline clip --cross-layers 2",
        "--baseline albef --contrast-prior 0.1",
        "--baseline albef --last-layer-dropout 0.1",
        "--contrast-passes 2",
        "--contrast newest --prediction-seed-share 0.1",
    ],
    "jobs.train_typing": ["--weak-epochs 2", "--no-mlm --no-next-word --objective-weight 0.2"],
    "serve.run": ["--burst 3", "--bundle 0123456789abcdef --bundle-poll-interval-s 3"],
}
"""Command lines of which the last option does nothing."""


@pytest.mark.parametrize(("module", "words"), [(m, words) for m, some in NO_EFFECT.items() for words in some])
def test_an_option_without_effect_is_refused_on_the_command_line_alone(module: str, words: str) -> None:
    given = shlex.split(words)
    needed = REQUIRED[module].removesuffix(" --method default").split()
    flag = next(word for word in reversed(given) if word.startswith("--"))
    with pytest.raises(UserError, match=rf"^{flag} has no effect (with|beside|without) .*; leave it out$"):
        command_of(module).parse([*needed, *given])


def test_a_file_may_hold_settings_of_several_runs(tmp_path: Path) -> None:
    train, file = command_of("jobs.train_encoder"), tmp_path / "settings.yaml"
    file.write_text("init: random\nclusters: 4\nprediction: false\n", encoding="utf-8")
    words = ["--workspace", "w", "--config", file]
    assert train.parse(words).training().epochs == 12
    assert train.parse([*words, "--baseline", "vit"]).training().schedule.weights() == (1, 0, 0, 0)
    paper = train.parse(["--workspace", "w", "--preset", "mesed", "--baseline", "clip"]).training()
    assert (paper.epochs, paper.architecture, paper.modality_dropout) == (50, "two-towers", 0)
    vit = train.parse(["--workspace", "w", "--preset", "mesed", "--baseline", "vit"]).training()
    assert (vit.epochs, vit.architecture, vit.modality) == (50, "image", "image")


def test_the_servers_settings_come_from_three_places(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("workspace: w\nreplicas: 3\nmax_wait_s: 1\nfused: true\nstages: {A: {replicas: 2}}\n")
    words = ["--settings", file, "--set", "stages.B.num_gpus=1", "--set", "max_wait_s=2", "--replicas", 4]
    told = command_of("serve.run").parse([*words, "--per-stage", "--methods", "a,b"]).application
    assert (told.replicas, told.max_wait_s, told.fused, told.methods) == (4, 2, False, ("a", "b"))
    assert (told.stages["A"].replicas, told.stages["B"].num_gpus) == (2, 1)
    printed = CliRunner().invoke(command_of("serve.run").app, ["--print-settings"]).stdout
    assert "max_wait_s = 5" in printed
    assert "autoscaling.max_replicas = 4" in printed


def test_the_one_command_knows_every_command() -> None:
    assert sorted(entry.module for _, entry in entries()) == MODULES
    assert all(entry.summary.endswith(".") for _, entry in entries())


def test_the_one_command_lists_runs_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    listed = CliRunner().invoke(seedset.app, ["--help"], terminal_width=200).stdout
    for heading, section in seedset.COMMANDS.items():
        assert f"{heading}:" in listed
        for name, entry in section.items():
            assert f"  {name} " in listed
            assert entry.summary in listed
    shown = CliRunner().invoke(seedset.app, ["token", "--name", "page"]).stdout
    assert "page: {rights: read, sha256: " in shown
    assert "Did you mean 'evaluate'" in CliRunner().invoke(seedset.app, ["evalute"]).stderr
    with pytest.raises(SystemExit) as ended:
        seedset.main(["token", "--name", "a b"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: --name a b: ")


def test_the_version_is_the_stacks() -> None:
    lines = CliRunner().invoke(seedset.app, ["--version"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["seedset", "python", *seedset.STACK]
    assert f"ray {metadata.version('ray')}" in lines


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("seedset expa", "expand"),
        ("seedset evaluate --me", "--method"),
        ("seedset evaluate --method retexpan+cd", "retexpan+cds"),
        ("seedset train-encoder --modality text+", "text+image"),
    ],
)
def test_commands_options_and_values_are_completed(
    words: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    completed = CliRunner().invoke(
        seedset.app, [], env={"_SEEDSET_COMPLETE": "complete_bash", **asked}, prog_name="seedset"
    )
    assert completed.stdout.split() == [found]


LOADED_LATE = ("torch", "transformers", "ray", "sklearn", "scipy", "deepspeed", "pandas", "faiss", "fastapi")
"""Libraries that take long to import: a command loads them when it runs."""

HELPS = f"""
import io, sys
from contextlib import redirect_stdout
from cluster.seedset import app, entries

for name, _ in entries():
    with redirect_stdout(io.StringIO()) as text:
        app([name, "--help"], prog_name="seedset", standalone_mode=False)
    assert "Examples:" in text.getvalue(), name
    print(name, *(library for library in {LOADED_LATE} if library in sys.modules))
"""


def test_no_help_loads_a_heavy_library() -> None:
    told = subprocess.run([sys.executable, "-c", HELPS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == [name for name, _ in entries()]


def example_lines(command: Command[Any]) -> list[list[str]]:
    """Return the words of every example; what the shell does with the output, and comments, left out."""
    text = command.examples.replace("\\\n", " ")
    lines = [shlex.split(line.split(" && ")[0].split(" > ")[0], comments=True) for line in text.splitlines()]
    return [words for words in lines if words]


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_shown_line_by_line(module: str) -> None:
    """After an empty line, too: a command that is joined to the next cannot be copied."""
    command = command_of(module)
    shown = CliRunner().invoke(command.app, ["--help"], terminal_width=200).stdout.splitlines()
    lines = [line.strip() for line in command.examples.splitlines() if line.strip()]
    assert [line.strip() for line in shown if line.strip() in lines] == lines


@pytest.mark.parametrize("module", MODULES)
def test_every_example_is_a_command_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {entry.module: name for name, entry in entries()}
    examples = example_lines(command_of(module))
    assert any(words[:2] == ["seedset", names[module]] for words in examples)
    for words in examples:
        if words[:3] == ["ray", "job", "submit"]:
            assert words[words.index("--") :][:3] == ["--", "python", "-m"]
            found, rest = words[words.index("--") + 3], words[words.index("--") + 4 :]
        elif words[0] == "seedset":
            found, rest = dict(entries())[words[1]].module, words[2:]
        else:
            assert words[0] == "curl"
            continue
        rest = [word for word in rest if word not in ("--print-config", "--check-config", "serve.yaml")]
        if "--settings" in rest:  # a file of the reader's own
            Path(rest[rest.index("--settings") + 1]).touch()
        if rest:
            command_of(found).parse(rest)


@pytest.mark.parametrize("module", MODULES)
def test_every_option_says_in_a_sentence_what_it_does(module: str) -> None:
    for option in command_of(module).options:
        text = option.declared.description or ""
        sentence = text.partition("  [")[0]
        assert sentence[0].isupper() or sentence[0] == '"', f"{option.flag}: {text}"
        assert sentence.endswith("."), f"{option.flag}: {text}"
        assert not sentence.startswith("Of "), f"{option.flag}: {text}"


WITH_IMAGES = "--modality text+image"

FORMER = [
    ("jobs.pretrain_lm", "--lists 7", "lists: 7", "--neighbor-lists 7"),
    *(
        (
            "jobs.train_encoder",
            f"{WITH_IMAGES} {old}",
            f"modality: text+image\n{in_file}",
            f"{WITH_IMAGES} {new}",
        )
        for old, in_file, new in (
            ("--hidden 0.1", "hidden: 0.1", "--modality-dropout 0.1"),
            ("--paper-start", "paper_start: true", "--init random"),
            ("--no-paper-start", "paper-start: false", "--init lda"),
        )
    ),
    ("jobs.ablate", "--hidden 0.1", "hidden: 0.1", "--modality-dropout 0.1"),
    ("jobs.import_corpus", "--max-sentence-chars 9", "max_sentence_chars: 9", "--max-sentence-characters 9"),
    ("serve.run", "--watch-s 9", "watch_s: 9", "--bundle-poll-interval-s 9"),
    ("serve.run", "--set watch_s=9", "watch_s: 9", "--set bundle_poll_interval_s=9"),
]
"""Options by their former names, on the command line and in a file, and by their names of now."""


@pytest.mark.parametrize(("module", "old", "in_file", "new"), FORMER)
def test_a_former_name_still_works_and_says_so(
    module: str, old: str, in_file: str, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_former.cache_clear()
    command, least = command_of(module), REQUIRED.get(module, "").split()
    (tmp_path / "old.yaml").write_text(in_file, encoding="utf-8")
    told = command.parse([*least, *new.split()])
    assert capsys.readouterr().err == ""
    for words in (old.split(), ["--config", tmp_path / "old.yaml"]):
        assert command.parse([*least, *words]) == command.parse([*least, *words]) == told
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith("warning: ")
        assert " is now called " in said


@pytest.mark.parametrize(
    ("module", "words", "in_file", "message"),
    [
        (
            "jobs.pretrain_lm",
            "--lists 3 --neighbor-lists 4",
            "",
            "--lists is now called --neighbor-lists: give",
        ),
        ("jobs.pretrain_lm", "", "lists: 3\nneighbor_lists: 4", "neighbor_lists is given a second time"),
        ("jobs.pretrain_lm", "--lists many", "", "--lists many: give a whole number, at least 0"),
        ("jobs.train_encoder", "", "paper_start: perhaps", ":1: paper_start: perhaps: give true or false"),
    ],
)
def test_a_mistake_by_a_former_name_is_named(
    module: str, words: str, in_file: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "old.yaml").write_text(in_file, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        command_of(module).parse(["--workspace", "w", *words.split(), "--config", tmp_path / "old.yaml"])
    assert message in str(caught.value)


def test_a_method_is_taken_by_its_former_name_too() -> None:
    words = "--workspace w --queries q --method genexpan+unwanted"
    assert command_of("jobs.expand").parse(words.split()).method == "genexpan+unwanted"
    with pytest.raises(UserError, match=r"--method retexpam: did you mean retexpan\? give one of retexpan, "):
        command_of("jobs.expand").parse(["--workspace", "w", "--queries", "q", "--method", "retexpam"])


def test_a_run_and_blocks_keep_the_names_that_they_were_made_under() -> None:
    blocks = BlockSettings(
        tokenizer="t", vocab_size=8, descriptions=True, neighbor_lists=3, neighbor_view="joint"
    )
    assert '"lists":3' in blocks.model_dump_json(by_alias=True)
    given = {"tokenizer": "t", "vocab_size": 8, "lists": 3, "neighbor_view": "joint", "descriptions": True}
    assert BlockSettings.model_validate(given) == blocks
    assert blocks.key("corpus") == "lm-V8-T256-9eecd3a4", "as before the field was renamed"
    assert blocks.model_copy(update={"neighbor_view": "mask"}).key("corpus") != blocks.key("corpus")
    plain = BlockSettings(tokenizer="t", vocab_size=8)
    assert plain.key("corpus") == plain.model_copy(update={"neighbor_view": "joint"}).key("corpus")
