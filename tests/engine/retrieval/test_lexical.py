from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.terms import DESCRIPTION_WEIGHT, PartTerms, description_terms, mention_terms, repeated
from engine.retrieval.index import Vectors
from engine.retrieval.latent_semantics import SPARE, Blocks, latent_vectors
from engine.retrieval.lexical import (
    TermWeights,
    add_up,
    decades_and_centuries,
    ends_by_range,
    pairs_between,
    terms_of_pairs,
    terms_of_words,
    weigh,
)
from tests.support.plain_lexical import plain_lexical_view, plain_weights

DOCUMENTS = [
    "iron steel forge smith hammer",
    "copper wire forge smith kettle",
    "violin bow string orchestra",
    "cello bow string orchestra",
    "",
]

Mention = tuple[int, str]


def counted(descriptions: Sequence[str], parts: Sequence[Sequence[Mention]]) -> list[PartTerms]:
    """Count a corpus as the steps do, descriptions two at a time."""
    tables = [
        pa.table({"entity_id": [e for e, _ in part], "sentence": [s for _, s in part]}) for part in parts
    ]
    nothing = np.empty(0, np.uint64)
    twice = repeated([mention_terms(table, nothing).sentences for table in tables])
    described = [description_terms(at, descriptions[at : at + 2]) for at in range(0, len(descriptions), 2)]
    return described + [mention_terms(table, twice.get(at, nothing)) for at, table in enumerate(tables)]


def blocks(parts: Sequence[PartTerms], n_entities: int, ranges: int) -> Blocks:
    """Weigh counts in so many ranges of terms."""
    counts = [*(part.counts for part in parts), pairs_between(np.concatenate([part.ends for part in parts]))]
    whole = np.concatenate(counts)
    place = whole["term"] % np.uint64(ranges)
    found: list[TermWeights] = []
    for one in range(ranges):
        rows = whole[place == one]
        found.append(weigh(add_up(rows["term"], rows["entity"], rows["count"]), n_entities))
    return lambda: found


def texts_of(descriptions: Sequence[str], parts: Sequence[Sequence[Mention]]) -> list[str]:
    """Return all texts of each entity, plainly."""
    found = [[text] * DESCRIPTION_WEIGHT for text in descriptions]
    for entity, sentence in dict.fromkeys(itertools.chain(*parts)):
        found[entity].append(sentence)
    return [" ".join(texts) for texts in found]


def lexical_view(texts: Sequence[str], dims: int = 512) -> Vectors:
    parts = counted([""] * len(texts), [list(enumerate(texts))])
    return latent_vectors(blocks(parts, len(texts), 1), len(texts), dims)


def dense(weights: Blocks, n_entities: int) -> np.ndarray:
    """Return all columns, rows scaled to 1, the columns in an order of their own."""
    columns = []
    for starts, entities, values in weights():
        for begin, end in itertools.pairwise(starts):
            column = np.zeros(n_entities)
            column[entities[begin:end]] = values[begin:end]
            columns.append(column)
    found = np.array(columns).reshape(-1, n_entities).T
    return sorted_columns(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))


def sorted_columns(matrix: np.ndarray) -> np.ndarray:
    return matrix[:, np.lexsort(np.round(matrix, 4))]


def corpus(seed: int) -> tuple[list[str], list[list[Mention]]]:
    """Return invented descriptions of 30 entities, and three parts of sentences, some of them twice."""
    rng = np.random.default_rng(seed)
    words = [f"word{i}" for i in range(60)] + ["1832", "1839", "1990", "café", "港口城市", "a"]
    chances = 1 / np.arange(1, len(words) + 1)

    def text(length: int) -> str:
        return " ".join(rng.choice(words, length, p=chances / chances.sum()))

    descriptions = [text(6) if entity % 3 else "" for entity in range(30)]
    parts = [[(int(rng.integers(29)), text(8)) for _ in range(60)] for _ in range(3)]
    parts[1][::7], parts[2][::5] = parts[0][: len(parts[1][::7])], parts[0][: len(parts[2][::5])]
    parts[2] += [parts[2][0], (3, ""), (4, "?")]
    return descriptions, parts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ranges", [1, 4])
