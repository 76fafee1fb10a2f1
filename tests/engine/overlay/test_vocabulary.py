"""Look-ups in a bundle and an overlay equal those in one vocabulary of both."""

from __future__ import annotations

import pytest

from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState
from engine.overlay.vocabulary import OverlaidVocabulary
from engine.query import NewEntity
from engine.vocabulary import Vocabulary

NAMES = ["Japan", "Thailand", "Jordan", "New Zealand", "Norway", "Burma"]
ALIASES = [["Nippon"], ["Siam"], [], ["Aotearoa"], [], ["Myanmar", "Old Land"]]
NEW = ["Atlantia", "New Siam", "norway", "Zubrowka"]
NEW_ALIASES = [["Nippon", "Sunken Land"], [], [], ["Burma"]]
DELETED = (4,)


@pytest.fixture
def overlaid() -> OverlaidVocabulary:
    base = Vocabulary(NAMES, ALIASES)
    added = {
        len(NAMES) + place: AddedEntity(NewEntity(name, ("x",)), tuple(aliases))
        for place, (name, aliases) in enumerate(zip(NEW, NEW_ALIASES, strict=True))
    }
    return OverlaidVocabulary(base, OverlayLayer(len(NAMES), OverlayState(3, added, DELETED)))


@pytest.fixture
def plain() -> Vocabulary:
    return Vocabulary(NAMES + NEW, ALIASES + NEW_ALIASES, DELETED)


@pytest.mark.parametrize(
    "given",
    [
        *(*NAMES, *NEW, "Nippon", "Siam", "Sunken Land", "JAPAN", "new siam", "NORWAY", "Burma", "nobody"),
        *(0, 4, 6, 9, 10, -1, True, " Zubrowka ", "old land"),
    ],
)
def test_a_name_means_the_same(overlaid: OverlaidVocabulary, plain: Vocabulary, given: str | int) -> None:
    assert overlaid.find(given) == plain.find(given)


def test_ids_names_and_lengths_are_the_same(overlaid: OverlaidVocabulary, plain: Vocabulary) -> None:
    assert len(overlaid) == len(plain)
    assert [list(overlaid.ids(passed)) for passed in range(11)] == [list(plain.ids(p)) for p in range(11)]
    assert list(overlaid.names) == plain.names
    assert list(overlaid.aliases) == plain.aliases


@pytest.mark.parametrize("text", ["new", "land", "zubro", "siam", "newzealand", "atlantja", "norway", "j"])
def test_a_search_finds_the_same_entities(overlaid: OverlaidVocabulary, plain: Vocabulary, text: str) -> None:
    assert {one.entity for one in overlaid.search(text)} == {one.entity for one in plain.search(text)}
    assert set(overlaid.starting_with(text)) == set(plain.starting_with(text))


def test_a_better_kind_of_match_comes_first_wherever_it_is(overlaid: OverlaidVocabulary) -> None:
    found = [overlaid.names[one.entity] for one in overlaid.search("nor")]
    assert found == ["norway"]  # and not the deleted one
    found = [overlaid.names[one.entity] for one in overlaid.search("new")]
    assert found == ["New Siam", "New Zealand"]
    assert next(overlaid.search("jorda")).entity == 2
    assert overlaid.closest("Atlantja")[0] == "Atlantia"
    assert overlaid.closest("Thialand")[0] == "Thailand"
    assert "Norway" not in overlaid.closest("Norwai")


def test_an_id_between_is_none(overlaid: OverlaidVocabulary) -> None:
    base = Vocabulary(NAMES, ALIASES)
    state = OverlayState(1, {8: AddedEntity(NewEntity("Late", ("x",)))})
    late = OverlaidVocabulary(base, OverlayLayer(len(NAMES), state))

    assert [late.find(one) for one in (7, 8, "Late")] == [None, 8, 8]
    assert list(late.ids()) == [*range(6), 8]
