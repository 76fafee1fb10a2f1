"""The sentences of entities: their order, their files, and what is estimated from a few."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BundleError
from engine.retrieval import sentence_files
from engine.retrieval.entity_sentences import KEPT_STATES, EntitySentences, herding
from engine.retrieval.sentence_files import SentenceRows, write_sentences


def drawn(counts: list[int], dim: int = 6, seed: int = 0) -> tuple[EntitySentences, np.ndarray, np.ndarray]:
    """Sentences of some entities in a random order; also their entities and states, in that order."""
    random = np.random.default_rng(seed)
    entities = random.permutation(np.repeat(np.arange(len(counts)), counts))
    states = random.normal(size=(len(entities), dim)).astype(np.float32)
    ids = [np.full(3 + row % 4, row, np.int32) for row in range(len(entities))]
    return (
        EntitySentences.of(len(counts), entities, ids, np.arange(len(entities)) % 3, states),
        entities,
        states,
    )


def test_herding_takes_next_what_brings_the_mean_nearest() -> None:
    # The mean is 3: first 3 itself; then 2 (mean 2.5) rather than 0, 4 or 6; then 4 (mean 3).
    states = np.array([[0.0], [2.0], [6.0], [4.0], [3.0]])
    assert herding(states).tolist()[:3] == [4, 1, 3]
    assert sorted(herding(states)) == list(range(5))


def test_every_sentence_is_kept_with_its_own_tokens_mask_and_state() -> None:
    sentences, entities, states = drawn([7, 0, 2])
    for entity in range(3):
        own = np.flatnonzero(entities == entity)
        rows = sentences.rows(entity, None)
        assert sorted(sentences.ids(row)[0] for row in rows) == own.tolist()
        for place, row in enumerate(rows):
            original = int(sentences.ids(row)[0])
            assert len(sentences.ids(row)) == 3 + original % 4
            assert sentences.mask_index[row] == original % 3
            if place < KEPT_STATES:
                np.testing.assert_allclose(sentences.states[entity, place], states[original], atol=2e-3)
        if len(own):
            np.testing.assert_allclose(sentences.means[entity], states[own].mean(axis=0), atol=1e-6)
    assert sentences.rows(0, 3) == range(3)
    assert sentences.counts(np.array([0, 1, 2], np.int32)).tolist() == [7, 0, 2]
    assert sentences.longest == max(3 + row % 4 for row in range(9))


def test_the_mean_under_a_query_is_that_of_what_was_read_or_the_documented_estimate() -> None:
    sentences, _, _ = drawn([9, 3, 0, 6])
    random = np.random.default_rng(1)
    under = [random.normal(size=(n, 6)) for n in (3, 3, 0, 2)]  # entity 1 has no other sentences
    read = sentences.means_under(range(4), under, estimated=False)
    np.testing.assert_allclose(read[[0, 1, 3]], [under[e].mean(axis=0) for e in (0, 1, 3)])
    assert not read[2].any()
    plain = [sentences.states[e, : len(own)].astype(np.float64) for e, own in enumerate(under)]
    u, c = np.concatenate(plain), np.concatenate(under)
    # Ridge regression with an offset, as rows of their own below the data.
    spread = np.sqrt(0.1 * ((u - u.mean(axis=0)) ** 2).sum() / 6) * np.eye(6)
    stacked = np.concatenate([u - u.mean(axis=0), spread]), np.concatenate([c - c.mean(axis=0), 0 * spread])
    weights = np.linalg.lstsq(*stacked)[0]

    def mapped(state: np.ndarray) -> np.ndarray:
        return (state - u.mean(axis=0)) @ weights + c.mean(axis=0)

    found = sentences.means_under(range(4), under)
    np.testing.assert_allclose(found[1], read[1])
    for entity, share in ((0, 3 / 11), (3, 2 / 10)):
        left = np.mean(under[entity] - mapped(plain[entity]), axis=0)
        np.testing.assert_allclose(found[entity], mapped(sentences.means[entity]) + share * left, atol=1e-9)


def test_what_is_linear_in_the_states_is_estimated_well_from_one_sentence_each() -> None:
    sentences, entities, states = drawn([8] * 60)
    change = np.eye(6) + 0.3 * np.random.default_rng(2).normal(size=(6, 6))
    first = [int(sentences.ids(sentences.rows(e, 1)[0])[0]) for e in range(60)]
    under = [(states[row] @ change + 2)[None] for row in first]
    true = np.stack([states[entities == e].mean(axis=0) @ change + 2 for e in range(60)])
    errors = [
        np.abs(sentences.means_under(range(60), under, estimated) - true).mean()
        for estimated in (True, False)
    ]
    assert errors[0] < errors[1] / 4


def test_written_and_read_they_are_the_same_and_what_is_cut_is_refused(tmp_path: Path) -> None:
    sentences, _, _ = drawn([4, 1])
    sentences.write(tmp_path)
    again = EntitySentences.read(tmp_path)
    for name in ("starts", "offsets", "tokens", "mask_index", "means", "states"):
        np.testing.assert_array_equal(getattr(again, name), getattr(sentences, name))
    np.save(tmp_path / "tokens.npy", sentences.tokens[:-1])
    with pytest.raises(BundleError, match="do not fit each other; build the index again"):
        EntitySentences.read(tmp_path)


@pytest.mark.parametrize("together", [1, 4, 1000])
def test_sentences_of_parts_are_written_as_all_together_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """The same bytes of every array, however many sentences are brought into order at a time."""
    monkeypatch.setattr(sentence_files, "TOGETHER", together)
    random = np.random.default_rng(2)
    entities = random.permutation(np.repeat(np.arange(5), [7, 0, 2, 1, 6]))
    lengths, masks = random.integers(3, 9, len(entities)), np.arange(len(entities)) % 3
    states = random.normal(size=(len(entities), 4)).astype(np.float32)
    ids = [random.integers(0, 1000, n).astype(np.int32) for n in lengths]
    cuts = [slice(0, 6), slice(6, 6), slice(6, 16)]

    def parts() -> list[SentenceRows]:
        nothing = np.zeros(0, np.int32)
        return [
            SentenceRows(entities[cut], lengths[cut], masks[cut], np.concatenate([nothing, *ids[cut]]))
            for cut in cuts
        ]

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = write_sentences(tmp_path / "x", scratch, 5, 4, parts, (states[cut] for cut in cuts))
    plain = EntitySentences.of(5, entities, ids, masks, states)
    for field in fields(EntitySentences):
        written, expected = getattr(found, field.name), getattr(plain, field.name)
        assert (written.dtype, written.tobytes()) == (expected.dtype, expected.tobytes()), field.name
