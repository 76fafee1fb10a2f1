"""Entities read under a query, against the authors' rule computed plainly: every sentence by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.corpus.inputs.masking import load_tokenizer
from engine.errors import BundleError, QueryError
from engine.methods import method
from engine.models import mask_states as states_module
from engine.models.text import TextEncoder
from engine.query import Deadline, Expansion, NewEntity, Query, Ranking
from engine.retrieval.entity_sentences import CONTRAST
from engine.stages import conditioned_encoder as encoder_module
from engine.stages.base import counts_of, isolated
from engine.stages.conditioned_retrieve import ConditionedRetrieve
from engine.stages.options import checked_options
from engine.stages.rerank import SegmentRerank
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import contrast_sentences, method_bundle, publish_vectors

N = 24
QUERY = Query("q", (3, 8), (11,), top_k=10)
EVERY = ConditionedRetrieve(everything=True, sentences=None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("w"), n=N, d=16)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "fast_dtype", lambda device: torch.float32)


def recalled(query: Query, ids: Sequence[int]) -> Expansion:
    """A query with some entities recalled, the first with the highest score."""
    scores = np.linspace(0.9, 0.1, len(ids)).astype(np.float32)
    return Expansion(query, Ranking(np.array(ids, np.int32), scores, {"positive": scores}))


def scores_of(ranking: Ranking) -> dict[int, float]:
    """Scores by entity."""
    return dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))


def plain_vector(bundle: Bundle, sentences: Sequence[str], query: Query) -> np.ndarray:
    """The authors' vector: special tokens spelt in a text, a forward pass a sentence, the unit mean."""
    folder, names = bundle.path(CONTRAST) / "encoder", bundle.vocabulary.names
    encoder, tokenizer = TextEncoder.load(str(folder)), load_tokenizer(folder)
    text = "".join(f"[POS_SEP] {names[i] if i >= 0 else query.new[-1 - i].name} " for i in query.positive)
    text += "".join(f"[NEG_SEP] {names[i] if i >= 0 else query.new[-1 - i].name} " for i in query.negative)
    behind = tokenizer(text, add_special_tokens=False)["input_ids"]
    total = np.zeros(encoder.dim)
    for sentence in sentences:
        whole = f"[CLS] {sentence.format('[MASK]')} [SEP]"
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"] + behind
        with torch.no_grad():
            states = encoder.states(torch.tensor([ids]), torch.tensor([len(ids)]))
        total += states[0, ids.index(tokenizer.mask_token_id)].numpy()
    return total / np.linalg.norm(total)


def plain_scores(bundle: Bundle, query: Query) -> tuple[np.ndarray, np.ndarray]:
    """The mean cosines of all entities to the seeds of either kind, [N] each."""
    vectors = np.stack([plain_vector(bundle, contrast_sentences(i), query) for i in range(N)])
    cosines = vectors @ vectors.T
    return cosines[:, list(query.positive)].mean(axis=1), cosines[:, list(query.negative)].mean(axis=1)


@pytest.mark.parametrize("query", [QUERY, Query("r", (0,), (5, 6, 7), top_k=10)], ids=lambda q: q.id)
def test_reading_everything_gives_the_authors_list(bundle: Bundle, query: Query) -> None:
    positive, negative = plain_scores(bundle, query)
    others = [i for i in np.argsort(-positive, kind="stable").tolist() if i not in query.seeds]
    # No tie that rounding could turn round.
    assert np.diff(np.sort(positive[others])).min() > 1e-6
    expected = [
        entity
        for start in range(0, len(others), 4)
        for entity in sorted(others[start : start + 4], key=lambda i: negative[i])
    ]
    (found,) = method("retexpan+contrast-everything").open(bundle)([replace(query, top_k=N)])
    assert found.ranking.ids.tolist() == expected
    np.testing.assert_allclose(found.ranking.evidence["positive"], positive[expected], atol=1e-5)
    np.testing.assert_allclose(found.ranking.evidence["negative"], negative[expected], atol=1e-5)
    np.testing.assert_allclose(found.ranking.scores, positive[others], atol=1e-5)


