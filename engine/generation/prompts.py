"""Write the texts that a language model continues (GenExpan, section 5.2 and appendices A, I, J).

A list prompt ends before the name that is wanted; a name then reads ``" {name}.\\n"``. The two lists
of examples teach a model that was not trained for it that a list of like things is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

CotLevel = Literal["none", "class", "positive", "negative"]
"""Level of chain of thought: none, the class name, also what the positive seeds have in common,
also what the negative ones have (the paper's table 8)."""

CLASSED = (
    ("metals", ("iron", "copper", "aluminum", "zinc")),
    ("school subjects", ("math", "physics", "chemistry", "biology")),
)
"""The paper's two example lists (table 13), with a class name each for chain-of-thought prompts."""

SEEDS_SHOWN = 3
"""Entities that a list names before the one that is wanted."""

LAST_WORD = "and"
"""The word before a wanted name: names are tokenised as they are right after this word."""

NAMING = (
    ("tiger, lion and cheetah", "big cats"),
    ("Shakespeare, Tolstoy and Hemingway", "famous authors"),
    ("Mercury, Venus and Mars", "planets of the solar system"),
)
"""Worked examples of naming a class (the entities and classes of the paper's table 14)."""


def name_text(name: str) -> str:
    """Return a name as it stands in a list after :data:`LAST_WORD`."""
    return f" {name}.\n"


def similar_text(name: str) -> str:
    """Return the template f(e) of equation 8, which the name of a seed continues."""
    return f"{name} is similar to"


def list_prompt(
    names: Sequence[str],
    *,
    class_name: str = "",
    descriptions: Sequence[str] = (),
    negatives_in_prompt: Sequence[str] = (),
) -> str:
    """Return Prompt_g: two example lists, then the given names, open for one more.

    Args:
        names: of the entities that the list begins with, at least one.
        class_name: what they are (chain of thought); examples then carry their class, too.
        descriptions: of these entities, a line each in front (retrieval augmentation, appendix J).
        negatives_in_prompt: names of negative seeds (appendix I: this harms recall, so it is off by default).
    """
    lines = [text for text in descriptions if text]
    for example_class, (*first, last) in CLASSED:
        lines.append(_headed(example_class if class_name else "", f"{', '.join(first)} {LAST_WORD} {last}."))
    if negatives_in_prompt:
        lines.append(f"This list is without {', '.join(negatives_in_prompt)} and things like these.")
    lines.append(_headed(class_name, f"{', '.join(names)} {LAST_WORD}"))
    return "\n".join(lines)


def class_prompt(names: Sequence[str]) -> str:
    """Return Prompt_c: asks for the name of the class of some entities."""
    lines = [f"{members} are all {class_name}." for members, class_name in NAMING]
    return "\n".join([*lines, f"{_series(names)} are all"])


def attribute_prompt(names: Sequence[str], class_name: str) -> str:
    """Return a prompt that asks what the given entities of a class have in common."""
    lines = [
        "What tiger, lion and cheetah have in common among big cats: they live in Africa or Asia.",
        "What Mercury, Venus and Mars have in common among planets of the solar system: they are rocky.",
    ]
    return "\n".join([*lines, f"What {_series(names)} have in common among {class_name}: they"])


def _headed(class_name: str, text: str) -> str:
    return f"They are all {class_name}: {text}" if class_name else text


def _series(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
