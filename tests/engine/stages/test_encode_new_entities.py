from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.errors import BundleError, QueryError
from engine.models.text import TextEncoder
from engine.query import Expansion, NewEntity, Query
from engine.retrieval.index import unit
from engine.retrieval.opening import open_index
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors

SENTENCES = ("Atlantis sank.", "They say that atlantis lay in the west.", "Is it Atlantis?")
NEW = NewEntity("Atlantis", SENTENCES)
OTHER = NewEntity("Thule", ("Thule is cold and far away, and nobody has seen it for a long time.",))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("w"), n=40, d=8)


def described(stage: EncodeNewEntities, bundle: Bundle, *new: NewEntity) -> list[dict[str, np.ndarray]]:
    (found,) = stage.open(bundle)([Expansion(Query("q", tuple(range(-len(new), 0)), new=new))])
    assert [one.name for one in found.query.new] == [one.name for one in new]
    return [dict(one.vectors) for one in found.query.new]


def test_the_mask_vector_is_the_mean_state_where_the_name_stood(bundle: Bundle) -> None:
    (vectors,) = described(EncodeNewEntities(), bundle, NEW)
    encoder = TextEncoder.load(str(bundle.path("encoder")))
    masker = MentionMasker(load_tokenizer(bundle.path("encoder")), 128)
    states = []
    for sentence in SENTENCES:
        start = sentence.lower().index("atlantis")
        (one,) = masker.encode([sentence], [start], [start + len("atlantis")])
        with torch.no_grad():
            whole = encoder.states(torch.tensor([one.input_ids]), torch.tensor([len(one.input_ids)]))
        states.append(whole[0, one.mask_index].numpy())
    np.testing.assert_allclose(vectors["mask"], unit(np.mean(states, axis=0)), atol=1e-5)


def test_the_other_views_are_those_of_its_neighbours(bundle: Bundle) -> None:
    (vectors,) = described(EncodeNewEntities(neighbours=3), bundle, NEW)
    assert set(vectors) == {"mask", "description", "lexical", "image", "joint", "multimodal", "contrast"}
    mask = open_index(bundle, "mask").vectors_of(range(40)).astype(np.float64)
    cosines = mask @ vectors["mask"]
    nearest = np.argsort(-cosines)[:3]
    assert (cosines[nearest] > 0).all()
    for view in ("description", "lexical", "image", "joint", "multimodal"):
        theirs = open_index(bundle, view).vectors_of(nearest.tolist())
        np.testing.assert_allclose(vectors[view], unit(cosines[nearest] @ theirs), atol=1e-5)


def test_only_the_views_that_are_asked_for_are_made(bundle: Bundle) -> None:
    (vectors,) = described(EncodeNewEntities(views=("joint",)), bundle, NEW)
    assert set(vectors) == {"mask", "joint"}


def test_a_vector_does_not_depend_on_who_else_is_asked_for(bundle: Bundle) -> None:
    (alone,) = described(EncodeNewEntities(), bundle, NEW)
    _, among = described(EncodeNewEntities(), bundle, OTHER, NEW)
    for view, vector in alone.items():
        np.testing.assert_array_equal(among[view], vector)


def test_expansions_without_new_entities_pass_untouched(bundle: Bundle) -> None:
    old, new = Expansion(Query("q", (1,))), Expansion(Query("r", (-1, 2), new=(NEW,)))
    first, second = EncodeNewEntities().open(bundle)([old, new])
    assert first is old
    assert second.query.seeds == (-1, 2)
    assert [EncodeNewEntities().cost(e) for e in (old, new)] == [1, 3]


def test_a_sentence_that_does_not_mention_it_is_refused(bundle: Bundle) -> None:
    wrong = NewEntity("Atlantis", ("Atlantis sank.", "Nothing is known."))
    with pytest.raises(QueryError, match=r"query 'q': sentence 2 of the new entity 'Atlantis' does not hold"):
        described(EncodeNewEntities(), bundle, wrong)


def test_a_bundle_without_an_encoder_or_a_view_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    bare = publish_vectors(Workspace.open(tmp_path), list("ab"), {"mask": np.eye(2)})
    with pytest.raises(BundleError, match="encoder"):
        EncodeNewEntities().open(bare)
    with pytest.raises(BundleError, match="index/none"):
        EncodeNewEntities(views=("none",)).open(bundle)
