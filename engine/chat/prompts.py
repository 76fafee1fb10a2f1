"""Write the prompts by which a chat model expands a set.

UltraWiki (section 6.1) says of its GPT-4 row only that "prompt templates incorporating both positive and
negative seed entities" guide the model to the target entities, and prints no template: its appendix A has
those for mining, for a list's continuation and for a class name. MESED's GPT-3.5 row has none either; its
GPT+Name row is "instructed to reason about the class names first, and then expand based on them". So the
sentences here are ours. Taken from the papers are: both kinds of seeds in the prompt, "similar to …, rather
than …" (UltraWiki, table 16), seeds in brackets (table 12), the class name first (MESED). From the authors'
one published call of GPT-4, which mines pairs, are the system message, the JSON object as output, temperature
0, top-p 0.01, seed 42 and 2,000 tokens at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.chat.messages import Message

SYSTEM = "The output must be a json object."
"""The system message of the authors' call; endpoints that promise JSON want the word in a message."""

TASK = (
    "I have a task of entity set expansion. The positive seed entities belong to one class and share certain "
    "attributes."
)
NEGATIVE = (
    " The negative seed entities are of the same kind, but differ from the positive ones in certain "
    "attributes."
)
NAMING = (
    " First reason about the class: find a name for the fine-grained class of the positive seed entities "
    "that also says the attributes that they share{rather}. Then list entities of that class."
)
RATHER = ", and that the negative ones do not have"
WANTED = (
    " List up to {k} further entities that are similar to the positive seed entities{rather}, the most "
    "certain first. Give each by its usual name, none twice, none of the seed entities, and none that does "
    "not exist."
)
RATHER_THAN = ", rather than to the negative seed entities"


def expansion_messages(
    positive: Sequence[str], negative: Sequence[str], k: int, class_name: bool = False
) -> tuple[Message, ...]:
    """Return the prompt that asks for more entities like the positive seeds and unlike the negative ones.

    Args:
        positive: names of the positive seeds, at least one.
        negative: names of the negative seeds; without any, the prompt does not speak of them.
        k: entities that are asked for.
        class_name: ask for the name of the class first (MESED's GPT+Name).
    """
    task = TASK + (NEGATIVE if negative else "")
    if class_name:
        task += NAMING.format(rather=RATHER if negative else "")
    task += WANTED.format(k=k, rather=RATHER_THAN if negative else "")
    lines = [task, "", f"Positive seed entities: {_series(positive)}"]
    if negative:
        lines.append(f"Negative seed entities: {_series(negative)}")
    form = '{"class_name": "…", "entities": ["…", "…"]}' if class_name else '{"entities": ["…", "…"]}'
    return Message("system", SYSTEM), Message("user", "\n".join([*lines, f"Output, in the form {form}:"]))


def _series(names: Sequence[str]) -> str:
    """Return names as a JSON list, so that none of them can be taken for another part of the prompt."""
    return json.dumps(list(names), ensure_ascii=False)
