"""Every command of the repository: its help is its model's, and its printed settings are taken back."""

from __future__ import annotations

import importlib
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.commandline import Command
from cluster.options import Option

ROOT = Path(__file__).resolve().parents[1]

MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("jobs", "serve", "cluster")
    for file in (ROOT / folder).rglob("*.py")
    if "main.run()" in file.read_text(encoding="utf-8")
)

REQUIRED = {
    "jobs.ablate": "--workspace w --queries q",
    "jobs.build_index": "--workspace w",
    "jobs.choose_images": "--table t --output o --clip c",
    "jobs.evaluate": "--workspace w --queries q --method m",
    "jobs.expand": "--workspace w --queries q --method m",
    "jobs.image_features": "--workspace w --model m",
    "jobs.import_corpus": "--workspace w --source s",
    "jobs.preprocess": "--workspace w",
    "jobs.pretrain_lm": "--workspace w",
    "jobs.train_encoder": "--workspace w",
    "serve.operations.bundles": "--workspace w",
    "serve.run": "--workspace w",
}
"""The least that each command must be told."""


def command_of(module: str) -> Command[Any]:
    found: Command[Any] = importlib.import_module(module).main
    return found


def test_no_command_is_left_out() -> None:
    assert len(MODULES) == 15
    with_entry = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for folder in ("jobs", "serve", "cluster")
        for file in (ROOT / folder).rglob("*.py")
        if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
    }
    assert with_entry == set(MODULES), "a command line that is not made of settings"


@pytest.mark.parametrize("module", MODULES)
def test_the_help_is_the_models(module: str) -> None:
    command = command_of(module)
    settings = command.parse(REQUIRED.get(module, "").split())
    text = " ".join(CliRunner().invoke(command.app, ["--help"], terminal_width=10_000).stdout.split())
    assert "Examples:" in text
    for option in command.options:
        assert option.declared.description
        if option.shape == "nested":
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
    if default in (None, "", (), []):
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
        ["--workspace", "w", "--modality", "text+image", "--paper-start", "--clusters", "4"]
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
    old = pretrain.parse(["--workspace", "w", "--model", "gpt2"]).training()
    new = pretrain.parse(["--workspace", "w", "--init-from-config", "small", "--beta2", "0.9"]).training()
    assert (old.epochs, old.learning_rate, old.weight_decay, old.beta2) == (1, 1e-5, 1e-4, 0.999)
    assert (new.epochs, new.learning_rate, new.weight_decay, new.beta2) == (3, 1.5e-3, 0.1, 0.9)


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
