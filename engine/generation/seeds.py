"""Write the seeds of a query for a language model, whether the vocabulary holds them or not."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from engine.query import Query

NO_DESCRIPTION = "no positive seed has a description, so that the prompts hold none of theirs"
"""What an answer notes of a query whose seeds bring no description where these were asked for."""


def targets(query: Query, seeds: Sequence[int]) -> list[int | str]:
    """Return seeds as :class:`engine.generation.likelihood.Likelihood` takes them: a new one by its name."""
    return [query.new[-1 - i].name if i < 0 else i for i in seeds]


def descriptions_of(seeds: Sequence[int], description: Callable[[int], str]) -> list[str]:
    """Return the descriptions of seeds, given those of the vocabulary by id; "" for a new one."""
    return ["" if i < 0 else description(i) for i in seeds]


def described(query: Query, description: Callable[[int], str]) -> bool:
    """Return whether any positive seed has a description, given those of the vocabulary by id."""
    return any(descriptions_of(query.positive, description))


def query_rng(seed: int, query: Query, seeds: Sequence[int]) -> np.random.Generator:
    """Return a generator of random numbers that depends on a number and some seeds alone."""
    own = [zlib.crc32(i.encode()) if isinstance(i, str) else i for i in targets(query, seeds)]
    return np.random.default_rng([seed, *own])
