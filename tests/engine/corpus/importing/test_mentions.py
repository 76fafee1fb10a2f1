import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.importing.mentions import (
    ALIAS,
    EXACT,
    FOLDED,
    GIVEN,
    OTHER_SIGNS,
    SUBSTRING,
    MentionFinder,
)
from engine.refusals import Code, Refusal
from engine.text.spelling import fold, nfc

NOT_FOUND = Refusal(Code.MENTION_NOT_FOUND, "does not hold its entity's name")


def inside(longer: str) -> Refusal:
    return Refusal(Code.MENTION_IN_LONGER_NAME, f"occurs only inside the longer name {longer!r}")


def finder(*names: str, aliases: dict[str, list[str]] | None = None) -> MentionFinder:
    return MentionFinder(names, [(aliases or {}).get(n, []) for n in names])


@given(
    st.sampled_from(["lead", "Lead", "C++", "New York"]),
    st.lists(
        st.sampled_from(["lead", "LEAD", "leader", "mislead", "c++", "C++", "new york", "New Yorker", "of"]),
        min_size=1,
        max_size=6,
    ),
)
def test_the_first_place_in_any_case_is_that_of_the_authors(name: str, words: list[str]) -> None:
    """A whole word if there is one, else inside a word: counted here place by place."""
    sentence = " ".join(words)
    lowered, wanted = sentence.lower(), name.lower()
    places = [i for i in range(len(sentence)) if lowered.startswith(wanted, i)]

    def is_word(i: int) -> bool:
        return 0 <= i < len(sentence) and (sentence[i].isalnum() or sentence[i] == "_")

    def bounded(at: int) -> bool:
        return is_word(at - 1) != is_word(at) and is_word(at + len(name) - 1) != is_word(at + len(name))

    expected = next(iter([*filter(bounded, places), *places]), None)
    found = MentionFinder([name, "New York City"], [[], []], "first").find(0, sentence)
    if expected is None:
        assert isinstance(found, Refusal)
    else:
        assert not isinstance(found, Refusal)
        assert found[:2] == (expected, expected + len(name))


def test_the_first_place_is_not_always_the_best() -> None:
    sentence = "Lead and leaders: New York City leads with lead."
    for rule, places in (("best", (43, None)), ("first", (0, 18))):
        finder = MentionFinder(["lead", "New York", "New York City"], [[], [], []], rule)  # type: ignore[arg-type]
        spans = [finder.find(entity, sentence) for entity in (0, 1)]
        starts = tuple(None if isinstance(span, Refusal) else span[0] for span in spans)
        assert starts == places


@pytest.mark.parametrize(
    ("name", "sentence", "held", "how"),
    [
        ("iron", "A bar of iron is heavy.", "iron", EXACT),
        ("iron", "Iron is heavy; so is an ironing board of iron.", "iron", EXACT),
        ("iron", "Iron is heavy.", "Iron", FOLDED),
        ("iron", "The ironclad sank.", "iron", SUBSTRING),
        ("C++", "He wrote C++, then rested.", "C++", EXACT),
        ("M*A*S*H (film)", "In M*A*S*H (film) they laugh.", "M*A*S*H (film)", EXACT),
        ("a.b", "Take axb or a.b here.", "a.b", EXACT),
        ("[1]", "See [1].", "[1]", EXACT),
        ('"Heroes"', 'The song "Heroes" is long.', '"Heroes"', EXACT),
        ("O'Brien", "Then O'Brien came.", "O'Brien", EXACT),
        ("back\\slash", "A back\\slash here.", "back\\slash", EXACT),
        ("北京", "我住在北京市中心。", "北京", SUBSTRING),
        ("กรุงเทพ", "ฉันอยู่กรุงเทพมหานคร", "กรุงเทพ", SUBSTRING),
        ("Москва", "Город Москва велик.", "Москва", EXACT),
        ("МОСКВА", "Город Москва велик.", "Москва", FOLDED),
        ("ΣΟΦΟΣ", "Ένας σοφός άνδρας, ένας σοφος.", "σοφος", FOLDED),
        ("İzmir", "Büyük İzmir şehri.", "İzmir", EXACT),
        ("straße", "Die STRAße ist lang.", "STRAße", FOLDED),
        ("القاهرة", "تقع القاهرة في مصر.", "القاهرة", EXACT),
    ],
)
def test_where_the_mention_is(name: str, sentence: str, held: str, how: str) -> None:
    span = finder(name).find(0, sentence)
    assert not isinstance(span, Refusal)
    start, end, found = span
    assert (sentence[start:end], found) == (held, how)


def test_an_exact_spelling_wins_over_an_earlier_one_in_another_case() -> None:
    assert finder("May").find(0, "It may rain in May.") == (15, 18, EXACT)


