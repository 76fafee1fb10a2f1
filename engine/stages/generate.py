"""Generation: the language model lists more of the same kind (GenExpan, section 5.2.1)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engine.generation.prompts import Depth
from engine.query import Expansion
from engine.stages.base import Stage, Worker
from engine.storage.bundle import Bundle

LM_FILES = ("lm", "trie")
"""A bundle's folders with the language model and the trie of all names."""


class Generate(Stage):
    """Grow a list by rounds of constrained beam search, and rank it by its likeness to the positive seeds.

    After a stage that recalled candidates only these can be generated; as the first stage, every name of an
    entity that fulfils the query's conditions. Scores are the mean likelihood of the positive seeds after
    "{e} is similar to" (equation 8). After the query's deadline no round begins: the list is what it is
    then, or, if there was no round at all, what was recalled before.
    """

    k: int = Field(default=200, ge=1)
    beams: int = Field(default=40, ge=1)
    top_p: float = Field(default=0.7, gt=0, le=1)
    patience: int = Field(default=20, ge=1)
    max_rounds: int = Field(default=200, ge=1)
    normalise: Literal["allowed", "vocabulary"] = "allowed"
    reason: Depth = "none"
    descriptions: bool = False
    unwanted: bool = False
    constrained: bool = True
    seed: int = Field(default=13, ge=0)
    at_once: int = Field(default=8, ge=1)

    unit: ClassVar[str] = "beams"
    budget: ClassVar[int] = 320  # those of ``at_once`` queries, as both are by default

    def cost(self, expansion: Expansion) -> int:
        """Return how many beams search for a query."""
        return self.beams

    def needs(self) -> tuple[str, ...]:
        """Name the language model and the trie."""
        return LM_FILES

    def open(self, bundle: Bundle) -> Worker:
        """Load the language model and the trie."""
        from engine.stages.generator import Generator

        return Generator.open(self, bundle)
