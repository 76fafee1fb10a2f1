"""Write the texts that a language model continues (GenExpan, section 5.2 and appendices A, I, J).

A list prompt ends before the name that is wanted; a name then reads ``" {name}.\\n"``. The examples teach
a model that was not trained for it that a list of like things is meant.

The style ``paper`` is word for word what the paper prints (tables 13, 14 and 16) and, for the lists of its
chain of thought, which it does not print, what its authors' program writes. For attributes neither has a
text: :func:`attribute_prompt` is ours in both styles. The style ``seedset`` is ours where it differs: a
class name heads the paper's own lists, is asked for by unfinished sentences, and negative seeds are named
in a sentence of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

PromptStyle = Literal["paper", "seedset"]
"""Whose prompts: the paper's, or ours."""

CotLevel = Literal["none", "class", "positive", "negative"]
"""Depth of the chain of thought: none, the class name, also what the positive seeds have in common,
also what the negative ones have (the paper's table 8)."""

LEVELS: tuple[CotLevel, ...] = get_args(CotLevel)
"""From the flattest to the deepest; each names what those before it do, and one part more."""

Part = Literal["class_name", "positive", "negative"]
"""A part of the chain of thought: the class name, what either kind of seeds has in common."""

CLASSED = (
    ("metals", ("iron", "copper", "aluminum", "zinc")),
    ("school subjects", ("math", "physics", "chemistry", "biology")),
)
"""The paper's two example lists (table 13); the class names, of our style alone, are ours."""

THOUGHT = (
    "They are all Animals: Lion, Elephant, Giraffe, and Zebra.",
    "They are all Authors: Ernest Hemingway, F. Scott Fitzgerald, Mark Twain, and John Steinbeck.",
)
"""The two worked examples of the chain of thought in the program of the paper's authors."""

CONTRASTED = (
    "similar to iron, copper, aluminum, rather than wood, plastic, glass, it is zinc.",
    "similar to math, physics, chemistry, rather than history, art, music, it is biology.",
)
"""The examples of a list prompt with negative seeds (table 16)."""

SEEDS_SHOWN = 3
"""Entities that a list names before the one that is wanted; negative ones beside them, too (table 16)."""

LAST_WORD = "and"
"""The word before a wanted name: names are tokenised as they are right after this word."""

ASKED_FOR_CLASS = (
    "Generate a class name that accurately represents the following entities. This class name should "
    "encompass all the given entities and reflect their shared characteristics. Examples:",
    "[Tiger, Lion, Cheetah] -> Big Cats",
    "[Shakespeare, Tolstoy, Hemingway] -> Famous Authors",
    "[Mercury, Venus, Mars] -> Planets in the Solar System",
)
"""Prompt_c (table 14), in the lines of the authors' program; the paper typesets its arrow ``->``."""

NAMING = (
    ("tiger, lion and cheetah", "big cats"),
    ("Shakespeare, Tolstoy and Hemingway", "famous authors"),
    ("Mercury, Venus and Mars", "planets of the solar system"),
)
"""Our worked examples of naming a class (the entities and classes of table 14)."""


def parts_of(level: CotLevel) -> tuple[Part, ...]:
    """Return the parts of a chain of thought of some depth."""
    return get_args(Part)[: LEVELS.index(level)]


def name_text(name: str) -> str:
    """Return a name as it stands in a list after :data:`LAST_WORD`."""
    return f" {name}.\n"


def similar_text(name: str) -> str:
    """Return the template f(e) of equation 8, which the name of a seed continues."""
    return f"{name} is similar to"


def list_prompt(
    names: Sequence[str],
    *,
    style: PromptStyle = "paper",
    class_name: str = "",
    descriptions: Sequence[str] = (),
    negatives: Sequence[str] = (),
) -> str:
    """Return Prompt_g: examples, then the given names, open for one more (table 13).

    The paper has no prompt with both a class name and negative seeds; here the class name heads the lines
    of table 16 then.

    Args:
        names: of the entities that the list begins with, at least one.
        style: whose prompts; equal without class name and negative seeds.
        class_name: what they are (chain of thought), with what is known of their attributes.
        descriptions: of these entities, a line each in front (retrieval augmentation, appendix J).
        negatives: names of negative seeds (appendix I: this harms recall, so it is off by default).
    """
    lines = [text for text in descriptions if text]
    shown = ", ".join(names)
    if style == "paper" and negatives:
        for (example_class, _), example in zip(CLASSED, CONTRASTED, strict=True):
            lines.append(_headed(example_class if class_name else "", example))
        lines.append(_headed(class_name, f"similar to {shown}, rather than {', '.join(negatives)}, it is"))
        return "\n".join(lines)
    if style == "paper" and class_name:
        return "\n".join([*lines, *THOUGHT, _headed(class_name, f"{shown} {LAST_WORD}")])
    for example_class, (*first, last) in CLASSED:
        lines.append(_headed(example_class if class_name else "", f"{', '.join(first)} {LAST_WORD} {last}."))
    if negatives:
        lines.append(f"This list is without {', '.join(negatives)} and things like these.")
    lines.append(_headed(class_name, f"{shown} {LAST_WORD}"))
    return "\n".join(lines)


def class_prompt(names: Sequence[str], style: PromptStyle = "paper") -> str:
    """Return Prompt_c: asks for the name of the class of some entities (table 14)."""
    if style == "paper":
        return "\n".join([*ASKED_FOR_CLASS, f"[{', '.join(names)}] ->"])
    lines = [f"{members} are all {class_name}." for members, class_name in NAMING]
    return "\n".join([*lines, f"{_series(names)} are all"])


def attribute_prompt(names: Sequence[str], class_name: str) -> str:
    """Return a prompt that asks what the given entities of a class have in common.

    Ours: the paper says that positive attributes are asked for (section 5.2.2), and prints no prompt for it;
    its authors' program has none.
    """
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
