"""BM25 against a plain one, and what is taken of it: the best of each entity, ties by id."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.queries.making.hard_negatives import DIGITS, K1, B, Bm25, HardNegative, best, hard_negatives

WORDS = st.lists(st.sampled_from(["aa", "bb", "cc", "dd", "ee"]), max_size=8).map(" ".join)
TEXTS = st.lists(WORDS, min_size=1, max_size=12)


def plain_bm25(documents: list[str], query: str) -> list[float]:
    """Lucene's, word by word."""
    words = [one.split() for one in documents]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for own in words:
        score, counts = 0.0, Counter(own)
        for word in set(query.split()):
            df = sum(word in other for other in words)
            if counts[word]:
                idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
                score += idf * counts[word] / (counts[word] + K1 * (1 - B + B * len(own) / mean))
        scores.append(score)
    return scores


@given(TEXTS, WORDS)
def test_scores_are_those_of_a_plain_bm25(documents: list[str], query: str) -> None:
    found = Bm25(documents).scores(query)
    assert found == pytest.approx(plain_bm25(documents, query), abs=10**-DIGITS)


def test_scores_by_hand() -> None:
    """Three documents of 3, 2 and 1 words; "red" is in two of them, "car" in one, "sea" in none."""
    assert (K1, B) == (1.5, 0.75)
    found = Bm25(["Red red car.", "red boat", "boat"]).scores("A red, red car at sea")
    red, car = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)
    long, mean = 1.5 * (0.25 + 0.75 * 3 / 2), 1.5
    assert found == pytest.approx([red * 2 / (2 + long) + car / (1 + long), red / (1 + mean), 0], abs=1e-6)


def test_words_are_found_in_every_script_and_case() -> None:
    found = Bm25(["東京都", "ÅNGSTRÖM", "x"]).scores("ångström 東京")
    assert [score > 0 for score in found] == [True, True, False]


@pytest.mark.parametrize("texts", [["", "."], []])
def test_texts_without_words_are_like_nothing(texts: list[str]) -> None:
    assert Bm25(texts).scores("a car").tolist() == [0] * len(texts)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), max_size=20), st.integers(1, 6))
def test_the_best_are_sorted_by_score_and_then_by_place(scores: list[float], number: int) -> None:
    expected = sorted((place for place, score in enumerate(scores) if score), key=lambda p: (-scores[p], p))
    assert best(np.array(scores, np.float64), number) == expected[:number]


@given(TEXTS, st.data(), st.integers(1, 4))
def test_each_entity_of_a_class_brings_its_best(texts: list[str], data: st.DataObject, number: int) -> None:
    members = data.draw(st.sets(st.integers(0, len(texts) - 1), min_size=1))
    pool = [entity for entity in range(len(texts)) if entity not in members]
    found = hard_negatives(texts, members, reversed(pool), number)
    pairs: dict[int, list[tuple[float, int]]] = {}
    for member in sorted(members):
        scores = (
            [round(s, DIGITS) for s in plain_bm25([texts[e] for e in pool], texts[member])] if pool else []
        )
        order = sorted(range(len(pool)), key=lambda p: (-scores[p], p))
        for place in order[:number]:
            if scores[place] > 0:
                pairs.setdefault(pool[place], []).append((-scores[place], member))
    assert [one.entity for one in found] == sorted(pairs)
    for one in found:
        score, near = min(pairs[one.entity])
        assert (one.near, one.score) == (near, pytest.approx(-score, abs=2 * 10**-DIGITS))


def test_of_equal_scores_the_lowest_id_is_taken() -> None:
    texts = ["big cat", "big cat", "cat big", "cat, big", "dog"]
    score = Bm25(texts[2:]).scores("big cat")[0]
    counted: list[int] = []
    found = hard_negatives(texts, [1, 0], [4, 3, 2], 1, counted.append)
    assert found == [HardNegative(2, 0, score)]
    assert counted == [1, 1]