def test_weights_made_in_parts_are_those_of_all_texts_at_once(seed: int, ranges: int) -> None:
    descriptions, parts = corpus(seed)
    plain = sorted_columns(plain_weights(texts_of(descriptions, parts)).toarray())
    found = dense(blocks(counted(descriptions, parts), 30, ranges), 30)
    np.testing.assert_allclose(found, plain, atol=1e-6)


@pytest.mark.parametrize("dims", [6, 512])
def test_vectors_made_in_parts_are_those_of_all_texts_at_once(dims: int) -> None:
    """Up to a rotation, which changes no product."""
    descriptions, parts = corpus(0)
    plain = plain_lexical_view(texts_of(descriptions, parts), dims)
    found = latent_vectors(blocks(counted(descriptions, parts), 30, 4), 30, dims)
    assert found.shape == plain.shape
    np.testing.assert_allclose(found @ found.T, plain @ plain.T, atol=1e-5)


def test_vectors_of_more_entities_than_directions_are_those_of_the_plain_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(5)
    texts = [" ".join(f"w{i}" for i in rng.zipf(1.3, 30) % 900) for _ in range(300)]
    plain = plain_lexical_view(texts, dims=40)
    monkeypatch.setattr("engine.retrieval.latent_semantics.ROWS", 70)
    monkeypatch.setattr("engine.retrieval.latent_semantics.PRODUCTS", 900 * 12)
    found = lexical_view(texts, dims=40)
    np.testing.assert_allclose(found @ found.T, plain @ plain.T, atol=1e-4)
    ranks, others = (np.argsort(-(one @ one.T), axis=1)[:, :10] for one in (found, plain))
    assert (ranks == others).mean() > 0.99


@pytest.mark.parametrize("together", [1, 5, 1 << 20])
def test_pairs_between_parts_are_the_same_of_some_entities_at_a_time(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    parts = [part.ends for part in counted(*corpus(1))]
    whole = pairs_between(np.concatenate(parts))
    monkeypatch.setattr("engine.retrieval.lexical.ENDS_TOGETHER", together)
    some = list(ends_by_range(parts, 30))
    assert len(some) == min(30, -(-30 // (-(-30 // (1 + sum(map(len, parts)) // together)))))
    rows = np.concatenate([pairs_between(ends) for ends in some])
    np.testing.assert_array_equal(add_up(rows["term"], rows["entity"], rows["count"]), whole)
    assert len(whole) > 20


def test_columns_at_a_time_and_mapped_matrices_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    descriptions, parts = corpus(0)
    weights = blocks(counted(descriptions, parts), 30, 4)
    plain = latent_vectors(weights, 30, 20)
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("engine.storage.mapped.SMALL", 0)
    monkeypatch.setattr("engine.retrieval.latent_semantics.COLUMNS", 30 * 9)
    found = latent_vectors(weights, 30, 20)
    assert isinstance(found.base, np.memmap)
    np.testing.assert_array_equal(found, plain)
    assert not any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("seed", range(3))
def test_sentences_that_parts_share_are_found_range_by_range(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    some = rng.integers(1 << 64, size=40, dtype=np.uint64)
    parts = [np.unique(rng.choice(some, 15)) for _ in range(6)] + [np.empty(0, np.uint64)]
    seen, plain = set[int](), {}
    for number, part in enumerate(parts):
        if own := [one for one in part.tolist() if one in seen]:
            plain[number] = own
        seen |= set(part.tolist())
    for size in (1 << 20, 7, 1):
        monkeypatch.setattr("engine.corpus.terms.RANGE", size)
        found = repeated(parts)
        assert {number: own.tolist() for number, own in found.items()} == plain
        assert list(found) == sorted(found)


def test_memory_of_the_reduction_does_not_grow_with_the_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    n_entities, dims, n_terms = 2000, 20, 100
    monkeypatch.setattr("engine.retrieval.latent_semantics.ROWS", 100)
    monkeypatch.setattr("engine.retrieval.latent_semantics.PRODUCTS", n_entities * 8)
    starts = np.arange(n_terms + 1) * 3

    def peak(n_blocks: int) -> int:
        def made() -> Iterator[TermWeights]:
            rng = np.random.default_rng(0)
            for _ in range(n_blocks):
                entities = np.sort(rng.integers(n_entities, size=(n_terms, 3)), axis=1)
                weights = rng.random(3 * n_terms)
                yield TermWeights(starts, entities.astype(np.int32).ravel(), weights.astype(np.float32))

        tracemalloc.start()
        latent_vectors(made, n_entities, dims)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # which imports what it needs
    of_entities = n_entities * (dims + SPARE) * 4
    assert peak(40) < 4 * of_entities
    assert peak(400) < 1.5 * peak(40)
    assert 4 * of_entities < 400 * n_terms * dims * 4, "where the directions of all terms have no room"


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.text("ab 1\u4e00\u0301é.", max_size=9)), max_size=6))
)
def test_however_sentences_are_parted_the_counts_are_the_same(parts: list[list[Mention]]) -> None:
    def summed(parts: list[list[Mention]]) -> np.ndarray:
        found = counted(["", "ab ba", "ab", ""], parts)
        whole = [one.counts for one in found] + [pairs_between(np.concatenate([one.ends for one in found]))]
        rows = np.concatenate(whole)
        return add_up(rows["term"], rows["entity"], rows["count"])

    np.testing.assert_array_equal(summed(parts), summed([list(itertools.chain(*parts))]))


