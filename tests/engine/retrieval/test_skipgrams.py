"""Skip-grams: which a mention has, their counts, their weights, and their files."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.skipgrams import count_skipgrams
from engine.errors import BundleError
from engine.retrieval.skipgrams import SkipGrams, skipgrams_of
from engine.text.hashes import hashes_of
from engine.text.words import tokens_of

WORDS = ["in", "of", "the", "big", ",", "was"]


def windows(sentence: str, name: str) -> set[str]:
    start = sentence.index(name)
    return skipgrams_of(sentence, start, start + len(name))


def test_the_six_windows_of_a_mention() -> None:
    assert windows("We once saw the king of Norway in his new boat.", "Norway") == {
        "of __ in",
        "king of __ in",
        "the king of __ in",
        "of __ in his new",
        "king of __ in his",
        "of __ in his",
    }


def test_windows_end_with_the_sentence_and_one_without_a_word_is_none() -> None:
    assert windows("Norway is cold.", "Norway") == {" __ is", " __ is cold", " __ is cold ."}
    assert windows("In Norway", "Norway") == {"in __ "}
    assert windows("Norway.", "Norway") == windows("(Norway)", "Norway") == set()


def test_tokens_are_words_and_signs_of_every_script() -> None:
    assert tokens_of("Norway's (old) KING") == ["norway", "'", "s", "(", "old", ")", "king"]
    assert tokens_of("我们 ไป नमस्ते, a") == ["我", "们", "ไ", "ป", "नमस्ते", ",", "a"]


def table(rows: list[tuple[int, str, int, int]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [(), (), (), ()]
    return pa.table(dict(zip(("entity_id", "sentence", "start", "end"), map(list, columns), strict=True)))


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.sampled_from(WORDS), max_size=4), st.integers(0, 4)),
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_counts_are_those_of_a_plain_count(drawn: list[tuple[int, list[str], int]], parts: int) -> None:
    rows = []
    for entity, words, place in drawn:
        before = " ".join(words[:place])
        start = len(before) + 1 if before else 0
        rows.append((entity, f"{before} X {' '.join(words[place:])}".strip(), start, start + 1))
    counts = [count_skipgrams(table(rows[i::parts])) for i in range(parts)] if rows else []
    plain = Counter(
        (row[0], text) for i in range(parts) for row in set(rows[i::parts]) for text in skipgrams_of(*row[1:])
    )
    entities_of = Counter(text for _, text in plain)
    expected = {pair: n for pair, n in plain.items() if entities_of[pair[1]] > 1}
    columns = [np.concatenate([np.asarray(one[i]) for one in counts] or [np.empty(0)]) for i in range(3)]
    found = SkipGrams.collect(
        columns[0].astype(np.int32), columns[1].astype(np.uint64), columns[2].astype(np.int32), 5
    )
    _check_ranges(columns, found)
    numbers = {
        text: i
        for i, text in enumerate(sorted({t for _, t in expected}, key=lambda t: int(hashes_of([t])[0])))
    }
    dense = np.zeros((5, len(numbers)))
    for (entity, text), n in expected.items():
        dense[entity, numbers[text]] = n
    assert found.n_features == len(numbers)
    np.testing.assert_array_equal(found.matrix(found.counts_P.astype(float)).toarray(), dense)
    _check_weights(found, dense)


def _check_ranges(columns: list[np.ndarray], whole: SkipGrams) -> None:
    """Ranges of hashes, one after the other, are what all hashes together are."""
    owners, hashes, counts = (c.astype(t) for c, t in zip(columns, ("i4", "u8", "i4"), strict=True))
    cuts = hashes >> np.uint64(62)
    some = [cuts == cut for cut in range(4)]
    ranges = [SkipGrams.collect(owners[cut], hashes[cut], counts[cut], 5) for cut in some]
    with tempfile.TemporaryDirectory() as folder:
        SkipGrams.write_ranges(Path(folder), 5, lambda: ranges)
        found = SkipGrams.read(Path(folder))
    for name in ("starts_N1", "features_P", "counts_P"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def _check_weights(found: SkipGrams, dense: np.ndarray) -> None:
    """Equation 1 of SetExpan, number by number."""
    vocabulary = sum(any(row) for row in dense.tolist())
    for entity, row in enumerate(dense.tolist()):
        for feature, n in enumerate(row):
            total = dense[:, feature].sum()
            expected = math.log(1 + n) * (math.log(vocabulary) - math.log(total)) if n else 0
            assert found.weights[entity, feature] == pytest.approx(expected)


def test_a_context_that_is_an_image_alone_has_none_and_a_sentence_counts_once() -> None:
    rows = [(0, "", 0, 0), (0, "in X", 3, 4), (0, "in X", 3, 4), (1, "in X", 3, 4)]
    found = SkipGrams.collect(*count_skipgrams(table(rows)), 3)
    assert found.counts_P.tolist() == [1, 1]
    assert found.present_N.tolist() == [True, True, False]


def test_files_are_read_as_they_were_written_and_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    rows = [(0, "in X", 3, 4), (1, "in X", 3, 4)]
    found = SkipGrams.collect(*count_skipgrams(table(rows)), 2)
    found.write(tmp_path)
    again = SkipGrams.read(tmp_path)
    for name in ("starts_N1", "features_P", "counts_P", "popularity_F", "mentions_F"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.save(tmp_path / "counts.npy", np.ones(5, np.int32))
    with pytest.raises(BundleError, match=r"do not make skip-grams; build the index again"):
        SkipGrams.read(tmp_path)