def test_of_what_was_recalled_the_order_is_that_of_reading_everything(bundle: Bundle) -> None:
    (whole,) = EVERY.open(bundle)([Expansion(replace(QUERY, top_k=N))])
    chosen = [20, 1, 5, 13, 8, 9]  # 8 is a seed
    stage = ConditionedRetrieve(sentences=None)
    (found,) = stage.open(bundle)([recalled(QUERY, chosen)])
    expected = [i for i in whole.ranking.ids.tolist() if i in chosen]
    assert found.ranking.ids.tolist() == expected
    assert len(expected) == 5
    places = [whole.ranking.ids.tolist().index(i) for i in expected]
    np.testing.assert_allclose(found.ranking.scores, whole.ranking.scores[places], atol=1e-6)
    by_id = scores_of(recalled(QUERY, chosen).ranking)
    assert found.ranking.evidence["recall"].tolist() == [by_id[i] for i in expected]


def test_a_few_sentences_are_read_and_the_mean_is_estimated(bundle: Bundle) -> None:
    chosen = [20, 1, 5, 14, 9]
    few, bare, whole = (
        ConditionedRetrieve(sentences=n, whole=0, estimated=estimated).open(bundle)
        for n, estimated in ((2, True), (2, False), (None, True))
    )
    seeds = sum(2 + i % 5 for i in QUERY.seeds)
    near, far, exact = (run([recalled(QUERY, chosen)])[0].ranking for run in (few, bare, whole))
    assert counts_of(few)["sentences"] == seeds + 2 * len(chosen)
    assert counts_of(whole)["sentences"] == seeds + sum(2 + i % 5 for i in chosen)

    # Entities 5 and 20 have no more than two sentences: theirs is exact either way.
    for found in (near, far):
        for entity in (5, 20):
            assert scores_of(found)[entity] == pytest.approx(scores_of(exact)[entity], abs=2e-6)
    for entity in (1, 14, 9):
        assert abs(scores_of(near)[entity] - scores_of(far)[entity]) > 1e-5


def test_of_the_first_by_what_was_read_all_is_read_and_they_stand_as_if_all_were(bundle: Bundle) -> None:
    chosen = [4, 9, 14, 19, 22, 23]
    bare, some, whole = (ConditionedRetrieve(sentences=1, whole=n).open(bundle) for n in (0, 2, len(chosen)))
    few, first, every = (run([recalled(QUERY, chosen)])[0].ranking for run in (bare, some, whole))
    taken = few.ids[:2].tolist()
    counts = [counts_of(run)["sentences"] for run in (bare, some, whole)]
    assert counts[1] - counts[0] == sum(2 + i % 5 - 1 for i in taken)
    assert counts[2] - counts[0] == sum(2 + i % 5 - 1 for i in chosen)
    exact = ConditionedRetrieve(sentences=None).open(bundle)([recalled(QUERY, chosen)])[0].ranking
    assert every.ids.tolist() == exact.ids.tolist()
    for entity in taken:
        assert scores_of(first)[entity] == pytest.approx(scores_of(exact)[entity], abs=2e-6)


def test_the_same_question_again_reads_nothing_and_answers_alike(bundle: Bundle) -> None:
    run = ConditionedRetrieve(sentences=4, whole=0).open(bundle)
    before = counts_of(run)
    asked = recalled(replace(QUERY, positive=(4, 7)), [1, 2, 5, 9])
    first, second = (run([asked])[0].ranking for _ in range(2))
    counts = counts_of(run)
    assert counts["repeated"] - before["repeated"] == 1
    assert counts["sentences"] - before["sentences"] == sum(2 + i % 5 for i in (4, 7, 11)) + 2 + 3 + 4 + 4
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(first.scores, second.scores)
    other = run([recalled(replace(QUERY, positive=(7, 4)), [1, 2, 5, 9])])[0].ranking
    assert counts_of(run)["sentences"] > counts["sentences"], "the order of seeds is part of the text"
    assert set(other.ids) == set(first.ids)


