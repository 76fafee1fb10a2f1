"""Typing models: a run trains, resumes and is found again; splits of few examples are measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.errors import UserError
from engine.storage.workspace import Workspace
from engine.training.settings import TypingSettings
from engine.training.trainer import StepReport, Trainer
from engine.typing.files import find_data
from engine.typing.mentions import Mention
from engine.typing.model import TypingModel
from jobs.evaluate_typing import MEASURES, _mean
from jobs.evaluate_typing import main as evaluate_typing
from jobs.steps.typing import Labels, choose_labels, train_typing, typing_model
from jobs.train_typing import main as train_typing_command
from jobs.type_mentions import main as type_mentions
from jobs.workers.training_sessions import LocalSession
from tests.support.commands import run_command
from tests.support.encoders import write_encoder

SETTINGS = TypingSettings(epochs=4, batch_size=4, learning_rate=5e-3, precision="float32")
LABELS = Labels(["person", "city"], {})


def row(place: int, *types: str) -> str:
    mention = "Oslo" if "city" in types[-1] else "Ann"
    return json.dumps(
        {"id": place, "left": "t " * (place % 3), "mention": mention, "right": "r", "types": types}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("typing")
    write_encoder(made / "encoder")
    ultra = [row(i, "city" if i % 2 else "person") for i in range(12)]
    fine = [row(i, "/place", "/place/city") if i % 2 else row(i, "/person") for i in range(8)]
    for name, some in {"train": ultra, "weak": ultra[:6], "split_0": fine, "split_1": fine[::-1]}.items():
        (made / f"{name}.json").write_text("\n".join(some))
    return made


@pytest.mark.usefixtures("alone")
def test_a_run_resumes_is_kept_and_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, data = Workspace.open(folder / "resumed"), find_data(str(folder / "train.json"))
    given = workspace, data.mentions, LABELS, SETTINGS, str(folder / "encoder")
    keep = LocalSession.keep

    def stopped(self: LocalSession, report: StepReport, training: Trainer) -> None:
        keep(self, report, training)
        if report.step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalSession, "keep", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_typing(*given, checkpoint_seconds=0)
    resumed = train_typing(*given)
    assert (resumed["resumed_at"], resumed["steps"], resumed["mentions"]) == (5, 12, 12)
    whole = train_typing(*given, restart=True)
    assert whole["resumed_at"] == 0
    np.testing.assert_allclose(resumed["losses"], whole["losses"], rtol=1e-5)
    assert train_typing(*given)["seconds"] == whole["seconds"]  # finished: nothing is trained
    assert typing_model(workspace, "newest") == typing_model(workspace, whole["run"]) == whole["folder"]
    assert typing_model(workspace, str(Path(whole["folder"]).parent)) == whole["folder"], "the run's folder"
    model = TypingModel.load(whole["folder"])
    assert model.labels == LABELS.labels
    assert len(model.types([Mention("", "Oslo", "r")])) == 1
    other = SETTINGS.model_copy(update={"mlm": False})
    assert train_typing(*given[:3], other, given[4], make_current=False)["run"] != whole["run"]
    assert typing_model(workspace, "newest") == whole["folder"]


@pytest.mark.usefixtures("alone")
def test_a_file_of_mentions_is_typed_into_parts_that_are_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TypingModel.begin(str(folder / "encoder"), ["person", "city"])
    (tmp_path / "m").mkdir()
    model.save(tmp_path / "m")
    lines = [{"left": "To", "mention": name, "right": "."} for name in ("Oslo", "Ann", "Bo")]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    named = "--workspace", folder, "--model", tmp_path / "m", "--mentions", tmp_path / "in.jsonl"
    asked = (*named, "--output", tmp_path / "out", "--part-size", 2, "--workers", 1)
    assert run_command(type_mentions, *asked) == 0
    table = pq.read_table(tmp_path / "out")
    assert table["mention"].to_pylist() == ["Oslo", "Ann", "Bo"]
    for row, scores in zip(
        table.to_pylist(), model.types([Mention("To", n, ".") for n in ("Oslo", "Ann", "Bo")]), strict=True
    ):
        assert row["types"] == [one.label for one in scores]
        assert row["confidences"] == pytest.approx([one.confidence for one in scores], rel=1e-2)
    assert json.loads((tmp_path / "out" / "_manifest.json").read_bytes())["mentions"] == 3
    parts = sorted((tmp_path / "out").glob("part-*"))
    parts[1].unlink()
    kept = parts[0].stat().st_mtime_ns
    assert run_command(type_mentions, *asked) == 0
    assert "1 of 2 parts are there already and are kept" in capsys.readouterr().err
    assert (parts[0].stat().st_mtime_ns, pq.read_table(tmp_path / "out")) == (kept, table)
    assert run_command(type_mentions, *asked, "--rule", "single") == 2
    assert "holds 2 parts of other mentions" in capsys.readouterr().err
    assert run_command(type_mentions, *asked, "--rule", "single", "--overwrite") == 0
    assert [len(types) for types in pq.read_table(tmp_path / "out")["types"].to_pylist()] == [1, 1, 1]
    (tmp_path / "in.jsonl").write_text('{"left": "To"}')
    assert run_command(type_mentions, *asked) == 2
    assert "in.jsonl, line 1: no mention in it" in capsys.readouterr().err


@pytest.mark.usefixtures("alone")
def test_the_commands_train_and_measure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"--workspace {folder / 'w'} --precision float32"
    encoder = str(folder / "encoder")
    train_typing_command(
        train_typing_command.parse(
            f"{words} --data {folder / 'train.json'} --weak {folder / 'weak.json'} --model {encoder} "
            "--epochs 15 --batch-size 4 --learning-rate 5e-3".split()
        )
    )
    assert " labels=2 " in capsys.readouterr().out
    last = typing_model(Workspace.open(folder / "w"), "newest")
    after = json.loads((Path(last).parent / "summary.json").read_text())
    before = json.loads((Path(after["model"]).parent / "summary.json").read_text())
    assert [Path(one["data"]).name for one in (before, after)] == ["weak.json", "train.json"]
    assert before["model"] == encoder, "weak data come first, and the crowd's go on from there"
    at = f"--workspace {folder / 'w'} --json {folder / 'found.json'}"
    evaluate_typing(evaluate_typing.parse(f"{at} --test {folder / 'train.json'}".split()))
    (own,) = json.loads((folder / "found.json").read_text())
    assert own["strict"] == own["macro_f1"] == 100
    splits = f"--train {folder / 'split_0.json'} --train {folder / 'split_1.json'} --precision float32"
    learning = "--epochs 25 --batch-size 4 --learning-rate 5e-3"
    test = f"--test {folder / 'split_0.json'}"
    evaluate_typing(evaluate_typing.parse(f"{at} {test} {splits} {learning}".split()))
    rows = json.loads((folder / "found.json").read_text())
    assert [one["strict"] for one in rows] == [100, 100]
    assert " splits=2 " in capsys.readouterr().out
    evaluate_typing(
        evaluate_typing.parse(f"{at} {test} {splits} {learning} --examples 1 --examples 2 --epochs 1".split())
    )
    rows = json.loads((folder / "found.json").read_text())
    assert [one["examples"] for one in rows] == [1, 1, 2, 2]
    # Zero examples: other types than the model learnt.
    (folder / "types.list").write_text("/person\n/place\n/place/city\n")
    evaluate_typing(evaluate_typing.parse(f"{at} {test} --labels {folder / 'types.list'}".split()))
    (zero,) = json.loads((folder / "found.json").read_text())
    assert zero["mentions"] == 8


def test_splits_are_told_by_mean_and_deviation() -> None:
    rows = [dict.fromkeys(MEASURES, value) for value in (40.0, 60.0, 65.0)]
    assert _mean(rows).keys() == set(MEASURES)
    for mean, deviation in _mean(rows).values():
        assert (mean, deviation) == pytest.approx((55, (350 / 3) ** 0.5))


def test_labels_are_chosen(folder: Path, tmp_path: Path) -> None:
    data = find_data(str(folder / "train.json"))
    assert choose_labels(data, None, None).labels == ["city", "person"]
    (tmp_path / "types.txt").write_text("person\nPerson\n")
    with pytest.raises(UserError, match="'person' and 'Person' are both 'person' in words"):
        choose_labels(data, str(tmp_path / "types.txt"), None)
    (tmp_path / "words.json").write_text('{"Person": "human"}')
    found = choose_labels(data, str(tmp_path / "types.txt"), str(tmp_path / "words.json"))
    assert found.words == {"Person": "human"}


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no typing model here yet; run `seedset train-typing` first"):
        typing_model(Workspace.open(tmp_path), "newest")
    asked = f"--workspace {tmp_path} --test {folder / 'train.json'}"
    with pytest.raises(UserError, match=r"no labels\.json in it"):
        evaluate_typing(evaluate_typing.parse(f"{asked} --model {folder / 'encoder'}".split()))
    with pytest.raises(UserError, match="--examples: give 1 or more"):
        evaluate_typing(evaluate_typing.parse(f"{asked} --train x.json --examples 0".split()))
