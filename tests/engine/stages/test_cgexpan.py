"""CGExpan: what it reads off a model, which entities it takes and drops, and that it is the same again."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from engine.corpus.inputs.masking import load_tokenizer
from engine.errors import BundleError
from engine.generation.hearst import MASK, Masked
from engine.query import Deadline, NewEntity, Query
from engine.retrieval.index import unit
from engine.retrieval.mention_states import MentionStates
from engine.stages.base import Pipeline
from engine.stages.cgexpan import CGExpan, ClassGuided
from engine.stages.masked_lm import Probing, open_probing
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors

N, D = 30, 8


class Scripted:
    """A model that gives every class the same tokens, and every text a state of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def best(self, texts: Sequence[Masked], k: int) -> list[list[str]]:
        self.asked += [text.text for text in texts]
        longer = [f"{MASK} metals" in text.text for text in texts]
        return [["heavy", "the", "metals"] if one else ["metals", "famous", "tool"] for one in longer]

    def knows(self, word: str) -> bool:
        return word != "famouses"

    def states(self, texts: Sequence[Masked]) -> np.ndarray:
        rows = [np.random.default_rng(sum(map(ord, text.text))).normal(size=D) for text in texts]
        return unit(np.stack(rows))


def probing(seed: int = 0) -> Probing:
    random = np.random.default_rng(seed)
    kinds = random.normal(size=(2, D))
    counts = np.array([5 + entity % 3 if entity % 7 else 2 for entity in range(N)])
    owners = np.repeat(np.arange(N), counts)
    states = unit(kinds[owners % 2] + 0.5 * random.normal(size=(len(owners), D))).astype(np.float16)
    mentions = MentionStates(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), states)
    return Probing(Scripted(), mentions, mentions.means())  # type: ignore[arg-type]


def growing(stage: CGExpan, seeds: list[int], taken: Sequence[int] = ()) -> ClassGuided:
    free = np.ones(N, bool)
    free[seeds] = False
    names = [f"entity {i}" for i in range(N)]
    return ClassGuided(stage, probing(), names, seeds, free, [(i, 0.5, 1) for i in taken])


def test_class_names_are_counted_once_a_query_with_their_modifiers() -> None:
    grown = growing(CGExpan(draws=2), [1, 3, 5])
    given = ("metals", "tools", "heavy metals", "metals tools", "famous tools")
    assert grown.name_classes() == dict.fromkeys(given, 12)
    asked = grown.probing.model.asked  # type: ignore[attr-defined]
    assert len(asked) == 12 * (1 + 2), "every list, and each of its two nouns again"
    assert all(f"entity {i}" in text for text in asked for i in (1, 3, 5))


class Moody(Scripted):
    """A model whose tokens depend on the text, some of them seldom given."""

    def best(self, texts: Sequence[Masked], k: int) -> list[list[str]]:
        self.asked += [text.text for text in texts]
        words = ["metals", "towns", "rivers", "fish", "heavy", "long", "old", "arts"]
        draws = [np.random.default_rng(sum(map(ord, text.text)) * k) for text in texts]
        return [[words[min(int(i), 7)] for i in one.geometric(0.4, 3) - 1] for one in draws]


@pytest.mark.parametrize(("least", "draws"), [(3, 2), (3, 6), (9, 12)])
def test_a_name_is_not_asked_for_that_could_never_count_and_the_rest_is_the_same(
    least: int, draws: int
) -> None:
    def named(asked_from: int) -> tuple[Counter[str], list[str]]:
        grown = growing(CGExpan(draws=draws, least=asked_from), [1, 3, 5, 9, 11, 13])
        grown.probing.model = Moody()  # type: ignore[assignment]
        return grown.name_classes(), grown.probing.model.asked  # type: ignore[attr-defined]

    (plain, all_asked), (found, asked) = named(1), named(least)
    counts = min(least, draws)
    assert {n: c for n, c in plain.items() if c >= counts} == {n: c for n, c in found.items() if c >= counts}
    assert max(found.values()) == max(plain.values())
    assert set(asked) < set(all_asked)