def test_memory_of_questions_is_bounded(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "CACHED_BYTES", 2 * (3 + 2) * 16 * 4)  # two questions of this size
    run = ConditionedRetrieve().open(bundle)
    questions = [recalled(replace(QUERY, negative=(seed,)), [21, 22]) for seed in (12, 13, 14)]
    for question in (*questions, questions[0]):  # the first was forgotten for the third
        run([question])
    assert counts_of(run)["repeated"] == 0
    run([questions[2]])
    assert counts_of(run)["repeated"] == 1


def test_a_new_seed_is_read_like_the_others(bundle: Bundle) -> None:
    new = NewEntity("Thule", ("Was Thule number 99?", "They say Thule was near."))
    query = Query("q", (-1, 3), new=(new,))
    (found,) = ConditionedRetrieve(sentences=None).open(bundle)([recalled(query, [1, 2, 5])])
    seeds = [
        plain_vector(bundle, ["Was {} number 99?", "They say {} was near."], query),
        plain_vector(bundle, contrast_sentences(3), query),
    ]
    for entity, score in zip(found.ranking.ids.tolist(), found.ranking.scores, strict=True):
        own = plain_vector(bundle, contrast_sentences(entity), query)
        assert score == pytest.approx(np.mean([own @ seed for seed in seeds]), abs=1e-5)
    assert "negative" not in found.ranking.evidence
    wrong = replace(query, new=(NewEntity("Thule", ("Nothing of it.",)),))
    with pytest.raises(QueryError, match="sentence 1 of the new entity 'Thule'"):
        ConditionedRetrieve().open(bundle)([recalled(wrong, [1])])


def test_filters_and_settings_of_a_query_hold(bundle: Bundle) -> None:
    (odd,) = EVERY.open(bundle)([Expansion(replace(QUERY, filters=(("parity", ("odd",)),)))])
    assert sorted(odd.ranking.ids.tolist()) == [i for i in range(1, N, 2) if i not in QUERY.seeds]
    stage = ConditionedRetrieve(whole=1)
    options = checked_options((stage,), {"ConditionedRetrieve.sentences": 1, "ConditionedRetrieve.whole": 0})
    run = stage.open(bundle)
    run([recalled(replace(QUERY, options=options), [1, 2, 5, 9])])
    assert counts_of(run)["sentences"] == sum(2 + i % 5 for i in QUERY.seeds) + 4
    with pytest.raises(QueryError, match="out of bounds"):
        checked_options((stage,), {"ConditionedRetrieve.sentences": 31})
    assert stage.cost(recalled(QUERY, [1, 2, 5, 9])) == 3 * 30 + 30 + 3 * 2


def test_nothing_recalled_is_nothing_read(bundle: Bundle) -> None:
    run = ConditionedRetrieve().open(bundle)
    (found,) = run([Expansion(QUERY)])
    assert not len(found.ranking)
    assert counts_of(run)["sentences"] == 0


def test_after_the_deadline_the_recall_stands_and_segments_are_the_views(bundle: Bundle) -> None:
    late = replace(QUERY, deadline=Deadline.within(-1))
    before = recalled(late, [20, 1, 5, 13, 9])
    stage, segments = ConditionedRetrieve(), SegmentRerank(by="evidence", view="contrast")
    (found,) = isolated(stage, stage.open(bundle))([before])
    assert found.ranking is before.ranking
    (note,) = found.degraded
    assert "ConditionedRetrieve: the deadline came" in note
    (cut,) = segments.open(bundle)([found])
    (by_view,) = SegmentRerank(view="contrast").open(bundle)([before])
    assert cut.ranking.ids.tolist() == by_view.ranking.ids.tolist()


def test_a_bundle_without_a_contrastive_training_names_the_command(tmp_path: Path) -> None:
    bare = publish_vectors(Workspace.open(tmp_path), list("ab"), {"contrast": np.eye(2)})
    with pytest.raises(BundleError, match=r"'contrast'.*train-encoder --contrast.*build-index"):
        method("retexpan+contrast-conditioned").open(bare)
