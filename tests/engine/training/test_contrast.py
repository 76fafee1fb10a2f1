"""Contrastive training of the text encoder: which samples a pass draws, and the loss of either pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from engine.corpus.inputs.masking import load_tokenizer
from engine.errors import UserError
from engine.losses.settings import UltraFineSettings
from engine.losses.ultra_fine import NEGATIVE, OUTSIDE, POSITIVE
from engine.models.text import TextEncoder
from engine.training.contrast import ContrastData, ContrastTraining
from engine.training.contrast_batches import Codes, ListBatches
from engine.training.contrast_lists import ContrastLists
from engine.training.settings import ContrastiveSettings
from tests.support.sentences import cached, random_rows

N_ENTITIES = 12
NAMES = [f"Entity{number}" for number in range(N_ENTITIES)]
SIZES = UltraFineSettings(seed_text=True, lists_per_batch=2, list_entities=2, entity_sentences=2)


def lists(query_id: str, pos: list[int], neg: list[int], recalled: list[int]) -> ContrastLists:
    return ContrastLists(
        query_id, *(np.array(one, np.int32) for one in (pos[:1], neg[:1], pos, neg, recalled))
    )


MINED = [
    lists("a", [0, 1, 2], [3, 4], [0, 1, 2, 3, 4, 5]),
    lists("without negative seeds", [0, 1], [], [0, 1]),
    lists("b", [6, 7], [0, 8], [6, 7, 8]),
    lists("c", [9], [10, 11], [9, 10]),
]


def batches(normal: bool = True) -> tuple[ListBatches, np.ndarray]:
    entity = np.random.default_rng(0).permutation(np.repeat(np.arange(N_ENTITIES), 4))
    sizes = SIZES.model_copy(update={"normal_negatives": normal})
    return ListBatches(entity, np.arange(len(entity)), MINED, sizes, 3), entity


@pytest.mark.parametrize("normal", [True, False])
def test_an_epoch_draws_from_each_list_what_the_settings_say(normal: bool) -> None:
    drawn, entity = batches(normal)
    epoch = drawn.epoch(0)
    assert len(epoch) == len(drawn) == 2
    seen = []
    for codes in epoch:
        samples = drawn.codes.apart(codes)
        for which in np.unique(samples.lists):
            own = samples.lists == which
            of_side = {side: entity[samples.rows[own & (samples.sides == side)]] for side in range(3)}
            assert set(of_side[POSITIVE]) <= set(MINED[which].pos_list)
            assert set(of_side[NEGATIVE]) <= set(MINED[which].neg_list)
            assert not set(of_side[OUTSIDE]) & {*MINED[which].recalled, *MINED[which].neg_list}
            counts = [len(set(of_side[side])) for side in (POSITIVE, NEGATIVE, OUTSIDE)]
            sizes = len(MINED[which].pos_list), len(MINED[which].neg_list)
            others = 4 * normal
            assert counts == [min(2, sizes[0]), min(2, sizes[1]), others]
            assert [len(of_side[s]) for s in (POSITIVE, NEGATIVE, OUTSIDE)] == [
                2 * counts[0],
                2 * counts[1],
                others,
            ]
            assert len(set(samples.rows[own])) == own.sum(), "a sentence is drawn once for a list"
            seen.append(int(which))
    assert sorted(seen) == [0, 2, 3], "each list with both sides once, in one batch"
    again, _ = batches(normal)
    assert all(np.array_equal(*pair) for pair in zip(epoch, again.epoch(0), strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(epoch, again.epoch(1), strict=True))


@pytest.mark.parametrize(
    ("told", "beside", "passes"), [(3, 0, 3), (3, 100, 3), (None, 6, 3), (None, 7, 4), (None, 0, 1)]
)
def test_each_list_is_drawn_in_every_pass(told: int | None, beside: int, passes: int) -> None:
    """So many as were told, or as take about the steps of entity prediction; a pass takes two."""
    _, entity = batches()
    sizes = SIZES.model_copy(update={"contrast_passes": told})
    drawn = ListBatches(entity, np.arange(len(entity)), MINED, sizes, 3, beside)
    epoch = [np.unique(drawn.codes.apart(codes).lists).tolist() for codes in drawn.epoch(0)]
    assert len(epoch) == len(drawn) == 2 * passes
    assert all(sorted([*epoch[at], *epoch[at + 1]]) == [0, 2, 3] for at in range(0, len(epoch), 2))


def test_lists_of_one_side_are_nothing_to_contrast() -> None:
    with pytest.raises(UserError, match="none of the 1 queries' lists has sentences of both sides"):
        ListBatches(np.arange(4), np.arange(4), MINED[1:2], SIZES, 0)


@given(rows=st.lists(st.integers(0, 47), min_size=1, max_size=30), share=st.sampled_from([0.0, 0.2, 1.0]))
def test_a_sentence_under_a_list_is_still_that_sentence(rows: list[int], share: float) -> None:
    drawn, _ = batches()
    batch = np.array(rows, np.int64)
    (under,) = drawn.under_lists([batch], share, epoch=5)
    listed = under >= drawn.codes.n
    apart = drawn.codes.apart(under[listed])
    assert np.array_equal(apart.rows, batch[listed])
    assert np.array_equal(under[~listed], batch[~listed])
    assert set(apart.lists) <= {0, 2, 3}
    assert not apart.sides.any()
    assert listed.all() if share == 1 else share or not listed.any()


def test_a_fifth_of_the_sentences_stands_under_lists() -> None:
    drawn, _ = batches()
    plain = [np.arange(48)] * 100
    under = np.concatenate(drawn.under_lists(plain, 0.2, epoch=0))
    assert np.mean(under >= 48) == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(under, np.concatenate(drawn.under_lists(plain, 0.2, epoch=0)))
    assert not np.array_equal(under, np.concatenate(drawn.under_lists(plain, 0.2, epoch=1)))


@given(n=st.integers(1, 10**6), which=st.integers(0, 10**6), side=st.integers(0, 2), data=st.data())
def test_numbers_of_samples_come_apart_again(n: int, which: int, side: int, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, n - 1))
    for kind in (np.int32, np.int64):  # the numbers of samples are wide, whatever those of rows are
        codes = Codes(n).of(np.array([row], kind), which, side)
        assert [int(part[0]) for part in Codes(n).apart(codes)] == [row, which, side]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> ContrastTraining:
    folder = tmp_path_factory.mktemp("contrast")
    encoder, tokenizer = TextEncoder.load("embedded"), load_tokenizer("embedded")
    rows = random_rows(60, N_ENTITIES)
    data = ContrastData(cached(encoder, rows, folder, torch.float32), [rows.ids], MINED, NAMES)
    settings = ContrastiveSettings(batch_size=20, precision="float32", ultra_fine=SIZES)
    return ContrastTraining(encoder, tokenizer, data, N_ENTITIES, settings)


def test_entity_prediction_reads_some_sentences_with_seeds_behind(training: ContrastTraining) -> None:
    """Against the whole encoder, sentence by sentence, and torch's own smoothed cross-entropy."""
    data, tokenizer, module = training._contrast, training.tokenizer, training.module
    batch = np.concatenate(training.batches(0)[:2])
    under = batch >= len(data.states)
    assert 0 < under.sum() < len(batch)
    expected = 0.0
    for code in batch:
        row, text = int(code), []
        if code >= len(data.states):
            (row,), (which,), _ = training._lists.codes.apart(np.array([code]))
            one = MINED[int(which)]
            for mark, seeds in (("[POS_SEP]", one.positive), ("[NEG_SEP]", one.negative)):
                for seed in seeds:
                    text += [tokenizer.convert_tokens_to_ids(mark)]
                    text += tokenizer(f" {NAMES[seed]}", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*data.ids(int(row)).tolist(), *text]])
        with torch.no_grad():
            states = training.encoder.states(ids, torch.tensor([ids.shape[1]]))
            logits = module.head(states[:, int(data.states.mask_index[int(row)])])
        label = torch.tensor([int(data.states.entity_id[int(row)])])
        expected += float(F.cross_entropy(logits, label, label_smoothing=training.settings.smoothing))
    loss = training.loss_of(batch, len(batch))
    assert float(loss.detach()) == pytest.approx(expected / len(batch), rel=1e-4)
