"""Reason by chain of thought: the class of the seeds is named before the model lists more (section 5.2.2).

What is named comes from the model (greedy decoding, 20 tokens at most, to the end of the first line; in
our style, of the first sentence) or, part by part, from the query: the ground truth of the paper's table 8.
A class name may be found otherwise, too, such as by a typing model.
How attributes stand in Prompt_g is left open by the paper; here they follow the class name: "countries that
lie in Asia", or, given, "countries with continent Asia".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from engine.errors import QueryError
from engine.generation.artifacts import Artifacts
from engine.generation.model import LanguageModel
from engine.generation.prompts import CotLevel, Part, PromptStyle, attribute_prompt, class_prompt, parts_of
from engine.query import Attributes, Query

MAX_TOKENS = 20
MAX_CHARACTERS = 200
"""Of what the model says; what a query gives is not cut, and is refused where a prompt does not fit."""


@dataclass(frozen=True)
class Reasoning:
    """What the prompts of a query say of its entities; a part is empty where it is not asked for."""

    class_name: str = ""
    positive: str = ""
    """What the positive seeds share, as it follows the class name."""
    negative: str = ""
    """What the negative seeds share, likewise."""

    @property
    def text(self) -> str:
        """What the entities are called in a list prompt."""
        text = f"{self.class_name} {self.positive}".strip()
        return f"{text} and not ones {self.negative}" if self.negative else text

    def notes(self) -> Mapping[str, str]:
        """Return the parts that say something, by name, for the answer."""
        return {name: text for name, text in vars(self).items() if text}


def reason(
    artifacts: Artifacts,
    queries: Sequence[Query],
    level: CotLevel,
    style: PromptStyle = "paper",
    given: Collection[Part] = (),
    known_classes: Sequence[str] = (),
) -> list[Reasoning]:
    """Return what the prompts of each query say of its entities.

    Args:
        artifacts: the model and what belongs to it.
        queries: whose seeds are reasoned about.
        level: how deep.
        style: whose prompts.
        given: the parts that the query itself says, in place of the model.
        known_classes: class names that something else found, one a query; "": the model is to find it.

    Raises:
        QueryError: a query lacks a part that it is to give, or a prompt does not fit the model.
    """
    parts = parts_of(level)
    if not parts or not queries:
        return [Reasoning()] * len(queries)
    names, model = artifacts.names, artifacts.model
    positive = [q.seed_names(q.positive, names) for q in queries]
    if "class_name" in given:
        classes = [_wanted(q, q.class_name, "class_name", "class") for q in queries]
    else:
        classes = _classes(model, positive, known_classes or [""] * len(queries), style)
    shared = told = [""] * len(queries)
    if "positive" in parts:
        if "positive" in given:
            shared = [_given(q, q.positive_attributes, "positive_attributes", "pos_attrs") for q in queries]
        else:
            shared = _asked(model, positive, classes)
    if "negative" in parts:
        # A query without negative seeds has nothing to be told apart from, and need not say anything.
        if "negative" in given:
            told = [
                _given(q, q.negative_attributes, "negative_attributes", "neg_attrs") if q.negative else ""
                for q in queries
            ]
        else:
            told = _asked(model, [q.seed_names(q.negative, names) for q in queries], classes)
    return [Reasoning(*said) for said in zip(classes, shared, told, strict=True)]


def _classes(
    model: LanguageModel, seeds: Sequence[Sequence[str]], known: Sequence[str], style: PromptStyle
) -> list[str]:
    """Return the class name of each query's seeds: what is known, else what the model says."""
    unknown = [class_prompt(names, style) for names, name in zip(seeds, known, strict=True) if not name]
    said = iter(complete(model, unknown, style))
    return [name or next(said) for name in known]


def _asked(model: LanguageModel, seeds: Sequence[Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Return what the model says that some seeds have in common, as it follows their class name.

    Empty where there are no seeds. The prompt is ours, and so is where its answer ends.
    """
    texts = iter(
        complete(model, [attribute_prompt(s, c) for s, c in zip(seeds, classes, strict=True) if s], "seedset")
    )
    found = [next(texts) if names else "" for names in seeds]
    return [f"that {text}" if text else "" for text in found]


def _given(query: Query, attributes: Attributes, field: str, in_files: str) -> str:
    """Return given attributes as they follow a class name: "with continent Asia and language Thai or Lao"."""
    said = " and ".join(f"{name} {' or '.join(values)}" for name, values in attributes)
    return _wanted(query, f"with {said}" if said else "", field, in_files)


def _wanted(query: Query, text: str, field: str, in_files: str) -> str:
    """Return what a query gives, on one line, as prompts need it.

    Raises:
        QueryError: it gives nothing.
    """
    line = " ".join(text.split())
    if not line:
        raise QueryError(
            f"query {query.id!r}: the method takes {field} from the query, which has none; give {field} "
            f"({in_files!r} in a file of queries), or take a method that lets the model find it"
        )
    return line


def complete(model: LanguageModel, prompts: Sequence[str], style: PromptStyle = "paper") -> list[str]:
    """Return the likeliest continuation of each prompt, token by token, up to the end of its first line.

    In our style it ends with its first sentence, and without the full stop.

    Raises:
        QueryError: a prompt does not fit the model.
    """
    if not prompts:
        return []
    encoded = [model.encode(prompt) for prompt in prompts]
    model.check_length(max(map(len, encoded)) + MAX_TOKENS)
    state = model.prefill(encoded)
    rows = torch.arange(len(prompts), device=model.device)
    columns = []
    for _ in range(MAX_TOKENS):
        token_B = model.logits(state.hidden_BD).argmax(-1)
        columns.append(token_B.cpu())
        state = model.advance(state, rows, token_B)
    texts = model.tokenizer.batch_decode(torch.stack(columns, 1), skip_special_tokens=True)
    lines = [text.strip().split("\n")[0].strip() for text in texts]
    if style == "seedset":
        lines = [line.split(". ")[0].rstrip(". ") for line in lines]
    return [line[:MAX_CHARACTERS] for line in lines]
