"""What a part keeps of its places; ambiguous places by their words."""

from __future__ import annotations

from engine.corpus.linking.found import PartCollector
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.matcher import Matcher
from engine.corpus.linking.nearest import nearest_entities
from engine.corpus.linking.rules import Ambiguous, LinkRules


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
