"""Stages that ask a language model, on a tiny one with random weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from engine.catalogue.opening import open_catalogue
from engine.chat.name_scores import EndpointScores
from engine.entity_types import TYPES, EntityTypes
from engine.errors import BundleError, QueryError, UnknownAttributeError, UserError
from engine.generation.artifacts import open_artifacts
from engine.generation.prompts import list_prompt, name_text
from engine.generation.seeds import NO_DESCRIPTION
from engine.generation.trie_scores import name_logprobs
from engine.query import Deadline, Expansion, NewEntity, Query, Ranking
from engine.retrieval.index import mean_of
from engine.retrieval.opening import open_index
from engine.stages.base import Stage, Worker, counts_of, isolated
from engine.stages.generate import Generate, Generator
from engine.stages.generative_rerank import (
    BundleScorer,
    EndpointScorer,
    GenerativeRerank,
    GenerativeReranker,
    Prompted,
    standardised,
)
from engine.stages.rerank import SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors, write_entities
from tests.support.chat_server import MODEL, chat_server
from tests.support.completions import PATH, echoed
from tests.support.language_models import tiny_model

NAMES = [f"San {c}{d}" for c in "ABCDEFGH" for d in ("an", "an Jose", "iego", "alvador", "arino")]
N = len(NAMES)
QUICK = Generate(beams=8, max_rounds=5, patience=3)


def generator(bundle: Bundle) -> Generator:
    worker = QUICK.open(bundle)
    assert isinstance(worker, Generator)
    return worker


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    vectors = np.random.default_rng(3).normal(size=(N, 6))
    workspace = Workspace.open(tmp_path_factory.mktemp("w"))

    def more(staged: Path) -> None:
        kinds = [{"letter": [name[4]]} for name in NAMES]
        about = [f"About {name}." for name in NAMES]
        write_entities(staged / "entities.parquet", NAMES, descriptions=about, attributes=kinds)

    return publish_vectors(workspace, NAMES, {"mask": vectors}, model=tiny_model(), more=more)


def asked(*queries: Query, ids: Sequence[int] | None = None) -> list[Expansion]:
    given = np.array(ids or [], np.int32)
    ranking = Ranking(given, np.linspace(1, 0, len(given), dtype=np.float32))
    return [Expansion(q, ranking) for q in queries]


Q = Query("q", (0, 7, 12), (20, 21))


def test_a_list_is_ranked_by_its_likelihood_of_the_positive_seeds(bundle: Bundle) -> None:
    (found,) = QUICK.open(bundle)(asked(Q))
    ranking = found.ranking
    assert len(ranking) >= 8
    assert not set(ranking.ids.tolist()) & set(Q.seeds)
    (expected,) = open_artifacts(bundle).likelihood.means([(ranking.ids, Q.positive)])
    np.testing.assert_array_equal(ranking.scores, expected)
    assert (np.diff(ranking.scores) <= 0).all()
    assert (ranking.evidence["generated"] >= 1).all()


def test_the_same_seed_gives_the_same_list_and_another_seed_another(bundle: Bundle) -> None:
    (first,), (again,) = QUICK.open(bundle)(asked(Q)), QUICK.open(bundle)(asked(Q))
    np.testing.assert_array_equal(first.ranking.ids, again.ranking.ids)
    (other,) = QUICK.model_copy(update={"seed": 14}).open(bundle)(asked(Q))
    assert other.ranking.evidence["generated"].tolist() != first.ranking.evidence["generated"].tolist()


def test_after_a_recall_only_its_candidates_are_generated_and_their_evidence_stays(bundle: Bundle) -> None:
    recalled = [5, 30, 2, 17, 9, 20]
    (found,) = QUICK.open(bundle)(asked(Q, ids=recalled))
    assert set(found.ranking.ids.tolist()) <= set(recalled) - {20}
    (both,) = (Retrieve(k=10) >> QUICK).open(bundle)([Q])
    index = open_index(bundle, "mask")
    mean = mean_of(index.vectors_of(Q.positive))
    (expected,) = index.similarities([(both.ranking.ids, mean[None])])
    np.testing.assert_array_equal(both.ranking.evidence["positive"], expected[:, 0])


def test_a_query_that_wants_more_gets_more(bundle: Bundle) -> None:
    stage = Generate(k=3, beams=8, top_p=1, max_rounds=30)
    (few, many) = stage.open(bundle)(asked(replace(Q, top_k=3), replace(Q, id="r", top_k=15)))
    assert len(few.ranking) == 3
    assert len(many.ranking) == 15


def test_rounds_are_shown_while_lists_grow(bundle: Bundle) -> None:
    worker = generator(bundle)
    growing = worker.start(asked(Q, replace(Q, id="r", positive=(1, 2, 3))))
    seen: dict[str, list[int]] = {"q": [], "r": []}
    for step in worker.rounds(growing):
        seen[step.query_id] += step.new.tolist()
        assert step.total == len(seen[step.query_id])
    for one in growing:
        assert sorted(one.accepted) == sorted(seen[one.query.id])
        assert one.rounds <= 5


@pytest.mark.parametrize(
    "changed",
    [
        {"cot_level": "class"},
        {"cot_level": "negative"},
        {"descriptions": True},
        {"negatives_in_prompt": True},
    ],
)
def test_every_kind_of_prompt_gives_a_list(bundle: Bundle, changed) -> None:
    (found,) = QUICK.model_copy(update=changed).open(bundle)(asked(Q))
    assert len(found.ranking)


def test_a_given_part_that_is_not_asked_for_is_refused() -> None:
    assert Generate.model_validate({"cot_level": "positive", "given": "class_name, positive"}).given
    for level, has in (("none", "no parts"), ("class", "class_name")):
        with pytest.raises(ValidationError, match=f"'positive', but .* '{level}' has {has}; set a deeper"):
            Generate.model_validate({"cot_level": level, "given": ["positive"]})


def test_types_name_the_class_where_there_are_any(tmp_path: Path) -> None:
    def more(staged: Path) -> None:
        sure, count = np.full(2, 0.9), np.ones(N, np.int64)
        EntityTypes.collect(["city"], np.arange(2), np.zeros(2, np.int64), sure, count).write(staged / TYPES)

    views = {"mask": np.ones((N, 2))}
    typed = publish_vectors(Workspace.open(tmp_path), NAMES, views, None, tiny_model(), more)
    stage = QUICK.model_copy(update={"cot_level": "class", "max_rounds": 1})
    by_types = stage.model_copy(update={"class_names": "types"})
    known, unknown = asked(replace(Q, positive=(0, 1), negative=()), replace(Q, positive=(2,), negative=()))
    (named,), (left,) = by_types.open(typed)([known]), by_types.open(typed)([unknown])
    assert named.reasoning == {"class_name": "cities"}
    assert left.reasoning == stage.open(typed)([unknown])[0].reasoning, "the model finds it"
    assert TYPES in by_types.needs()


def test_types_that_nobody_asks_for_are_refused() -> None:
    for level, given in (("none", ()), ("class", ("class_name",))):
        with pytest.raises(ValidationError, match=f"cot_level '{level}' with given .* does not ask for; set"):
            Generate.model_validate({"cot_level": level, "given": given, "class_names": "types"})


def test_without_the_trie_only_names_of_the_vocabulary_count(bundle: Bundle) -> None:
    (found,) = QUICK.model_copy(update={"constrained": False, "max_rounds": 1}).open(bundle)(asked(Q))
    assert set(found.ranking.ids.tolist()) <= set(range(N)) - set(Q.seeds)


def letter_in(*letters: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (("letter", letters),)


def test_as_the_first_stage_only_entities_with_the_wanted_attributes_are_generated(bundle: Bundle) -> None:
    stage = QUICK.model_copy(update={"k": 40, "beams": 12, "top_p": 1.0})
    both, one, none = stage.open(bundle)(
        asked(
            replace(Q, filters=letter_in("B", "C"), positive=(0, 5)),
            replace(Q, id="r", filters=letter_in("H")),
            replace(Q, id="s", filters=(("letter", ("B",)), ("letter", ("C",)))),
        )
    )
    assert set(both.ranking.ids.tolist()) <= set(range(5, 15)) - {5}
    assert set(one.ranking.ids.tolist()) <= set(range(35, 40))
    assert len(both.ranking) == 9, "all of them but the seed"
    assert len(one.ranking) == 5
    assert len(none.ranking) == 0


def test_without_the_trie_too_only_what_is_wanted_counts(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = type(open_artifacts(bundle).model.tokenizer)
    monkeypatch.setattr(
        tokenizer, "batch_decode", lambda _, rows, **__: [f" {n}.\n" for n in NAMES[: len(rows)]]
    )
    stage = QUICK.model_copy(update={"constrained": False, "max_rounds": 1, "top_p": 1.0})
    every, some = stage.open(bundle)(asked(Q, replace(Q, filters=letter_in("A"))))
    assert sorted(every.ranking.ids) == [1, 2, 3, 4, 5, 6]
    assert sorted(some.ranking.ids) == [1, 2, 3, 4]
    (recalled,) = stage.open(bundle)(asked(Q, ids=[3, 5, 30]))
    assert sorted(recalled.ranking.ids) == [3, 5]


def test_an_attribute_that_no_entity_has_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(UnknownAttributeError, match="'letter' with the value 'Z'"):
        QUICK.open(bundle)(asked(replace(Q, filters=letter_in("Z"))))


# A new seed that bears the name of a known one, in its place; recalled is neither.
KNOWN = replace(Q, positive=(0, 7, 12), negative=(20, 21))
NEW = (NewEntity(NAMES[7], ("Here it is.",)), NewEntity(NAMES[21], ("There it is.",)))
SAME = replace(KNOWN, positive=(0, -1, 12), negative=(20, -2), new=NEW)
RECALLED = [i for i in range(0, N, 2) if i not in KNOWN.seeds]


@pytest.mark.parametrize(
    "stage",
    [
        QUICK,
        QUICK.model_copy(update={"cot_level": "negative"}),
        QUICK.model_copy(update={"negatives_in_prompt": True}),
        GenerativeRerank(prompts=3),
        SegmentRerank(by="likelihood"),
    ],
)
def test_a_new_seed_counts_as_one_of_its_name_does(
    bundle: Bundle, stage: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Draws depend on the known seeds' ids and on the new ones' names: alike only here.
    drawn = {NAMES[7].encode(): 7, NAMES[21].encode(): 21}
    monkeypatch.setattr("engine.generation.seeds.zlib", SimpleNamespace(crc32=drawn.__getitem__))
    (known,) = stage.open(bundle)(asked(KNOWN, ids=RECALLED))
    (new,) = stage.open(bundle)(asked(SAME, ids=RECALLED))
    assert new.ranking.ids.tolist() == known.ranking.ids.tolist()
    assert len(new.ranking) >= 5
    np.testing.assert_allclose(new.ranking.scores, known.ranking.scores, rtol=1e-4)
    for name, column in known.ranking.evidence.items():
        np.testing.assert_allclose(new.ranking.evidence[name], column, rtol=1e-4)


def test_another_name_is_another_seed(bundle: Bundle) -> None:
    other = replace(SAME, new=(NewEntity("the river Rhine", ("x",)), NEW[1]))
    one, two = GenerativeRerank().open(bundle)(asked(SAME, other, ids=RECALLED))
    assert one.ranking.scores.tolist() != two.ranking.scores.tolist()


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (QUICK, "language model takes 512"),
        (QUICK.model_copy(update={"cot_level": "class"}), "language model takes 512"),
        (GenerativeRerank(), "language model takes 512"),
        (SegmentRerank(by="likelihood"), "a name of 601 tokens; at most 256"),
    ],
)
def test_names_that_do_not_fit_the_model_are_a_mistake_of_the_query(
    bundle: Bundle, stage: Generate, reason: str
) -> None:
    long = NewEntity("Ω" * 300, ("x",)), NewEntity("Ψ" * 300, ("x",))
    with pytest.raises(QueryError, match=reason):
        stage.open(bundle)(asked(Query("q", (0, -1), (-2,), new=long), ids=RECALLED))


def test_after_the_deadline_there_is_what_was_found_till_then(bundle: Bundle) -> None:
    past = replace(Q, deadline=Deadline.within(-1))
    first, after, plain = QUICK.open(bundle)([*asked(past), *asked(past, ids=RECALLED), *asked(Q)])
    note = "Generate: stopped by the deadline after 0 rounds"
    assert (first.degraded, after.degraded, plain.degraded) == ((note,), (note,), ())
    assert len(first.ranking) == 0
    assert after.ranking.ids.tolist() == RECALLED, "what was recalled is better than nothing"
    worker = generator(bundle)
    expansions = asked(Q)
    growing = worker.start(expansions)
    next(worker.rounds(growing))
    growing[0].stopped = True
    found = worker.answer(expansions[0], growing[0])
    assert found.degraded == ("Generate: stopped by the deadline after 1 rounds",)
    assert len(found.ranking) == len(growing[0].accepted) > 0


def test_workers_count_what_they_did(bundle: Bundle) -> None:
    worker, other = generator(bundle), generator(bundle)
    assert set(worker.counts().values()) == {0}
    worker(asked(Q))
    once = worker.counts()
    assert once["rounds"] == 5
    assert once["decode_steps"] > once["rounds"], "a prompt and its tokens, each round"
    assert once["cache_misses"] + once["cache_hits"] > 0
    worker(asked(Q))
    again = worker.counts()
    assert again["cache_misses"] == once["cache_misses"], "all pairs are known by now"
    assert again["decode_steps"] == 2 * once["decode_steps"]
    assert set(other.counts().values()) == {0}, "each worker counts its own"
    rerank = GenerativeRerank(prompts=3).open(bundle)
    rerank(asked(Q, replace(Q, id="r", negative=()), ids=RECALLED))
    assert counts_of(rerank) == {"prompts": 9, "names": 9 * len(RECALLED)}


def test_what_a_query_costs() -> None:
    full, empty = asked(Q, ids=RECALLED) + asked(Q)
    for stage in (GenerativeRerank(), SegmentRerank(by="likelihood")):
        assert (stage.unit, stage.cost(full), stage.cost(empty)) == ("candidates", len(RECALLED), 1)
    assert (QUICK.unit, QUICK.cost(empty)) == ("beams", 8)
    assert Generate.budget == Generate().beams * Generate().query_batch_size


def mean_logprobs(bundle: Bundle, seeds: Sequence[int], candidates: Sequence[int], n: int) -> np.ndarray:
    """Return the model's score of each candidate after n draws of the seeds, one prompt at a time."""
    artifacts = open_artifacts(bundle)
    random = np.random.default_rng([13, *seeds])
    sub = artifacts.trie.restrict(np.array(candidates))
    found = [
        name_logprobs(artifacts.model, [artifacts.model.encode(list_prompt(listed))], [sub])[0]
        for listed in ([NAMES[i] for i in random.permutation(seeds)[:3]] for _ in range(n))
    ]
    by_id = dict(zip(found[0].ids.tolist(), np.mean([f.logprobs for f in found], axis=0), strict=True))
    return np.array([by_id[i] for i in candidates])


