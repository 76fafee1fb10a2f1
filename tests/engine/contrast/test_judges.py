"""Judges of mined entities: the documented rules, computed by hand and plainly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.contrast.judges import VIEWS, AgreementJudge, LikelihoodJudge, Side
from engine.errors import BundleError
from engine.generation.likelihood import Likelihood
from engine.retrieval.index import VectorIndex, unit
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors
from tests.support.language_models import tiny_model

NAMES = ["Norway", "Sweden", "Denmark", "Japan", "Thailand", "Spain", "Chad", "Mali"]


def side(own: tuple[int, ...], other: tuple[int, ...], *candidates: int) -> Side:
    return Side(own, other, np.array(candidates, np.int32))


def test_most_views_decide_by_hand() -> None:
    # Entities 0 and 1 are the seeds of the side, 2 that of the other; 3 to 5 are judged.
    first = [[1, 0], [0, 1], [-1, 0], [1, 1], [-1, 1], [0, 0]]  # 3: .71 > -.71; 4: 0 < .71; 5 tells nothing
    second = [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]]  # 3 and 4: 0 < 1; 5: 1 > 0
    third = [[0, 1], [0, 0], [1, 0], [0, 1], [0, 1], [1, 1]]  # 3 and 4: 1 > 0; 5: .71 = .71 is not nearer
    views = [VectorIndex(unit(np.array(one, np.float32))) for one in (first, second, third)]

    def kept(*numbers: int) -> list[bool]:
        return AgreementJudge([views[i] for i in numbers]).keep(side((0, 1), (2,), 3, 4, 5)).tolist()

    assert kept(0) == [True, False, False]
    assert kept(1) == [False, False, True]
    assert kept(0, 1) == [False, False, True], "half is not most; a view that tells nothing has no vote"
    assert kept(0, 1, 2) == [True, False, False]
    turned = AgreementJudge(views).keep(side((2,), (0, 1), 3, 4, 5)).tolist()
    assert turned == [False, True, False], "the mirror, a tie apart"


def test_agreement_is_the_documented_rule_on_random_vectors() -> None:
    random = np.random.default_rng(3)
    views = [unit(random.normal(size=(40, 5))) for _ in range(3)]
    for view in views:
        view[random.random(40) < 0.2] = 0
    judge = AgreementJudge([VectorIndex(view) for view in views])
    for _ in range(30):
        drawn = random.permutation(40).tolist()
        own, other, candidates = drawn[:3], drawn[3:5], drawn[5:17]
        expected = []
        for e in candidates:
            ayes = noes = 0
            for view in views:
                ours = [s for s in own if view[s].any()]
                theirs = [o for o in other if view[o].any()]
                if not (view[e].any() and ours and theirs):
                    continue
                a = sum(float(view[e] @ view[s]) for s in ours) / len(ours)
                b = sum(float(view[e] @ view[o]) for o in theirs) / len(theirs)
                ayes, noes = ayes + (a > b), noes + (a <= b)
            expected.append(ayes > noes)
        assert judge.keep(side(tuple(own), tuple(other), *candidates)).tolist() == expected


def test_without_the_other_sides_seeds_nothing_speaks_against_an_entity() -> None:
    judge = AgreementJudge([VectorIndex(unit(np.eye(4, dtype=np.float32)))])
    assert judge.keep(side((0,), (), 1, 2)).all()
    likelihood = Likelihood(tiny_model(), NAMES)
    assert LikelihoodJudge(likelihood).keep(side((0,), (), 1, 2)).all()
    assert likelihood.misses == 0


def test_a_bundle_without_the_views_is_refused(tmp_path: Path) -> None:
    vectors = np.eye(len(NAMES))
    bundle = publish_vectors(Workspace.open(tmp_path), NAMES, {"joint": vectors})
    with pytest.raises(BundleError, match=r"none of the views mask, lexical, description"):
        AgreementJudge.open(bundle)
    bundle = publish_vectors(Workspace.open(tmp_path), NAMES, {"joint": vectors, "lexical": vectors})
    assert len(AgreementJudge.open(bundle).indexes) == 1
    assert "joint" not in VIEWS


def test_likelihood_compares_the_mean_of_either_sides_seeds() -> None:
    judge = LikelihoodJudge(Likelihood(tiny_model(), NAMES))
    pairs = Likelihood(tiny_model(), NAMES)
    candidates = (4, 5, 6, 7)
    expected = []
    for e in candidates:
        (of,) = pairs([(np.array([e], np.int32), [0, 1, 2, 3])])
        expected.append(bool((of[0, 0] + of[0, 1] + of[0, 2]) / 3 > of[0, 3]))
    kept = judge.keep(side((0, 1, 2), (3,), *candidates))
    assert kept.tolist() == expected
    assert (judge.keep(side((3,), (0, 1, 2), *candidates)) == ~kept).all()
    assert judge.keep(side((0,), (1,))).shape == (0,)