def test_states_of_a_class_name_are_made_once(bundle: Bundle) -> None:
    states = open_probing(bundle).class_states
    before = states.cache_info().misses
    first = states("zebras")
    assert states("zebras") is first
    assert states.cache_info().misses == before + 1


def plain_fitting(grown: ClassGuided, name: str) -> dict[int, float]:
    """The score and the ensemble of section 3.3, entity by entity, with the same draws."""
    twin = copy.deepcopy(grown)
    stage, members = twin.stage, twin.members
    texts = [twin._entity_query(p, name) for _ in range(3) for p in range(6)]
    states = twin.probing.model.states(texts)
    means = twin.probing.means_ND.astype(float)
    sums: dict[int, float] = {}
    for state in states.astype(float):
        some = twin._random.choice(members, min(3, len(members)), replace=False).tolist()
        near = {e: sum(means[e] @ means[m] for m in some) / len(some) for e in range(N)}
        pool = sorted(near, key=lambda e: -near[e])[: stage.pool]
        scores = {}
        for entity in pool:
            own = sorted(
                (float(state @ s) for s in twin.probing.mentions.of(entity).astype(float)), reverse=True
            )
            local = sum(own[: stage.mentions]) / stage.mentions if len(own) >= stage.mentions else 0
            scores[entity] = 5 * math.log(max(local, 1e-8)) + math.log(max(near[entity], 1e-8))
        ranked = [e for e in sorted(scores, key=lambda e: -scores[e]) if twin.free_N[e] and e not in members]
        for rank, entity in enumerate(ranked[:20], 1):
            sums[entity] = sums.get(entity, 0) + 1 / rank
    return {entity: total / 18 for entity, total in sums.items()}


@pytest.mark.parametrize("pool", [500, 12])
def test_entities_are_scored_by_their_mentions_and_by_the_set(pool: int) -> None:
    grown = growing(CGExpan(mentions=4, pool=pool), [1, 3, 5, 9], taken=[11])
    expected = plain_fitting(grown, "metals")
    found = grown.fitting("metals")
    ranked = sorted(expected, key=lambda e: (-expected[e], e))
    good = sum(value >= 0.2 for value in expected.values())
    assert [entity for entity, _ in found] == ranked[: max(5, good)]
    for entity, value in found:
        assert value == pytest.approx(expected[entity])
    assert all(entity % 7 for entity, _ in found), "two mentions have no say"


def test_entities_of_other_classes_and_class_names_are_dropped() -> None:
    grown = growing(CGExpan(draws=2), [1, 3], taken=[4, 5, 6])
    grown.names = [*grown.names[:5], "Metals", *grown.names[6:]]
    grown.filter("metals", Counter({"metals": 12}))
    assert [entity for entity, _, _ in grown.taken] == [4, 6], "5 is called as its class"
    own = unit(grown.probing.mentions.of(4).mean(axis=0)[None])
    states = {"metals": np.repeat(-own, 6, axis=0), "tools": np.repeat(own, 6, axis=0)}
    grown.probing.class_states = states.__getitem__  # type: ignore[assignment]
    grown._negative = {"tools"}
    grown.filter("metals", Counter())
    assert 4 not in [entity for entity, _, _ in grown.taken]


def test_a_seed_with_few_mentions_ranks_no_name() -> None:
    counts = Counter({"metals": 12, "tools": 12, "towns": 11, "arts": 3, "rivers": 1})
    few, many = growing(CGExpan(draws=2), [7, 1, 14, 3]), growing(CGExpan(draws=2), [1, 3])
    assert few.choose_names(counts, 0) == many.choose_names(counts, 0)
    assert few._negative == many._negative
    alone = growing(CGExpan(draws=2), [7, 14])
    assert alone.choose_names(counts, 0) == "metals", "who has no say follows the count"
    assert alone._negative == set()