def test_documents_that_share_words_are_near() -> None:
    vectors = lexical_view(DOCUMENTS * 3, dims=2)[:5]
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.5
    assert cosines[2, 3] > cosines[2, 1] + 0.5
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 0], atol=1e-5)


@pytest.mark.parametrize(
    "texts",
    [
        ["港口城市开市场", "市场城市", "山上的古庙", "古庙在山上"],
        ["เมืองท่าริมทะเล", "ท่าเรือริมทะเล", "วัดบนภูเขา", "ภูเขามีวัด"],
        ["समुद्र किनारे", "किनारे समुद्र", "पहाड़ मंदिर", "मंदिर पहाड़"],
    ],
)
def test_documents_of_every_script_have_words(texts: list[str]) -> None:
    vectors = lexical_view(texts * 3, dims=2)[:4]
    cosines = vectors @ vectors.T
    assert vectors.any(axis=1).all()
    assert cosines[0, 1] > cosines[0, 2] + 0.5
    assert cosines[2, 3] > cosines[2, 1] + 0.5


def test_the_lexical_view_is_the_same_every_time() -> None:
    np.testing.assert_array_equal(lexical_view(DOCUMENTS * 3), lexical_view(DOCUMENTS * 3))


def test_no_words_at_all_give_no_vectors() -> None:
    assert not lexical_view(["", "", ""]).any()
    assert lexical_view(["one"]).shape[0] == 1


def test_years_have_their_decade_and_century() -> None:
    assert decades_and_centuries("Born in 1832, in the 1850s.") == ["183x", "18xx", "185x", "18xx"]
    assert decades_and_centuries("It weighs 18320 kg, and 999 or 2150 are no years") == []


def test_a_pair_is_no_word_and_is_told_by_both_words_in_their_order() -> None:
    iron, gold = terms_of_words(["iron"]), terms_of_words(["gold"])
    pairs = [terms_of_pairs(a, b)[0] for a, b in itertools.product((iron, gold), repeat=2)]
    assert len({iron[0], gold[0], *pairs}) == 6
    assert [int(term) >> 63 for term in (iron[0], gold[0], *pairs)] == [0, 0, 1, 1, 1, 1]


def test_a_sentence_that_two_parts_have_counts_in_the_first() -> None:
    parts = [[(0, "iron ore"), (1, "iron ore")], [(0, "iron ore")], [(1, "tin"), (1, "iron ore")]]
    found = counted(["", ""], parts)[1:]
    assert [len(part.sentences) for part in found] == [2, 0, 1]
    assert [part.counts["count"].tolist() for part in found] == [[1] * 6, [], [1]]
