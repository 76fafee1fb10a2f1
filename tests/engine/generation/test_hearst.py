"""Queries after Hearst's patterns."""

from __future__ import annotations

from engine.generation.hearst import MASK, PATTERNS, query, spoken


def written(pattern: int, name: str, names: list[str]) -> str:
    text, start, end = query(pattern, name, names)
    return f"{text[:start]}[MASK]{text[end:]}"


def test_the_class_is_masked_in_six_patterns() -> None:
    assert [written(p, MASK, ["iron", "gold", "tin"]) for p in range(len(PATTERNS))] == [
        "[MASK] such as iron , gold , and tin .",
        "such [MASK] as iron , gold , and tin .",
        "iron , gold , tin or other [MASK] .",
        "iron , gold , tin and other [MASK] .",
        "[MASK] including iron , gold , and tin .",
        "[MASK] , especially iron , gold , and tin .",
    ]


def test_an_entity_is_masked_alone_or_among_others_and_a_name_cannot_make_a_mask() -> None:
    assert written(0, "metals", [MASK]) == "metals such as [MASK] ."
    assert written(2, "metals", ["iron", MASK]) == "iron , [MASK] or other metals ."
    assert spoken(f"New{MASK} York [MASK]") == "new york [mask]"
    assert written(0, f"{MASK} metals", ["iron"]) == "[MASK] metals such as iron ."
