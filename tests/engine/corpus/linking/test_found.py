"""The draw by hash against a plain one; what a part keeps of its places; ambiguous places by their words."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.linking.found import PartCollector, draw_of, drawn
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.matcher import Matcher
from engine.corpus.linking.nearest import nearest_entities
from engine.corpus.linking.rules import Ambiguous, LinkRules

MENTIONS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9)), max_size=40)


@given(MENTIONS, st.none() | st.integers(1, 4))
def test_the_smallest_draws_of_every_entity_are_kept_once(
    mentions: list[tuple[int, int]], per_entity: int | None
) -> None:
    entities = np.array([one for one, _ in mentions], np.int32)
    draws = np.array([number for _, number in mentions], np.uint64)
    kept, duplicates = drawn(entities, draws, per_entity)
    found = sorted((int(e), int(d)) for e, d in zip(entities[kept], draws[kept], strict=True))
    expected = [
        (entity, number)
        for entity in range(4)
        for number in sorted({d for e, d in mentions if e == entity})[:per_entity]
    ]
    assert found == expected
    decided = [one for one in mentions if one[0] >= 0]
    assert duplicates == len(decided) - len(set(decided))


def test_a_text_that_grows_keeps_what_was_drawn() -> None:
    draws = np.array([draw_of("Oslo", f"Oslo {i}") for i in range(200)], np.uint64)
    entities = np.zeros(200, np.int32)
    before, _ = drawn(entities[:100], draws[:100], 20)
    after, _ = drawn(entities, draws, 20)
    lost = set(draws[:100][before]) - set(draws[after])
    new = set(draws[after]) - set(draws[:100])
    assert len(lost) == len(new) < 20, "each new one displaces one, and nothing else changes"


def test_draws_differ_by_entity_and_sentence() -> None:
    assert draw_of("a", "b c") != draw_of("a b", "c")
    assert draw_of("Oslo", "Oslo is a city.") == 12776940213172546621, (
        "on every machine, and in every version"
    )


def collected(sentences: list[str], ambiguous: Ambiguous = "refuse") -> PartCollector:
    names, aliases = ["Georgia", "Georgia (state)", "Oslo"], [[], ["Georgia"], []]
    found = PartCollector(names, ambiguous)
    matcher = Matcher(Lexicon(names, aliases), LinkRules())
    for number, sentence in enumerate(sentences):
        found.add(sentence, matcher.find(sentence), f"d{number}")
    return found


SENTENCES = ["Oslo and oslo and Oslo.", "He left Georgia.", "Nothing."]


def test_a_part_has_a_row_a_mention_and_counts_every_place() -> None:
    found = collected(SENTENCES)
    assert found.take().drop_columns(["draw"]).to_pylist() == [
        {
            "entity_id": 2,
            "key": 2,
            "sentence": SENTENCES[0],
            "start": 0,
            "end": 4,
            "document": "d0",
            "candidates": None,
        }
    ]
    summary = found.finished()
    assert (summary.sentences, summary.sentences_with_mentions) == (3, 1)
    assert summary.places["linked"] == {2: 2}
    assert summary.places["other_case"] == {2: 1}
    assert summary.places["ambiguous"] == {0: 1}
    assert summary.examples["ambiguous"] == {0: "He left [Georgia]."}


def test_ambiguous_places_are_of_all_or_are_kept_undecided() -> None:
    of_all = collected(SENTENCES, "all").take()
    assert of_all["entity_id"].to_pylist() == [2, 0, 1]
    kept = collected(SENTENCES, "nearest").take()
    assert kept["entity_id"].to_pylist() == [2, -1]
    assert kept["candidates"].to_pylist() == [None, [0, 1]]


def test_the_entity_with_most_words_in_common_is_the_nearest() -> None:
    texts = {
        0: ["Tbilisi is the capital of the country in the Caucasus", "wine of the Caucasus"],
        1: ["Atlanta is the capital of the southern state", "peaches of the southern state"],
    }
    sentences = ["A wine from the Caucasus", "peaches and Atlanta", "the of", "zzz yyy"]
    found = nearest_entities(sentences, [[0, 1]] * 4, texts)
    assert found.tolist()[:2] == [0, 1]
    assert found.tolist()[3] == -1, "no word in common says nothing"
    assert nearest_entities(["wine"], [[0, 1]], {}).tolist() == [-1]
