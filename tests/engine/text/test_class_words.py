"""Words that may name a class."""

from __future__ import annotations

from engine.text.class_words import head_noun, is_modifier


def test_words_that_may_name_a_class() -> None:
    knows = {"tools", "goes"}.__contains__
    assert head_noun("countries", knows) == "countries"
    assert head_noun("tool", knows) == "tools"
    assert head_noun("famous", knows) is head_noun("others", knows) is head_noun("##s", knows) is None
    assert head_noun("the", knows) is head_noun("zebra", knows) is None
    assert is_modifier("european", "countries")
    assert not is_modifier("country", "countries")
    assert not is_modifier("countries", "countries")
    assert not is_modifier("such", "countries")