def test_aliases_come_before_parts_of_words() -> None:
    found = finder("iron", aliases={"iron": ["ferrum"]}).find(0, "The environment holds Ferrum.")
    assert found == (22, 28, ALIAS)


def test_a_combining_mark_belongs_to_its_letter() -> None:
    # "कमल" inside "कमला": the vowel sign is no \\w character, yet it makes another word
    assert finder("कमल").find(0, "यह कमला है।") == NOT_FOUND
    assert "'x\u0332' with U+0332 at 1" in str(finder("x").find(0, "Only x\u0332 here."))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Guinea-Bissau is small.", inside("Guinea-Bissau")),
        ("GUINEA-BISSAU is small.", inside("GUINEA-BISSAU")),
        ("Equatorial Guinea is small.", inside("Equatorial Guinea")),
        ("Guinea-Bissau borders Guinea.", (22, 28, EXACT)),
        ("Equatorial Guineans differ.", (11, 17, SUBSTRING)),
        ("Non-equatorial Guinea.", inside("equatorial Guinea")),
        ("Papua New Guinea.", inside("New Guinea")),
    ],
)
def test_a_name_inside_a_longer_one(sentence: str, expected: object) -> None:
    found = finder("Guinea", "Guinea-Bissau", "Equatorial Guinea", "Niu Gini", aliases=NEW).find(0, sentence)
    assert found == expected


NEW = {"Niu Gini": ["New Guinea"]}


def test_longer_names_of_the_same_entity_are_its_own() -> None:
    sentence, names, aliases = "The City of York.", ["York", "Leeds"], [["City of York"], []]
    assert MentionFinder(names, aliases).find(0, sentence) == (4, 16, ALIAS)
    assert MentionFinder(names, aliases, version=1).find(0, sentence) == (12, 16, EXACT)


@pytest.mark.parametrize(
    ("sentence", "held", "how"),
    [
        ("the Republic of Guinea today", "Republic of Guinea", ALIAS),
        ("THE REPUBLIC OF GUINEA", "REPUBLIC OF GUINEA", ALIAS),
        ("Guinea, the Republic of Guinea", "Guinea", EXACT),  # the first place, which no longer one is around
        ("the Republic of Guineans of Guinea", "Guinea", EXACT),  # the longer one is no whole word
        ("the Republic\u00a0of Gui\u00adnea", "Republic\u00a0of Gui\u00adnea", OTHER_SIGNS),
        ("New Republic of Guinea", "New Republic of Guinea", ALIAS),  # the longest of several
        ("our Republic of Guinea Trust; Guinea", "Guinea", EXACT),
    ],
)
def test_the_longest_spelling_around_a_place_is_the_mention(sentence: str, held: str, how: str) -> None:
    aliases = {"Guinea": ["Republic of Guinea", "New Republic of Guinea"]}
    names = finder("Guinea", "Guinea-Bissau", "Republic of Guinea Trust", aliases=aliases)
    found = names.find(0, sentence)
    assert not isinstance(found, Refusal)
    start, end, found_how = found
    assert (sentence[start:end], found_how) == (held, how)


def test_a_name_inside_a_longer_one_without_spaces() -> None:
    names = finder("纽约", "纽约州")
    assert names.find(0, "我爱纽约州。") == inside("纽约州")
    assert names.find(0, "纽约州的纽约。") == (4, 6, SUBSTRING)


def test_longer_names_with_signs() -> None:
    assert finder("C", "C++").find(0, "He writes C++.") == inside("C++")
    assert finder("C", "C++").find(0, "He writes C++ and C.") == (18, 19, EXACT)


@pytest.mark.parametrize(
    ("name", "sentence", "held"),
    [
        ("New Haven Bay", "To New\u00a0Haven\u2009Bay.", "New\u00a0Haven\u2009Bay"),
        ("New Haven Bay", "To New\r\nHaven   Bay.", "New\r\nHaven   Bay"),
        ("O'Tool", "At O\u2019TOOL\u2019s.", "O\u2019TOOL"),
        ("Jean–Luc", "At Jean-Luc’s.", "Jean-Luc"),
        ("Harbour", "The \u200eHar\u00adbour\u200e.", "Har\u00adbour"),
        ("AT&T", "At AT&amp;amp;T here.", "AT&amp;amp;T"),
        ("Café", "At Cafe\u2060\u0301 here &amp; there.", "Cafe\u2060\u0301"),
        ("office", "The o\ufb03ce.", "o\ufb03ce"),
        ("ガラス", "ｶﾞﾗｽの", "ｶﾞﾗｽ"),
        ("iron", "An ｉｒｏｎ bar", "ｉｒｏｎ"),
        ("Har\u00adbour", "A harbour.", "harbour"),  # a name of an earlier import
    ],
)
def test_look_alike_signs_are_the_name(name: str, sentence: str, held: str) -> None:
    sentence = nfc(sentence)
    span = finder(name).find(0, sentence)
    assert not isinstance(span, Refusal)
    assert (sentence[span[0] : span[1]], span[2]) == (nfc(held), OTHER_SIGNS)
    start = sentence.index(nfc(held))
    assert finder(name).check(0, sentence, start, start + len(nfc(held))) == (*span[:2], GIVEN)
    assert finder(name).narrow(0, sentence, 0, len(sentence)) == (*span[:2], GIVEN)


