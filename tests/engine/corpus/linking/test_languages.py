"""Languages of texts: which have rules, which are refused, and by which name."""

from __future__ import annotations

import pytest
import sentencex

from engine.corpus.linking.languages import check_language, has_rules
from engine.errors import UserError

OWN = "am ar bg bn ca da de el en es fi fr gu hi hy it ja kk kn ml mr my nl pa pl pt ru sk ta te uk"
"""Languages that sentencex has a file of rules for."""


@pytest.mark.parametrize("language", [*OWN.split(), "en-gb", "de-at", "pt-br", "cs", "gl", "gsw", "csb"])
def test_languages_with_rules_and_such_that_take_a_relatives_are_known(language: str) -> None:
    assert has_rules(language)
    assert check_language(language) == ""


@pytest.mark.parametrize("language", ["sv", "zh", "tr"])
def test_a_language_without_rules_is_taken_with_a_word(language: str) -> None:
    text = "Dr. Berg came. Then z.B. Oslo."
    assert sentencex.segment(language, text) == sentencex.segment("en", text)
    assert check_language(language).startswith(f"--language {language}: sentencex has no rules")


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("xx", "--language xx: no language that sentencex knows (codes"),
        ("DE", "knows; did you mean 'de'? (codes"),
        ("pt_BR", "knows; did you mean 'pt'? (codes"),
        ("deu", "did you mean 'de'"),
        ("german", "knows (codes of two small letters: ab, am, an, ar, "),
        ("", "--language : no language"),
    ],
)
def test_what_is_no_language_is_refused_with_the_closest(language: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_language(language)
    assert said in str(caught.value)
    assert str(caught.value).endswith("for a language without rules give en")
