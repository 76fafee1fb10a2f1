"""What a chain of thought says, and who says it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from engine.errors import QueryError
from engine.generation.prompts import CotLevel, Part, attribute_prompt, class_prompt
from engine.generation.reasoning import MAX_TOKENS, Reasoning, complete, reason
from engine.query import NewEntity, Query
from tests.support.language_models import tiny_model

NAMES = ["Japan", "Spain", "Norway", "Chile"]
MODEL = tiny_model()
ARTIFACTS: Any = SimpleNamespace(model=MODEL, names=NAMES)
Q = Query("q", (0, 1), (2,))
SAID = Query(
    "r",
    (0, -1),
    (3,),
    new=(NewEntity("Atlantia", ("x",)),),
    class_name="sea  states\n",
    positive_attributes=(("coast", ("long", "very long")), ("king", ("yes",))),
    negative_attributes=(("coast", ("short",)),),
)


def greedy(prompt: str) -> str:
    """Continue a prompt token by token, the whole of it anew each time, to the end of the first line."""
    ids = MODEL.encode(prompt)
    start = len(ids)
    for _ in range(MAX_TOKENS):
        with torch.inference_mode():
            ids.append(int(MODEL.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return MODEL.tokenizer.decode(ids[start:], skip_special_tokens=True).strip().split("\n")[0].strip()


def test_a_class_name_is_the_first_line_of_the_likeliest_continuation() -> None:
    prompts = [class_prompt(["Japan", "Spain"]), class_prompt(["Norway", "Chile", "Spain"])]
    assert complete(MODEL, prompts) == [greedy(prompt) for prompt in prompts]
    assert complete(MODEL, []) == []


def test_each_depth_names_what_those_before_it_do() -> None:
    (name,) = complete(MODEL, [class_prompt(["Japan", "Spain"])])
    (shared,) = complete(MODEL, [attribute_prompt(["Japan", "Spain"], name)], "seedset")
    (other,) = complete(MODEL, [attribute_prompt(["Norway"], name)], "seedset")
    parts = [name, f"that {shared}", f"that {other}"]
    for depth, level in enumerate(get_args(CotLevel)):
        (found,) = reason(ARTIFACTS, [Q], level)
        assert [found.class_name, found.positive, found.negative] == parts[:depth] + [""] * (3 - depth)
        assert list(found.notes().values()) == parts[:depth]


def test_given_parts_stand_as_the_query_says_them_and_others_come_from_the_model() -> None:
    other = Query("p", (1,), class_name="isles", positive_attributes=(("sea", ("warm",)),))
    every: tuple[Part, ...] = ("class_name", "positive", "negative")
    said, of_other = reason(ARTIFACTS, [SAID, other], "negative", given=every)
    assert said == Reasoning("sea states", "with coast long or very long and king yes", "with coast short")
    assert said.text == ("sea states with coast long or very long and king yes and not ones with coast short")
    assert of_other == Reasoning("isles", "with sea warm", ""), "no negative seeds: nothing to tell apart"
    (model_named,) = reason(ARTIFACTS, [SAID], "positive", given=every[1:2])
    assert model_named.class_name == greedy(class_prompt(["Japan", "Atlantia"]))
    assert model_named.positive == said.positive


def test_a_class_that_is_known_is_not_asked_for() -> None:
    first, second = reason(ARTIFACTS, [Q, Query("p", (3, 2))], "positive", known_classes=["isles", ""])
    assert (first.class_name, second.class_name) == ("isles", greedy(class_prompt(["Chile", "Norway"])))
    (shared,) = complete(MODEL, [attribute_prompt(["Japan", "Spain"], "isles")], "seedset")
    assert first.positive == f"that {shared}", "what is asked next is asked of the known class"


@pytest.mark.parametrize(
    ("part", "field", "in_files"),
    [
        ("class_name", "class_name", "'class'"),
        ("positive", "positive_attributes", "'pos_attrs'"),
        ("negative", "negative_attributes", "'neg_attrs'"),
    ],
)
def test_a_query_without_what_it_is_to_give_is_refused(part: Any, field: str, in_files: str) -> None:
    with pytest.raises(QueryError, match=rf"query 'q': the method takes {field} .* \({in_files} in a file"):
        reason(ARTIFACTS, [SAID, Q], "negative", given=(part,))
    assert reason(ARTIFACTS, [Q], "none", given=(part,)) == [Reasoning()]
