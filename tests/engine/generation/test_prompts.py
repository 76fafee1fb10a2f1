from typing import Any

import pytest

from engine.generation.prompts import (
    attribute_prompt,
    class_prompt,
    list_prompt,
    name_text,
    similar_text,
)


def test_the_list_prompt_is_the_papers() -> None:
    assert list_prompt(["France", "Spain", "Italy"]) == (
        "iron, copper, aluminum and zinc.\nmath, physics, chemistry and biology.\nFrance, Spain, Italy and"
    )
    assert name_text("Malta") == " Malta.\n"
    assert similar_text("Malta") == "Malta is similar to"


def test_the_chain_of_thought_has_the_worked_examples_of_the_authors_program() -> None:
    assert list_prompt(["France", "Spain", "Italy"], class_name="Countries in Europe") == (
        "They are all Animals: Lion, Elephant, Giraffe, and Zebra.\n"
        "They are all Authors: Ernest Hemingway, F. Scott Fitzgerald, Mark Twain, and John Steinbeck.\n"
        "They are all Countries in Europe: France, Spain, Italy and"
    )


def test_the_prompt_with_negative_seeds_is_that_of_table_16() -> None:
    assert list_prompt(["France", "Spain", "Italy"], negatives=["Norway", "Japan"]) == (
        "similar to iron, copper, aluminum, rather than wood, plastic, glass, it is zinc.\n"
        "similar to math, physics, chemistry, rather than history, art, music, it is biology.\n"
        "similar to France, Spain, Italy, rather than Norway, Japan, it is"
    )
    both = list_prompt(["France"], negatives=["Norway"], class_name="countries").split("\n")
    assert both[-1] == "They are all countries: similar to France, rather than Norway, it is"


def test_the_prompt_for_a_class_name_is_that_of_table_14() -> None:
    assert class_prompt(["cat", "dog", "cow"]) == (
        "Generate a class name that accurately represents the following entities. This class name should "
        "encompass all the given entities and reflect their shared characteristics. Examples:\n"
        "[Tiger, Lion, Cheetah] -> Big Cats\n"
        "[Shakespeare, Tolstoy, Hemingway] -> Famous Authors\n"
        "[Mercury, Venus, Mars] -> Planets in the Solar System\n"
        "[cat, dog, cow] ->"
    )


def test_our_class_name_heads_the_examples_too() -> None:
    lines = list_prompt(["France"], style="seedset", class_name="countries of Europe").split("\n")
    assert lines == [
        "They are all metals: iron, copper, aluminum and zinc.",
        "They are all school subjects: math, physics, chemistry and biology.",
        "They are all countries of Europe: France and",
    ]
    assert list_prompt(["France"], style="seedset") == list_prompt(["France"])


@pytest.mark.parametrize("options", [{}, {"class_name": "letters"}, {"negatives": ["x"]}])
def test_descriptions_come_first_and_empty_ones_take_no_line(options: dict[str, Any]) -> None:
    lines = list_prompt(["a", "b"], descriptions=["about a", ""], **options).split("\n")
    assert lines[0] == "about a"
    assert lines[1:] == list_prompt(["a", "b"], **options).split("\n")


def test_our_names_of_negative_seeds_stand_before_the_list() -> None:
    lines = list_prompt(["a"], style="seedset", negatives=["x", "y"]).split("\n")
    assert "x, y" in lines[-2]
    assert lines[-1] == "a and"


def test_our_reasoning_prompts_end_where_the_answer_begins() -> None:
    assert class_prompt(["cat", "dog", "cow"], "seedset").endswith("\ncat, dog and cow are all")
    assert class_prompt(["cat"], "seedset").endswith("\ncat are all")
    assert attribute_prompt(["cat", "dog"], "pets").endswith(
        "What cat and dog have in common among pets: they"
    )