@pytest.mark.parametrize(("negative", "contrast"), [((20, 21), 1), ((20, 21), 0.5), ((20, 21), 0), ((), 1)])
def test_generative_reranking_adds_the_log_ratio(bundle: Bundle, negative, contrast) -> None:
    recalled = [5, 30, 2, 17, 9]
    (before,) = asked(replace(Q, negative=negative), ids=recalled)
    (after,) = GenerativeRerank(prompts=2, weight=0.3, contrast=contrast).open(bundle)([before])
    g = mean_logprobs(bundle, Q.positive, recalled, 2)
    if negative:
        g -= contrast * mean_logprobs(bundle, negative, recalled, 2)
    r = before.ranking.scores
    expected = r + 0.3 * r.std() * (g - g.mean()) / g.std()
    order = np.argsort(-expected)
    assert after.ranking.ids.tolist() == [recalled[i] for i in order]
    np.testing.assert_allclose(after.ranking.scores, expected[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.ranking.evidence["generation"], g[order], rtol=1e-3, atol=1e-4)
    alone = GenerativeRerank(prompts=2, alone=True, contrast=contrast)
    (ranked,) = alone.open(bundle)([before])
    assert ranked.ranking.ids.tolist() == [recalled[i] for i in np.argsort(-g)]


def test_generative_reranking_answers_alike_in_any_batch_and_leaves_empty_lists(bundle: Bundle) -> None:
    expansions = [*asked(Q, ids=[5, 30, 2, 17]), *asked(replace(Q, id="e"))]
    expansions += asked(replace(Q, id="r", positive=(1, 3)), ids=[8, 9, 10, 11, 13])
    stage = GenerativeRerank(descriptions=True)
    together = stage.open(bundle)(expansions)
    for one, expected in zip(expansions, together, strict=True):
        (alone,) = stage.open(bundle)([one])
        assert alone.ranking.ids.tolist() == expected.ranking.ids.tolist()
        np.testing.assert_allclose(alone.ranking.scores, expected.ranking.scores, rtol=1e-4)
    assert len(together[1].ranking) == 0


@pytest.mark.parametrize("of", ["nobody", "one seed"])
def test_what_puts_descriptions_in_front_notes_that_no_seed_has_one(bundle: Bundle, of: str) -> None:
    """A list that was made without them must not pass as one that was made with them."""
    known = {} if of == "nobody" else {Q.positive[1]: "About it."}
    artifacts = replace(open_artifacts(bundle), description=lambda one: known.get(one, ""))
    generate, rerank = (
        QUICK.model_copy(update={"descriptions": True}),
        GenerativeRerank(descriptions=True, prompts=1),
    )
    workers: list[tuple[Stage, Worker]] = [
        (generate, Generator(generate, artifacts, open_catalogue(bundle))),
        (rerank, GenerativeReranker(rerank, BundleScorer(artifacts), artifacts.names, artifacts.description)),
    ]
    for stage, worker in workers:
        (found,) = worker(asked(Q, ids=[5, 30, 2, 17]))
        assert found.degraded == (() if known else (f"{stage.name}: {NO_DESCRIPTION}",)), stage
        assert len(found.ranking)


def test_standardised_values() -> None:
    assert standardised(np.array([1.0, 3.0])).tolist() == [-1, 1]
    assert standardised(np.array([2.0, 2.0])).tolist() == [0, 0]


def test_segments_by_the_likelihood_of_the_negative_seeds(bundle: Bundle) -> None:
    recalled = [5, 30, 2, 17, 9]
    (before,) = asked(Q, ids=recalled)
    (after,) = SegmentRerank(by="likelihood", length=3).open(bundle)([before])
    (negative,) = open_artifacts(bundle).likelihood.means([(before.ranking.ids, Q.negative)])
    first = sorted(range(3), key=lambda i: negative[i])
    second = sorted(range(3, 5), key=lambda i: negative[i])
    assert after.ranking.ids.tolist() == [recalled[i] for i in [*first, *second]]
    np.testing.assert_array_equal(after.ranking.scores, before.ranking.scores)


def test_a_bundle_without_a_language_model_says_so(tmp_path: Path) -> None:
    poor = publish_vectors(Workspace.open(tmp_path), NAMES, {"mask": np.ones((N, 2))})
    for stage in (QUICK, GenerativeRerank(), SegmentRerank(by="likelihood")):
        with pytest.raises(BundleError, match="holds no 'lm'"):
            stage.open(poor)


TOO_LONG = NewEntity("Ω" * 300, ("x",)), NewEntity("Ψ" * 300, ("x",))
LONG = replace(Q, id="long", positive=(-1, 7), negative=(-2,), new=TOO_LONG)
"""A query whose seeds do not fit a model of 512 tokens."""


@pytest.mark.parametrize(
    ("stage", "recalled"),
    [
        (QUICK, None),
        (QUICK, RECALLED),
        (QUICK.model_copy(update={"cot_level": "class"}), None),
        (GenerativeRerank(prompts=2), RECALLED),
        (SegmentRerank(by="likelihood"), RECALLED),
    ],
)
def test_a_query_too_long_for_the_model_is_named_and_the_others_are_answered(
    bundle: Bundle, stage: Stage, recalled: list[int] | None
) -> None:
    run = isolated(stage, stage.open(bundle))
    others = [Q, replace(Q, id="r", positive=(1, 2))]
    first, refused, last = run(asked(others[0], LONG, others[1], ids=recalled))
    assert first.ranking.ids.tolist() == run(asked(others[0], ids=recalled))[0].ranking.ids.tolist()
    assert last.ranking.ids.tolist() == run(asked(others[1], ids=recalled))[0].ranking.ids.tolist()
    assert len(first.ranking)
    assert first.degraded == last.degraded == ()
    (note,) = refused.degraded
    assert note.startswith(f"{stage.name}: ")
    assert "tokens" in note
    assert refused.ranking.ids.tolist() == (recalled or [])
    (alone,) = run(asked(LONG, ids=recalled))
    assert alone.degraded == refused.degraded


def test_a_query_that_fits_no_longer_keeps_its_list(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = generator(bundle)
    growing = worker.start(asked(Q, replace(Q, id="r")))
    rounds = worker.rounds(growing)
    for _ in range(2):
        next(rounds)
    monkeypatch.setattr(growing[0], "query", replace(Q, positive=(-1,), new=LONG.new))
    for _ in rounds:
        pass
    kept, whole = (worker.answer(e, one) for e, one in zip(asked(Q, Q), growing, strict=True))
    assert growing[0].rounds < growing[1].rounds
    assert len(kept.ranking) == len(growing[0].accepted) > 0
    assert "the language model takes 512" in kept.degraded[0]
    assert whole.degraded == ()


def test_a_search_of_few_beams_that_looks_ahead_finds_what_is_near(bundle: Bundle) -> None:
    quick = Generate(beams=2, max_rounds=1)
    (plain,) = quick.open(bundle)(asked(Q))
    steered = quick.model_copy(update={"lookahead": 50.0})
    worker = steered.open(bundle)
    (found,) = worker(asked(Q))
    (nearest,) = Retrieve(k=N).open(bundle)([Expansion(Q)])
    others = [i for i in nearest.ranking.ids.tolist() if i in found.ranking.ids]
    assert found.ranking.ids.tolist() != plain.ranking.ids.tolist()
    assert set(others) == set(found.ranking.ids.tolist()) <= {*nearest.ranking.ids[:2].tolist()}
    (expected,) = open_artifacts(bundle).likelihood.means([(found.ranking.ids, Q.positive)])
    np.testing.assert_array_equal(found.ranking.scores, expected)
    first, *_ = worker(asked(Q, replace(Q, positive=(1, 2))))
    assert first.ranking.ids.tolist() == found.ranking.ids.tolist()


def test_where_there_is_nothing_to_look_ahead_to_it_is_said(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).normal(size=(N, 6))
    vectors[[0, 7, 12]] = 0
    bundle = publish_vectors(Workspace.open(tmp_path), NAMES, {"mask": vectors}, model=tiny_model())
    steered = QUICK.model_copy(update={"lookahead": 1.0})
    (found,) = steered.open(bundle)(asked(Q))
    (plain,) = QUICK.open(bundle)(asked(Q))
    assert found.degraded == (
        "Generate: no positive seed has a vector in 'mask': searched without lookahead",
    )
    assert found.ranking.ids.tolist() == plain.ranking.ids.tolist()
    other = steered.model_copy(update={"lookahead_view": "joint"})
    assert "index/joint.faiss" in other.needs()
    with pytest.raises(BundleError, match=r"joint"):
        other.open(bundle)


def test_a_search_without_the_trie_cannot_look_ahead() -> None:
    with pytest.raises(ValidationError, match="set lookahead to 0, or constrained to true"):
        Generate(lookahead=1, constrained=False)


def test_an_endpoints_model_ranks_as_the_bundles(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the whole vocabulary, which is what an endpoint tells."""
    recalled = [5, 30, 2, 17, 9]
    stage = GenerativeRerank(prompts=2, scores="endpoint", alone=True)
    assert stage.needs() == ()
    assert "SEEDSET_CHAT_MODEL is not set" in stage.unavailable()
    artifacts = open_artifacts(bundle)
    with chat_server(monkeypatch, echoed(artifacts.model), PATH, cache=bundle.folder / "kept") as server:
        assert (stage.settled().model, stage.source()) == (MODEL, f"{server.url}/completions")
        worker = stage.open(bundle)
        (ranked,) = worker(asked(Q, ids=recalled))
        assert "chat: 4 requests" in stage.account(bundle)
        prompts = {text for one in server.requests for text in one["prompt"]}
    assert len(prompts) == 2 * 2 * len(recalled)
    assert counts_of(worker)["requests"] == len(server.requests) == 4
    g = np.zeros(len(recalled))
    sub = artifacts.trie.restrict(np.array(recalled))
    for sign, seeds in ((1, Q.positive), (-1, Q.negative)):
        random = np.random.default_rng([13, *seeds])
        for _ in range(2):
            text = list_prompt([NAMES[i] for i in random.permutation(seeds)[:3]])
            (one,) = name_logprobs(artifacts.model, [artifacts.model.encode(text)], [sub], "vocabulary")
            g += sign * one.logprobs[np.searchsorted(one.ids, recalled)] / 2
    order = np.argsort(-g)
    assert ranked.ranking.ids.tolist() == [recalled[i] for i in order]
    np.testing.assert_allclose(ranked.ranking.evidence["generation"], g[order], atol=1e-3)


def test_what_begins_a_text_stands_before_each_prompt_that_is_sent() -> None:
    sent = []

    def scores(prompts: list[str], names: list[str], deadline: object) -> Any:
        sent.append((prompts, names))
        return np.zeros((len(prompts), len(names)))

    scorer = EndpointScorer(cast(EndpointScores, scores), ["France", "Spain"], "<s>")
    scorer([Prompted(["iron and", "gold and"], np.array([1]), None)])
    assert sent == [(["<s>iron and", "<s>gold and"], [name_text("Spain")])]


def test_an_endpoint_that_is_not_named_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDSET_CHAT_MODEL", "x")
    with pytest.raises(UserError, match="GenerativeRerank: SEEDSET_CHAT_URL is not set"):
        GenerativeRerank(scores="endpoint").open(bundle)
