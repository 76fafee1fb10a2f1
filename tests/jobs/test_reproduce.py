"""Presets: the papers' settings by command, and the chain of commands that goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.settings_file import sections
from engine.errors import FormatError, UserError
from engine.training.settings import MultimodalSettings
from jobs import ablate, build_index, import_corpus, mine_contrast, preprocess, pretrain_lm, train_encoder
from jobs.reproduce import load, main, planned
from jobs.settings import PRESETS
from jobs.steps.ablation import AblationPlan
from tests.support.bundles import random_bundle
from tests.support.commands import run_command

FIRST = {
    "ultrawiki-contrast": "mine-contrast",
    "mesed-ablations": "ablate",
    "mesed-text": "train-encoder",
}
"""The first command of the presets that go on in a workspace where another has ended."""

GIVEN = {"preset": "p.yaml", "source": "s", "workspace": "w"}


@pytest.mark.parametrize("file", sorted(PRESETS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_section_of_a_preset_is_taken_by_its_command(file: Path) -> None:
    names = sections(file)
    settings = main.parse(["--preset", file.stem, "--source", "data", "--workspace", "w"])
    plan = planned(settings, names, str(file))
    assert list(plan) == [name for name in names if name != "evaluate"]
    assert names[0] == FIRST.get(file.stem, "import")
    if file.stem == "mesed-vision":  # whose encoders are in no bundle of the workspace
        assert names[-1] == "ablate"
        return
    assert names[-2:] == ["evaluate", "report"]
    load("evaluate").parse([*plan["report"]])


def test_ultrawikis_settings_are_those_of_its_appendices() -> None:
    words = ["--workspace", "w", "--preset", "ultrawiki"]
    text = train_encoder.main.parse(words).text
    assert (text.epochs, text.learning_rate, text.weight_decay, text.smoothing) == (20, 4e-5, 1e-2, 0.075)
    assert text.learning_rate_schedule == "constant"
    with_descriptions = preprocess.main.parse(["--workspace", "w", "--preset", "ultrawiki-ra"]).inputs
    assert (with_descriptions.descriptions, with_descriptions.max_length) == (True, 500)
    lm = pretrain_lm.main.parse(words)
    assert (lm.further.epochs, lm.learning_rate, lm.further.weight_decay) == (1, 1e-5, 1e-4)
    assert not lm.texts.descriptions
    assert preprocess.main.parse([*words, "--max-length", "64"]).inputs.max_length == 64, "words count more"


def test_contrast_goes_on_from_ultrawikis_own_settings() -> None:
    words = ["--workspace", "w", "--preset", "ultrawiki-contrast"]
    made = train_encoder.main.parse(words)
    assert made.text == train_encoder.main.parse(["--workspace", "w", "--preset", "ultrawiki"]).text
    contrast = made.ultra_fine
    assert (made.contrast, contrast.seed_text, contrast.contrast_passes) == ("newest", True, 1)
    assert (contrast.contrast_learning_rate, contrast.infonce_temperature) == (1e-6, 0.5)
    mined = mine_contrast.main.parse([*words, "--queries", "q"])
    assert (mined.method, mined.judge, mined.top) == ("retexpan-negative", "chat", 10)


def test_meseds_head_begins_at_random_and_is_the_trained_one() -> None:
    def asked(*words: str) -> MultimodalSettings:
        parsed = train_encoder.main.parse(["--workspace", "w", "--modality", "text+image", *words])
        settings = parsed.training()
        assert isinstance(settings, MultimodalSettings)
        return settings

    assert MultimodalSettings().head == asked().head == "nearest-mean"
    for words in (["--preset", "mesed"], ["--init", "random"], ["--preset", "mesed", "--baseline", "albef"]):
        assert asked(*words).head == "trained"
        assert '"head"' not in asked(*words).model_dump_json(), "its run has the name that it had before"
    both = asked("--init", "random", "--head", "nearest-mean")
    assert (both.identity, both.head) == (False, "nearest-mean")


def test_meseds_training_is_that_of_its_authors_program() -> None:
    own = train_encoder.main.parse(["--workspace", "w", "--preset", "mesed"]).training()
    assert isinstance(own, MultimodalSettings)
    assert (own.learning_rate, own.learning_rate_schedule, own.clip) == (1e-5, "constant", 0)
    assert (own.inner, own.dropout, own.logit_dropout, own.text_share) == (4, 0.2, 0.2, 1)
    assert own.schedule.epoch() == ("contrastive",) * 2 + ("clustering",) * 2 + ("prediction",)
    assert own.schedule.weights() == (1, 0.5, 0.2, 0.02)
    text = train_encoder.main.parse(["--workspace", "w", "--preset", "mesed-text"]).text
    vision = ablate.main.parse(["--workspace", "w", "--queries", "q", "--preset", "mesed-vision"]).base
    for other in (text, vision):
        assert (other.learning_rate_schedule, other.clip, other.epochs) == ("constant", 0, 50)


def test_meseds_read_out_is_at_temperature_one() -> None:
    for preset in ("mesed", "mesed-text"):
        assert build_index.main.parse(["--workspace", "w", "--preset", preset]).temperature == 1
    words = ["--workspace", "w", "--queries", "q"]
    for preset in ("mesed-ablations", "mesed-vision"):
        assert ablate.main.parse([*words, "--preset", preset]).temperature == 1
    assert ablate.main.parse(words).temperature == build_index.main.parse(words[:2]).temperature != 1


def test_meseds_ablation_takes_apart_what_mesed_trains() -> None:
    settings = ablate.main.parse(["--workspace", "w", "--queries", "q", "--preset", "mesed-ablations"])
    plan = AblationPlan(["objectives", "modalities"], settings.training())
    trained = train_encoder.main.parse(["--workspace", "w", "--preset", "mesed"]).training()
    full = next(row for _, row in plan.rows if row.name == "full")
    assert [own.model_dump_json() for own in plan.of(full)] == [trained.model_dump_json()]
    others = [own for own in plan.trainings() if own.model_dump_json() != trained.model_dump_json()]
    assert len(others) == 7, "five sets of objectives, and each modality alone"
    assert {(own.epochs, own.identity, own.summary, own.head) for own in others} == {
        (50, False, False, "trained")
    }


def test_a_file_counts_more_than_a_preset_and_a_file_may_be_one(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("max_length: 99\nworkspace: w\n")
    (tmp_path / "mine.yaml").write_text("preprocess: {max_length: 77}\n")
    given = preprocess.main.parse(["--preset", "ultrawiki", "--config", tmp_path / "own.yaml"]).inputs
    assert (given.max_length, given.max_sentences) == (99, 50)
    mine = preprocess.main.parse(["--workspace", "w", "--preset", tmp_path / "mine.yaml"])
    assert mine.inputs.max_length == 77
    words = ["--workspace", "w", "--source", "s", "--preset"]
    with pytest.raises(FormatError, match="holds no settings of import; those of: preprocess"):
        import_corpus.main.parse([*words, tmp_path / "mine.yaml"])
    with pytest.raises(
        UserError,
        match="--preset wiki: give one of mesed, mesed-ablations, mesed-text, mesed-vision, ultrawiki, ",
    ):
        import_corpus.main.parse([*words, "wiki"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A source, a workspace whose bundle is there, and settings of two commands that need no training."""
    random_bundle(tmp_path / "w", 30, 4)
    (tmp_path / "source").mkdir()
    lines = [{"entity": f"entity {i}", "sentence": f"Here is entity {i} again."} for i in range(30)]
    (tmp_path / "source" / "sentences.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "q.jsonl").write_text(json.dumps({"positive": [1, 2], "pos_gt": [3, 4]}))
    (tmp_path / "p.yaml").write_text("import: {format: jsonl}\nevaluate:\n  method: [retexpan]\n")
    return tmp_path


def reproduce(root: Path, *extra: object) -> int:
    words = ("--preset", root / "p.yaml", "--source", root / "source", "--workspace", root / "w")
    return run_command(main, *words, "--queries", root / "q.jsonl", *extra)


def test_a_chain_goes_on_where_it_was(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def last() -> str:
        return capsys.readouterr().out.splitlines()[-1].partition(" seconds")[0]

    good = (root / "q.jsonl").read_text()
    (root / "q.jsonl").write_text("{}")
    assert reproduce(root) == 2, "the second command fails"
    (root / "q.jsonl").write_text(good)
    capsys.readouterr()
    assert reproduce(root) == 0
    assert last() == "preset=p steps=2 made=1"
    assert (root / "w" / "runs" / "evaluate" / "retexpan" / "report.json").exists()
    assert reproduce(root, "--workers", 2) == 0, "on how many workers changes nothing that is made"
    assert last() == "preset=p steps=2 made=0"
    changed = "import: {format: jsonl}\nevaluate:\n  method: [retexpan]\n  set: {SegmentRerank.length: 8}\n"
    (root / "p.yaml").write_text(changed)
    assert reproduce(root) == 0
    assert last() == "preset=p steps=2 made=1"
    report = json.loads((root / "w" / "runs" / "evaluate" / "retexpan" / "report.json").read_text())
    assert "length=8" in report["pipeline"]
    assert reproduce(root, "--first", "evaluate") == 0
    assert last() == "preset=p steps=2 made=1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("importt: {}", "no command is called 'importt'"),
        ("serve: {}", "serve takes no preset"),
        (
            "import: {format: jsonl}\nevaluate: {methods: [retexpan]}",
            "p.yaml:2: no setting is called 'methods'",
        ),
        ("import: {format: jsonl}\nevaluate: {method: [nearest]}", "evaluate.*|give one of"),
        ("", "holds no command's settings"),
        ("[1]", "holds no command's settings"),
    ],
)
def test_a_mistake_is_told_before_the_first_command_runs(
    root: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "p.yaml").write_text(text)
    assert reproduce(root) == 2
    shown = capsys.readouterr().err
    assert message.split("|")[-1] in shown
    assert not (root / "w" / "corpus").exists()


def test_another_first_command_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(root, "--first", "expand") == 2
    assert "p.yaml has import, evaluate" in capsys.readouterr().err
    assert load("import") is import_corpus.main
