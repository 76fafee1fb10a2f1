"""Hold what was measured as numbers to plan with: those of docs/performance.md, which says against what.

A test finds the words of each figure there: who measures anew changes both.
"""

from __future__ import annotations

from typing import NamedTuple


class Measured(NamedTuple):
    """A figure.

    Args:
        value: in the unit.
        unit: of the value.
        words: by which docs/performance.md tells it, as text without line breaks.
    """

    value: float
    unit: str
    words: str


CORES = 2
"""Of the machine: rates are of all of them together where nothing else is said."""

IMPORT = Measured(
    394_097 / 4.5, "sentences/s, one process", "importing 394,097 sentences of 50,973 entities | 4.5 s"
)
FROZEN_LAYERS = Measured(570, "sentences/s", "filling that cache, once | 570–700 sentences/s")
TRAINING = Measured(
    9_900, "sentences/s", "a training step on cached states | 9,900 sentences/s (MiniLM, 34 tokens)"
)
TOKENS = Measured(34, "tokens a sentence", "(MiniLM, 34 tokens)")
WHOLE_RUN = Measured(5.6 * 60, "s", "wikispeedia, from corpus to published bundle | 5.6 minutes")

MEMORY_SIZES = (200_000, 400_000)
"""Sentences at which :data:`MEMORY` was measured."""
MEMORY_WORDS = "memory of the largest process at 200,000 / 400,000 sentences"
MEMORY = {
    "import": (128, 164),
    "preprocess": (363, 371),
    "train-encoder": (706, 753),
    "build-index": (546, 692),
}
"""MiB of the largest process of a step at each of these sizes, with an encoder of 16 dimensions."""

LM_TRAINING = Measured(
    6_950, "tokens/s", "pre-training a LLaMA of 6.8M parameters, 4,096 tokens a step | 6,950 tokens/s"
)
LM_TRAINING_PARAMETERS = 6.8e6

QUERY = Measured(0.013, "s", "`retexpan` 13 ms")
RERANK_RATE = Measured(3.0, "queries/s", "16 clients of `retexpan+lm-rerank` | 3.0 queries/s")
ALONE = Measured(0.38, "s", "`retexpan+lm-rerank` 0.38 s (LLaMA of 24M parameters, 1,000 candidates)")
OVERLOADED_P99 = Measured(0.77, "s", "accepted: 99th percentile 0.77 s (`retexpan+lm-rerank`)")
GENERATION = Measured(0.55, "s", "a whole query, 8 rounds with scoring and re-ranking | 0.55 s")
SERVED_PARAMETERS = 24e6
"""Parameters of the language model in the figures of queries ("LLaMA of 24M parameters")."""

TRIE = Measured(53, "bytes a name", "built in 0.03 / 0.8 s, 53 / 49 bytes a name")

# The embedded encoder's shape, which the figures of sentences are of.
ENCODER_LAYERS, ENCODER_DIMENSIONS = 6, 384


def memory_at(step: str, sentences: float) -> float:
    """Return the MiB of a step's largest process, on the straight line through what was measured."""
    (low, high), (first, second) = MEMORY_SIZES, MEMORY[step]
    return max(first, first + (second - first) * (sentences - low) / (high - low))