@pytest.mark.parametrize(
    ("sentence", "held"),
    [
        ("the Republic of Guinea today", "Republic of Guinea"),
        ("THE REPUBLIC OF GUINEA", "REPUBLIC OF GUINEA"),
        ("Guinea, the Republic of Guinea", "Republic of Guinea"),
        ("the Republic\u00a0of Gui\u00adnea", "Republic\u00a0of Gui\u00adnea"),  # with other signs
        ("Guinea's", "Guinea"),
        ("Guineans of the Republic of Guineans", "Republic of Guinea"),  # none is a whole word
    ],
)
def test_of_several_spellings_in_a_marked_place_the_longest_is_the_mention(sentence: str, held: str) -> None:
    names = finder("Guinea", aliases={"Guinea": ["GN", "Republic of Guinea"]})
    found = names.narrow(0, sentence, 0, len(sentence))
    assert not isinstance(found, Refusal)
    start, end, how = found
    assert (sentence[start:end], how) == (held, GIVEN)


@pytest.mark.parametrize("sentence", ["Guinea\u2011Bissau is.", "Guinea\u00ad-Bissau is.", "guinea–bissau"])
def test_a_longer_name_is_one_with_any_signs(sentence: str) -> None:
    found = finder("Guinea", "Guinea-Bissau").find(0, sentence)
    assert isinstance(found, Refusal)
    assert found.code is Code.MENTION_IN_LONGER_NAME
    again = finder("Guinea", "Guinea-Bissau").find(0, f"{sentence} Gui\u00adnea")
    assert again == (len(sentence) + 1, len(sentence) + 8, OTHER_SIGNS)


def test_a_refusal_names_the_sign() -> None:
    refused = finder("Camp").find(0, "The \u0421amp is new.")
    assert "it holds '\u0421amp' with U+0421 at 0 in place of U+0043" in str(refused)
    refused = finder("Camp").check(0, "The \u0421amp is new.", 4, 8)
    assert "neither the name nor an alias (U+0421 at 0 in place of U+0043)" in str(refused)
    assert "Camp " in str(finder("Camp").check(0, "Camp is", 0, 5))


def test_given_offsets_are_checked_and_never_corrected() -> None:
    names = finder("iron", aliases={"iron": ["Fe"]})
    assert names.check(0, "Iron (Fe)", 0, 4) == (0, 4, GIVEN)
    assert names.check(0, "Iron (Fe)", 6, 8) == (6, 8, GIVEN)
    assert "hold 'Iro', neither" in str(names.check(0, "Iron (Fe)", 0, 3))
    for start, end in ((-1, 4), (4, 4), (5, 4), (0, 99)):
        assert "are no span of its 9 characters" in str(names.check(0, "Iron (Fe)", start, end))


words = st.text("abC (+*.[é中\u0e01-'", min_size=1, max_size=6).map(str.strip).filter(bool).map(nfc)


@given(st.lists(words, min_size=1, max_size=6, unique=True), st.data())
def test_offsets_always_hold_the_name(names: list[str], data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.one_of(st.sampled_from(names), words), min_size=1, max_size=8))
    sentence = nfc(data.draw(st.sampled_from(["", " "])).join(pieces))
    found = finder(*names).find(0, sentence)
    if isinstance(found, Refusal):
        longer = any(names[0].lower() in n.lower() for n in names[1:])
        assert longer or fold(names[0]) not in fold(sentence)
    else:
        start, end, _ = found
        assert fold(sentence[start:end]) == fold(names[0])


@given(words, st.text(max_size=30).map(nfc))
def test_one_name_alone_is_found_where_a_regular_expression_finds_it(name: str, text: str) -> None:
    sentence = nfc(f"{text} {name} {text}")
    expected = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sentence)
    found = finder(name).find(0, sentence)
    if expected and isinstance(found, tuple) and found[2] == EXACT:
        assert found[0] >= expected.start()
    assert isinstance(found, tuple)


@given(st.text())
def test_fold_keeps_every_offset(text: str) -> None:
    assert len(fold(text)) == len(text)
