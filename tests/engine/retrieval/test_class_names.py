"""Class names against a plain reading of CGExpan's rules, on random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import BundleError
from engine.retrieval.class_names import negative_names, of_other_classes, often, positive_name
from engine.retrieval.index import unit
from engine.retrieval.mention_states import MentionStates

NAMES = ["big cats", "cats", "dogs", "tools", "towns", "wild dogs"]


def mention_states(seed: int = 0, n: int = 9, d: int = 6) -> MentionStates:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 7, n)
    states = unit(random.normal(size=(int(counts.sum()), d))).astype(np.float16)
    return MentionStates(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), states)


@pytest.mark.parametrize("seed", range(5))
def test_the_positive_name_has_the_largest_sum_of_reciprocal_ranks(seed: int) -> None:
    nearness = np.random.default_rng(seed).random((4, len(NAMES)))
    eligible = {"cats", "dogs", "wild dogs", "towns"}
    sums = dict.fromkeys(eligible, 0.0)
    for row in nearness.tolist():
        by_name = {name: value for name, value in zip(NAMES, row, strict=True) if name in eligible}
        for rank, name in enumerate(sorted(by_name, key=lambda name: -by_name[name]), 1):
            sums[name] += 1 / rank
    assert positive_name(NAMES, nearness, eligible) == max(NAMES, key=lambda name: sums.get(name, 0))


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize("positive", NAMES)
def test_negative_names_are_those_that_every_seed_puts_below_by_the_margin(
    positive: str, margin: int
) -> None:
    found_any = 0
    for seed in range(60):
        nearness = np.random.default_rng(seed).random((2, len(NAMES)))
        expected = set()
        for name in ("cats", "dogs", "tools", "towns"):
            between = []
            for row in nearness.tolist():
                value = dict(zip(NAMES, row, strict=True))
                others = {n for n in ("cats", "dogs", "tools", "towns") if not positive.endswith(n)}
                above = sum(value[name] < value[o] < value[positive] for o in others)
                between.append(above if value[name] < value[positive] else -1)
            if not positive.endswith(name) and min(between) >= margin:
                expected.add(name)
        assert negative_names(NAMES, nearness, positive, margin) == expected
        found_any += len(expected)
    assert found_any or margin > 0


def test_an_entity_is_of_another_class_where_more_than_two_patterns_say_so() -> None:
    nearness = np.zeros((6, 3, 4))  # by pattern, name and entity
    nearness[:, 0] = 0.5
    for entity, wrong in enumerate((0, 2, 3, 6)):
        nearness[:wrong, 1 + entity % 2, entity] = 0.6
    assert of_other_classes(nearness).tolist() == [False, False, True, True]


def test_names_that_are_given_often() -> None:
    assert often({"cats": 30, "dogs": 29, "towns": 36}, 36, 5 / 6) == {"cats", "towns"}
    assert often({"cats": 3, "dogs": 2}, 36, 5 / 6) == {"cats"}
    assert often({}, 36, 5 / 6) == set()


def test_nearness_is_the_mean_of_the_largest_cosines_and_few_mentions_have_no_say() -> None:
    states = mention_states()
    queries = unit(np.random.default_rng(1).normal(size=(3, 6)))
    found = states.nearness(queries, range(len(states)), 3)
    for entity in range(len(states)):
        own = states.of(entity)
        for number, query in enumerate(queries):
            cosines = sorted((float(query @ state) for state in own), reverse=True)
            expected = sum(cosines[:3]) / 3 if len(cosines) >= 3 else 0
            assert found[number, entity] == pytest.approx(expected, abs=1e-6)
    assert (found == 0).any()
    assert (found != 0).any()


@pytest.mark.parametrize("at_a_time", [1, 20, 1 << 22])
def test_of_alternatives_the_best_counts_at_each_mention(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.retrieval.mention_states.COSINES", at_a_time)
    states = mention_states(5)
    queries = unit(np.random.default_rng(6).normal(size=(2 * 3, 6)))
    entities = [4, 0, 7, 2]
    found = states.nearness(queries, entities, 2, together=3)
    assert found.shape == (2, 4)
    for number in range(2):
        for place, entity in enumerate(entities):
            own = [max(float(q @ s) for q in queries[3 * number :][:3]) for s in states.of(entity)]
            expected = sum(sorted(own, reverse=True)[:2]) / 2 if len(own) >= 2 else 0
            assert found[number, place] == pytest.approx(expected, abs=1e-6)


def test_means_are_unit_and_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    states = mention_states(2)
    for entity, mean in enumerate(states.means()):
        own = states.of(entity)
        expected = own.mean(axis=0) / np.linalg.norm(own.mean(axis=0)) if len(own) else np.zeros(6)
        np.testing.assert_allclose(mean, expected, atol=1e-6)
    states.write(tmp_path)
    again = MentionStates.read(tmp_path)
    np.testing.assert_array_equal(again.means(), states.means())
    np.save(tmp_path / "starts.npy", np.arange(3))
    with pytest.raises(BundleError, match=r"do not make states of mentions; build the index again"):
        MentionStates.read(tmp_path)
