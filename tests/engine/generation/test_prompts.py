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


def test_a_class_name_heads_the_examples_too() -> None:
    lines = list_prompt(["France"], class_name="countries of Europe").split("\n")
    assert lines == [
        "They are all metals: iron, copper, aluminum and zinc.",
        "They are all school subjects: math, physics, chemistry and biology.",
        "They are all countries of Europe: France and",
    ]


def test_descriptions_come_first_and_empty_ones_take_no_line() -> None:
    lines = list_prompt(["a", "b"], descriptions=["about a", ""]).split("\n")
    assert lines[0] == "about a"
    assert lines[1].startswith("iron")
    assert len(lines) == 4


def test_names_of_negative_seeds_stand_before_the_list() -> None:
    lines = list_prompt(["a"], negatives_in_prompt=["x", "y"]).split("\n")
    assert "x, y" in lines[-2]
    assert lines[-1] == "a and"


def test_reasoning_prompts_end_where_the_answer_begins() -> None:
    assert class_prompt(["cat", "dog", "cow"]).endswith("\ncat, dog and cow are all")
    assert class_prompt(["cat"]).endswith("\ncat are all")
    assert attribute_prompt(["cat", "dog"], "pets").endswith(
        "What cat and dog have in common among pets: they"
    )