def test_it_ends_when_no_entity_is_left() -> None:
    grown = growing(CGExpan(draws=2, margin=9), [1, 3, 5])
    grown.free_N = np.isin(np.arange(N), [8, 9, 10])
    asked = Query("all", (1, 3, 5))
    grown.grow(asked, 50)
    assert sorted(entity for entity, _, _ in grown.taken) == [8, 9, 10]
    assert {iteration for _, _, iteration in grown.taken} == {1}
    assert len(grown.probing.model.asked) == 12 * (1 + 2), "once, not in every iteration"  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("cgexpan"), n=N, d=D)


def test_a_bundle_is_expanded_the_same_again_and_no_query_changes_another(bundle: Bundle) -> None:
    run = Pipeline((CGExpan(draws=2, iterations=2, k=12),)).open(bundle)
    odd = Query("odd", (1, 2), filters=(("parity", ("odd",)),), top_k=9)
    queries = [Query("a", (1, 2, 3), (4,), top_k=9), odd, Query("b", (9,), top_k=9)]
    together = run(queries)
    for query, found in zip(queries, together, strict=True):
        (alone,) = run([query])
        assert found.degraded == alone.degraded == ()
        assert found.ranking.ids.tolist() == alone.ranking.ids.tolist() != []
        assert not set(found.ranking.ids.tolist()) & set(query.seeds)
        assert (np.diff(found.ranking.scores) <= 0).all()
    assert {i % 2 for i in together[1].ranking.ids.tolist()} == {1}


def test_a_new_entity_is_named_and_a_deadline_ends_the_search(bundle: Bundle) -> None:
    run = Pipeline((CGExpan(draws=2, iterations=2),)).open(bundle)
    new = (NewEntity("Atlantis", ("Atlantis sank.",)),)
    (found,) = run([Query("n", (-1,), new=new)])
    assert len(found.ranking) == 0
    assert found.degraded == ("CGExpan: positive seed 'Atlantis' has no sentence and was not used",)
    (late,) = run([Query("late", (1, 2), deadline=Deadline.within(-1))])
    assert len(late.ranking) == 0


def test_the_model_answers_at_its_mask(bundle: Bundle) -> None:
    model = open_probing(bundle).model
    texts = [Masked(f"a b {MASK} c", 4, 5), Masked(f"{MASK} d", 0, 1)]
    texts += [
        Masked(f"{'b ' * (i % 5)}{MASK}{' c' * (i % 3)}", 2 * (i % 5), 2 * (i % 5) + 1) for i in range(70)
    ]
    alone = np.concatenate([model.states([text]) for text in texts])
    np.testing.assert_allclose(model.states(texts), alone, atol=1e-5)
    assert model.best(texts, 3) == [model.best([text], 3)[0] for text in texts]
    plain = AutoModelForMaskedLM.from_pretrained(bundle.path("probing/model"))
    tokenizer = load_tokenizer(bundle.path("probing/model"))
    for text, states in zip(texts, alone, strict=True):
        whole = f"{tokenizer.cls_token} {text.text} {tokenizer.sep_token}".replace(MASK, tokenizer.mask_token)
        ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
        (place,) = (ids[0] == tokenizer.mask_token_id).nonzero().ravel().tolist()
        with torch.no_grad():
            out = plain(input_ids=ids, output_hidden_states=True)
        np.testing.assert_allclose(unit(out.hidden_states[-1][:, place].numpy())[0], states, atol=1e-5)
        best = out.logits[0, place].topk(3).indices.tolist()
        assert model.best([text], 3) == [[t.lower() for t in tokenizer.convert_ids_to_tokens(best)]]
    assert model.knows("cats")
    assert not model.knows("zebras")


def test_a_bundle_without_says_which_command_makes_it(tmp_path: Path) -> None:
    bare = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)})
    with pytest.raises(BundleError, match=r"holds no 'probing'; run `seedset build-index --class-names`"):
        CGExpan().open(bare)
