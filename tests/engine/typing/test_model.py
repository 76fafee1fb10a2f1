"""A typing model: begun, trained, written, read, its labels exchanged; what cannot be is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from engine.errors import FormatError, UserError
from engine.training.settings import TypingSettings
from engine.training.trainer import Worker
from engine.training.typing import TypingTraining, labelled
from engine.typing.mentions import Mention, TypedMention
from engine.typing.model import TypingModel, chosen_labels
from engine.typing.offset import fit_offset
from tests.support.encoders import write_encoder, write_masked_lm

LABELS = ["ab", "cd", "e_f"]
DATA = [
    TypedMention(
        str(i), Mention("t " * (i % 3), "m" if i % 2 else "o n", "r"), ("ab",) if i % 2 else ("cd", "e_f")
    )
    for i in range(12)
]
SETTINGS = TypingSettings(
    epochs=40, batch_size=6, learning_rate=1e-2, objective_weight=0.01, precision="float32"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("encoders")
    write_encoder(made / "bare")
    write_masked_lm(made / "headed")
    return made


@pytest.mark.parametrize("name", ["bare", "headed"])
def test_a_model_learns_and_is_the_same_after_it_was_written(folder: Path, tmp_path: Path, name: str) -> None:
    model = TypingModel.begin(str(folder / name), LABELS)
    training = TypingTraining(model, DATA, SETTINGS)
    for _ in training.run():
        pass
    assert np.mean(training.losses[-4:]) < np.mean(training.losses[:4]) * 0.8
    mentions = [one.mention for one in DATA]
    if name == "bare":  # all weights of the other are drawn at random, also the scales of its norms
        found = [sorted(t.label for t in types) for types in model.types(mentions)]
        assert found == [sorted(one.labels) for one in DATA]
    assert model.save(tmp_path) == "labels.json"
    again = TypingModel.load(tmp_path)
    np.testing.assert_allclose(again.scores(mentions), model.scores(mentions), rtol=2e-2, atol=5e-2)
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors"}


def test_scores_are_those_of_the_training(folder: Path) -> None:
    model = TypingModel.begin(str(folder / "headed"), LABELS)
    mention = DATA[0].mention
    question = model.inputs.assemble(model.inputs.tokens([mention])[0])
    model.network.eval()
    with torch.no_grad():
        states = model.network.states(torch.tensor([question.ids]), torch.tensor([len(question.ids)]))
        wanted = model.network.scores(states[:, question.mask_index])[0]
    np.testing.assert_allclose(model.scores([mention])[0], wanted.numpy(), rtol=2e-2, atol=2e-2)


def test_the_offset_brings_the_mean_score_to_the_labels_frequency(folder: Path) -> None:
    model = TypingModel.begin(str(folder / "bare"), LABELS)
    fit_offset(model, DATA)
    share = 18 / (12 * 3)
    mean = float(model.scores([one.mention for one in DATA]).mean())
    assert mean == pytest.approx(np.log(share / (1 - share)), abs=0.1)


def test_the_rules_of_prediction() -> None:
    labels = ["a", "b", "/c/d/e"]
    scores = np.array([0.5, 2.0, -1.0], np.float32)
    assert chosen_labels(scores, labels, "threshold") == ["b", "a"]
    assert chosen_labels(scores, labels, "single") == ["b"]
    assert chosen_labels(scores - 3, labels, "threshold") == ["b"]
    assert chosen_labels(scores[::-1], labels[::-1], "threshold") == ["b", "a"]
    assert chosen_labels(np.array([-1, -2, 0], np.float32), labels, "single") == ["/c", "/c/d", "/c/d/e"]


def test_labels_are_exchanged_and_paths_predict_one_type(folder: Path) -> None:
    model = TypingModel.begin(str(folder / "headed"), LABELS)
    model.exchange_labels(["/x/ab", "/y"])
    assert (model.about.words, model.about.rule) == (["ab", "y"], "single")
    assert model.scores([DATA[0].mention]).shape == (1, 2)
    for types in model.types([one.mention for one in DATA]):
        assert [one.label for one in types] in (["/x", "/x/ab"], ["/y"])
        assert all(0 < one.confidence < 1 for one in types)


def test_the_defaults_are_the_papers(folder: Path) -> None:
    """Four heads, 128 tokens, own labels five times, both other objectives at a tenth (sections 2 and 3)."""
    settings = TypingSettings()
    assert (settings.label_weight, settings.max_tokens) == (5, 128)
    assert (settings.mlm, settings.next_word, settings.objective_weight) == (True, True, 0.1)
    model = TypingModel.begin(str(folder / "bare"), LABELS)
    assert (model.about.max_tokens, model.network.pooling.heads) == (128, 4)
    words = model.network.mlm.get_input_embeddings().weight
    assert model.network.tokens_VD is words, "an encoder without a head decodes by its word embeddings"


def test_a_folders_own_head_is_begun_with(folder: Path) -> None:
    model = TypingModel.begin(str(folder / "headed"), LABELS)
    came = BertForMaskedLM.from_pretrained(folder / "headed")
    torch.testing.assert_close(model.network.mlm.state_dict(), came.state_dict())
    torch.testing.assert_close(model.network.tokens_VD, came.cls.predictions.decoder.weight)


def test_where_one_type_is_predicted_the_finest_are_learnt(folder: Path) -> None:
    mention = TypedMention("1", Mention("", "m", ""), ("/x", "/x/ab", "/y"))
    paths = TypingModel.begin(str(folder / "bare"), ["/x", "/x/ab", "/y"])
    assert paths.about.rule == "single"
    (learnt,) = labelled(paths, [mention])
    assert learnt.own.tolist() == [1, 2], "not the parent, which would come before its child"
    words = TypingModel.begin(str(folder / "bare"), ["x", "x_ab"])
    (learnt,) = labelled(words, [TypedMention("1", mention.mention, ("x", "x_ab"))])
    assert (words.about.rule, learnt.own.tolist()) == ("threshold", [0, 1])


def test_layers_choose_what_learns(folder: Path) -> None:
    before = TypingModel.begin(str(folder / "bare"), LABELS).network.state_dict()
    model = TypingModel.begin(str(folder / "bare"), LABELS)
    training = TypingTraining(model, DATA, SETTINGS.model_copy(update={"layers": 1, "epochs": 1}))
    list(training.run())
    changed = {
        name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert any(name.startswith("mlm.bert.encoder.layer.1.") for name in changed)
    assert any(name.startswith("pooling.") for name in changed)
    assert not any("embeddings" in name or "layer.0." in name or "decoder.weight" in name for name in changed)
    with pytest.raises(UserError, match="--layers 3: the encoder has 2"):
        TypingTraining(model, DATA, SETTINGS.model_copy(update={"layers": 3}))


def loss(folder: Path, rows: list[int], of: int = len(DATA), **changed: Any) -> float:
    """Return the loss of some mentions as a part of a batch of ``of``, in float32, before any step."""
    settings = SETTINGS.model_copy(update=changed)
    training = TypingTraining(TypingModel.begin(str(folder / "bare"), LABELS), DATA, settings)
    return float(training.loss_of(np.array(rows), of).detach())


def test_a_batchs_loss_is_the_sum_of_what_workers_have_of_it(folder: Path) -> None:
    whole = loss(folder, list(range(12)))
    parts = [loss(folder, rows) for rows in ([0, 3, 4, 9, 11], [1, 2, 5, 6, 7, 8, 10], [])]
    assert parts[2] == 0
    assert sum(parts) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("mlm", [True, False])
@pytest.mark.parametrize("next_word", [True, False])
def test_an_objective_that_is_off_adds_nothing(folder: Path, mlm: bool, next_word: bool) -> None:
    rows = list(range(12))
    without, half, whole = (
        loss(folder, rows, mlm=mlm, next_word=next_word, objective_weight=weight) for weight in (0, 0.5, 1)
    )
    assert (whole - without > 0.1) == (mlm or next_word)
    assert whole - without == pytest.approx(2 * (half - without), rel=1e-3, abs=1e-5)
    if mlm and next_word:
        one_off = (loss(folder, rows, **{name: False}, objective_weight=1) for name in ("mlm", "next_word"))
        assert all(whole - other > 0.1 for other in one_off)


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(folder: Path, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"epochs": 3})
    whole = TypingTraining(TypingModel.begin(str(folder / "bare"), LABELS), DATA, short)
    for report in whole.run():
        if report.step == 3:
            whole.save(tmp_path)
    resumed = TypingTraining(TypingModel.begin(str(folder / "bare"), LABELS), DATA, short, Worker(), tmp_path)
    list(resumed.run())
    np.testing.assert_allclose(resumed.losses, whole.losses, rtol=1e-5)


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    model = TypingModel.begin(str(folder / "bare"), LABELS)
    strange = TypedMention("m7", Mention("", "m", ""), ("zz",))
    with pytest.raises(UserError, match=r"mention m7 has the label 'zz', which is not among the 3 types"):
        labelled(model, [*DATA, strange])
    with pytest.raises(UserError, match="no mention has a label to learn"):
        labelled(model, [TypedMention("1", Mention("", "m", ""), ())])
    with pytest.raises(UserError, match="'a' and 'A' are both 'a' in words"):
        model.exchange_labels(["a", "A"])
    with pytest.raises(UserError, match=r"'é' and 'è' are the same tokens"):
        model.exchange_labels(["é", "è"])  # both unknown to the tokenizer
    with pytest.raises(
        UserError, match=r"inputs of 300 tokens, and it has positions for 128; give --max-tokens"
    ):
        TypingModel.begin(str(folder / "bare"), LABELS, max_tokens=300)
    with pytest.raises(UserError, match=r"no labels\.json in it"):
        TypingModel.load(folder / "headed")
    model.save(tmp_path)
    (tmp_path / "pooling.safetensors").write_bytes(b"cut")
    with pytest.raises(FormatError, match=r"pooling\.safetensors: not the pooling of labels"):
        TypingModel.load(tmp_path)
    (tmp_path / "labels.json").write_text('{"labels": ["a"], "words": []}')
    with pytest.raises(FormatError, match=r"labels\.json: 1 labels and 0 words"):
        TypingModel.load(tmp_path)
    (tmp_path / "labels.json").write_text("[]")
    with pytest.raises(FormatError, match=r"labels\.json: not the labels of a typing model"):
        TypingModel.load(tmp_path)
