"""Self-training: a teacher labels mentions, a student learns them beside the data, mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import FormatError, UserError
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.typing.mentions import read_mentions
from engine.typing.model import TypingModel
from engine.typing.teacher import Thresholds, read_taught
from jobs.steps import teacher as step
from jobs.steps.teacher import teach
from jobs.train_typing import main as train_typing
from jobs.workers.executor import LocalExecutor
from tests.support.commands import run_command
from tests.support.encoders import write_encoder

LABELS = ["city", "person"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("self-training")
    write_encoder(made / "encoder")
    data = [
        {"id": i, "left": "t " * (i % 3), "mention": "Oslo" if i % 2 else "Ann", "right": "r", "types": [one]}
        for i, one in enumerate(["person", "city"] * 6)
    ]
    more = [{"left": "o", "mention": name, "right": "."} for name in ("Oslo", "Ann", "Rome", "Bo")]
    (made / "train.json").write_text("\n".join(map(json.dumps, data)))
    (made / "more.jsonl").write_text("\n".join(map(json.dumps, [*more, {**more[1], "types": ["zz"]}])))
    (made / "empty.jsonl").write_text("\n")
    return made


@pytest.fixture(scope="module")
def teacher(folder: Path) -> str:
    """A typing model that knows the types, trained by the command in the workspace ``w``."""
    assert run_command(train_typing, *asked(folder, "w"), "--epochs", 15) == 0
    (run,) = (path for path in (folder / "w" / "runs" / "train_typing").iterdir() if path.is_dir())
    return str(run / "model")


def asked(folder: Path, workspace: str) -> list[object]:
    words = ["--precision", "float32", "--batch-size", 4, "--learning-rate", 5e-3]
    given = ("--data", folder / "train.json", "--model", folder / "encoder")
    return ["--workspace", folder / workspace, *given, *words]


def summaries(folder: Path) -> dict[str, dict[str, object]]:
    found = (folder / "runs" / "train_typing").glob("*/summary.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


@pytest.mark.usefixtures("alone")
def test_the_command_trains_a_student(folder: Path, teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*asked(folder, "s"), "--self-train", folder / "more.jsonl", "--teacher", teacher]
    words += ["--positive-probability", 0.6, "--epochs", 2]
    assert run_command(train_typing, *words) == 0
    ((name, first),) = summaries(folder / "s").items()
    scores = TypingModel.load(teacher).scores(
        [one.mention for one in read_mentions(Store.open(folder / "more.jsonl"), labelled=False)]
    )
    sure = int((1 / (1 + np.exp(-scores)) >= 0.6).any(1).sum())
    assert sure >= 2
    assert (first["mentions"], first["teacher"]) == (12 + sure, teacher)
    assert f"teacher: {sure} of 5 mentions have a type" in capsys.readouterr().err
    assert TypingModel.load(folder / "s" / "runs" / "train_typing" / name / "model").labels == LABELS
    (part,) = (folder / "s" / "cache").glob("taught-*/part-*.parquet")
    made = part.stat().st_mtime_ns
    assert run_command(train_typing, *words, "--restart") == 0
    assert "1 of 1 parts are there already and are kept" in capsys.readouterr().err
    assert (part.stat().st_mtime_ns, list(summaries(folder / "s"))) == (made, [name])
    # "newest" is the student by now, another teacher; and another rule makes another run.
    words[words.index(teacher)] = "newest"
    assert run_command(train_typing, *words, "--negative-probability", 0.5) == 0
    (second,) = (summary for run, summary in summaries(folder / "s").items() if run != name)
    assert str(second["teacher"]).endswith(f"{name}/model")


def test_a_teachers_labels_are_those_of_its_probabilities(
    folder: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "PART", 2)
    file, order = Store.open(folder / "more.jsonl"), LABELS[::-1]  # another order than the teacher's
    rule = Thresholds(0.6, 0.3)
    found = teach(Workspace.open(tmp_path), file, teacher, order, rule, LocalExecutor())
    assert len(found.files) == 3
    mentions = read_mentions(file, labelled=False)
    model = TypingModel.load(teacher)
    wanted = []
    for one in mentions:
        (scores,) = model.scores([one.mention])
        p = dict(zip(model.labels, 1 / (1 + np.exp(-scores.astype(float))), strict=True))
        added = [label for label in order if p[label] >= 0.6]
        if added:
            between = [label for label in order if 0.3 < p[label] < 0.6]
            wanted.append((one.mention, (), tuple(added), tuple(between)))
    assert len({added for _, _, added, _ in wanted}) > 1, "the teacher tells the mentions apart"
    taught = [one for uri in found.files for one in read_taught(Store.open(uri), order)]
    assert [(one.mention, one.labels, one.added, one.uncertain) for one in taught] == wanted
    again = teach(Workspace.open(tmp_path), file, teacher, order, rule, LocalExecutor())
    other = teach(Workspace.open(tmp_path), file, teacher, order, Thresholds(0.6, 0.2), LocalExecutor())
    assert again == found
    assert not set(other.files) & set(found.files)
    assert other.key != found.key


@pytest.mark.usefixtures("alone")
def test_mistakes_are_named(
    folder: Path, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--workspace", tmp_path, *asked(folder, "w")[2:]]

    def refused(*more: object) -> str:
        assert run_command(train_typing, *words, *more) == 2
        return " ".join(capsys.readouterr().err.split())

    of = ("--self-train", folder / "more.jsonl", "--teacher")
    assert "--self-train: no model to label its mentions; name one with --teacher" in refused(*of[:2])
    assert "--teacher has no effect without --self-train" in refused("--teacher", teacher)
    assert "no typing model here yet; run `seedset train-typing` first" in refused(*of, "newest")
    assert "no labels.json in it" in refused(*of, folder / "encoder")
    assert "--teacher no-such-run: cannot be loaded" in refused(*of, "no-such-run")
    assert "must be below --positive-probability" in refused(*of, teacher, "--negative-probability", 0.95)
    (tmp_path / "types.txt").write_text("person\ncity\ntown\nriver\n")
    assert "does not know 2 of the 4 types that are learnt, such as 'town'" in refused(
        *of, teacher, "--labels", tmp_path / "types.txt"
    )
    workspace, rule = Workspace.open(tmp_path), Thresholds()
    with pytest.raises(FormatError, match=r"empty\.jsonl: no mention in it"):
        teach(workspace, Store.open(folder / "empty.jsonl"), teacher, LABELS, rule, LocalExecutor())
    unsure = Thresholds(1 - 1e-9)
    with pytest.raises(UserError, match=r"gives no type of any of the 5 mentions a probability of 1"):
        teach(workspace, Store.open(folder / "more.jsonl"), teacher, LABELS, unsure, LocalExecutor())
    assert not (tmp_path / "runs").exists()
