from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.query import Expansion, NewEntity, Query, Ranking, Scores
from engine.stages.base import Stage
from engine.stages.rerank import (
    ContrastRerank,
    SegmentRerank,
    confidence_segments,
    equal_segments,
)
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

# Entity i at angle ANGLES[i] (degrees); 10 is the positive seed, 11 the negative one along x.
ANGLES = [10, 50, 30, 70, 80, 20, 60, 40, 90, 45, 90, 0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    radians = np.deg2rad(ANGLES)
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    workspace = Workspace.open(tmp_path_factory.mktemp("w"))
    names = [f"e{i}" for i in range(len(ANGLES))]
    return publish_vectors(workspace, names, {"mask": vectors, "joint": vectors})


def listed(ids: Sequence[int], negative: Sequence[int] = (11,), scores: Scores | None = None) -> Expansion:
    falling = np.linspace(1, 0.5, len(ids), dtype=np.float32) if scores is None else scores
    return Expansion(Query("q", (10,), tuple(negative)), Ranking(np.array(ids, np.int32), falling))


def test_segments_of_four_the_last_is_shorter() -> None:
    assert equal_segments(10, 4).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert equal_segments(0, 4).tolist() == []


def test_within_a_segment_the_least_like_the_negative_seeds_comes_first(bundle: Bundle) -> None:
    before = listed(range(10))
    (after,) = SegmentRerank(length=4).open(bundle)([before])
    # The larger the angle the smaller the cosine to the negative seed at 0 degrees.
    assert after.ranking.ids.tolist() == [3, 1, 2, 0, 4, 6, 7, 5, 8, 9]
    np.testing.assert_array_equal(after.ranking.scores, before.ranking.scores)
    assert after.ranking.evidence["segment"].tolist() == [0] * 4 + [1] * 4 + [2] * 2
    expected = np.cos(np.deg2rad(ANGLES))[after.ranking.ids]
    np.testing.assert_allclose(after.ranking.evidence["negative"], expected, atol=1e-6)


def test_sco_minus_is_the_mean_over_the_negative_seeds(bundle: Bundle) -> None:
    (after,) = SegmentRerank().open(bundle)([listed([1, 2], negative=(11, 8))])
    cosines = [(np.cos(np.deg2rad(a)) + np.cos(np.deg2rad(90 - a))) / 2 for a in (30, 50)]
    assert after.ranking.evidence["negative"].tolist() == pytest.approx(cosines, abs=1e-6)


@pytest.mark.parametrize("stage", [SegmentRerank(), ContrastRerank()])
def test_a_new_negative_seed_counts_like_one_that_is_known(bundle: Bundle, stage: Stage) -> None:
    worker = stage.open(bundle)
    along_x = np.array([1, 0], np.float32)
    eleven = NewEntity("eleven", ("eleven",), {"mask": along_x, "joint": along_x})
    unplaced = NewEntity("Atlantis", ("Atlantis sank.",))
    known = listed(range(10))
    new = replace(known, query=Query("q", (10,), (-1, -2), new=(eleven, unplaced)))
    (expected,), (found,) = worker([known]), worker([new])
    np.testing.assert_array_equal(found.ranking.ids, expected.ranking.ids)
    np.testing.assert_array_equal(found.ranking.scores, expected.ranking.scores)
    assert expected.degraded == ()
    assert found.degraded == (f"{stage.name}: negative seed 'Atlantis' has no sentence and was not used",)


def test_a_list_without_negative_seeds_is_unchanged(bundle: Bundle) -> None:
    for stage in (SegmentRerank(), SegmentRerank(confidence=0.3), ContrastRerank()):
        (after,) = stage.open(bundle)([listed([3, 1, 2], negative=())])
        assert after.ranking.ids.tolist() == [3, 1, 2]


def test_an_empty_list_stays_empty(bundle: Bundle) -> None:
    for stage in (SegmentRerank(), SegmentRerank(confidence=0.3), ContrastRerank()):
        (after,) = stage.open(bundle)([listed([])])
        assert len(after.ranking) == 0
        assert stage.open(bundle)([]) == []


def test_confidence_segments_by_hand() -> None:
    """Appendix K with p = 0.5 on six scores.

    Of 30 in all, 8 + 8 = 16 exceeds 15: two. Of 14 left, 6 does not exceed 7, 6 + 4 does: two.
    Of 4 left, 3 exceeds 2: one. The last one is left: one.
    """
    scores = np.array([8, 8, 6, 4, 3, 1], np.float32) / np.float32(10)
    assert confidence_segments(scores, 0.5).tolist() == [0, 0, 1, 1, 2, 3]


def test_confidence_segments_of_scores_without_mass() -> None:
    assert confidence_segments(np.array([-1, -2], np.float32), 0.5).tolist() == [0, 0]
    assert confidence_segments(np.array([1, 0, 0], np.float32), 0.5).tolist() == [0, 1, 1]
    assert confidence_segments(np.empty(0, np.float32), 0.5).tolist() == []


@given(
    st.lists(st.floats(-1, 1, width=32), max_size=50),
    st.floats(0.01, 0.99),
)
def test_confidence_segments_cover_the_list_in_order(scores, confidence: float) -> None:
    falling = np.array(sorted(scores, reverse=True), np.float32)
    segments = confidence_segments(falling, confidence)
    assert len(segments) == len(falling)
    steps = np.diff(segments)
    assert ((steps == 0) | (steps == 1)).all()
    assert not len(segments) or segments[0] == 0


def test_contrast_takes_off_what_is_nearer_to_the_negative_seeds(bundle: Bundle) -> None:
    stage = ContrastRerank(temperature=0.1)
    (after,) = stage.open(bundle)([listed([0, 4], scores=np.array([0.9, 0.8], np.float32))])
    # Entity 0 (10 degrees) is like the negative seed, entity 4 (80 degrees) like the positive one.
    assert after.ranking.ids.tolist() == [4, 0]
    gap = np.cos(np.deg2rad(10)) - np.cos(np.deg2rad(80))
    expected = [0.8 - 0.1 * np.log1p(np.exp(-gap / 0.1)), 0.9 - 0.1 * np.log1p(np.exp(gap / 0.1))]
    assert after.ranking.scores.tolist() == pytest.approx(expected, abs=1e-6)


@given(st.permutations(range(10)), st.integers(1, 12), st.sampled_from([None, 0.1, 0.5]))
def test_rerank_keeps_the_set_and_moves_nothing_across_segments(
    bundle: Bundle, ids, length: int, confidence: float
) -> None:
    stage = SegmentRerank(length=length, confidence=confidence)
    before = listed(ids)
    (after,) = stage.open(bundle)([before])
    segments = after.ranking.evidence["segment"]
    assert (np.diff(segments) >= 0).all()
    for segment in set(segments.tolist()):
        inside = segments == segment
        assert set(after.ranking.ids[inside]) == set(before.ranking.ids[inside])
        assert (np.diff(after.ranking.evidence["negative"][inside]) >= 0).all()


@pytest.mark.parametrize("wrong", [{"length": 0}, {"confidence": 0}, {"confidence": 1}, {"lenght": 4}])
def test_wrong_settings_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        SegmentRerank(**wrong)
