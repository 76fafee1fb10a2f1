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

MEMORY_SENTENCES, MEMORY_ENTITIES = (150_000, 600_000), (4_000, 15_000)
"""Sizes of the three corpora of :data:`MEMORY`: the smallest, more sentences, more entities."""
MEMORY_DIMENSIONS = 16
"""Of the encoder then."""
HEAD_BYTES = 16
"""Of a number of the head in training: the weight, its gradient, and Adam's two moments, in float32."""
MEMORY_WORDS = (
    "memory of each process, of 150,000 sentences of 4,000 entities / of 600,000 of 4,000 / of 150,000 of "
    "15,000"
)
MEMORY: dict[str, dict[str, tuple[int, int, int | None]]] = {
    "import": {"command": (114, 152, 142)},
    "preprocess": {"command": (327, 335, 323), "worker": (366, 361, 371)},
    "train-encoder": {"command": (590, 627, 614), "worker": (495, 520, None)},
    "build-index": {"command": (535, 538, 639), "worker": (459, 471, 555)},
}
"""MiB of the largest process of a role, by step, in these corpora.

None: it holds nothing of an entity, and was not measured with more of them.
"""

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


class MemoryLine(NamedTuple):
    """What a role takes of memory in a step.

    Args:
        step, role: of the process.
        base: MiB in the smallest corpus.
        a_sentence, an_entity: bytes that one more takes; 0 where the larger corpus took less, by chance.
    """

    step: str
    role: str
    base: int
    a_sentence: float
    an_entity: float

    def at(self, sentences: float, entities: float, dimensions: float = MEMORY_DIMENSIONS) -> float:
        """Return the MiB at some size; of a training with the head of an encoder of so many dimensions."""
        more = self.a_sentence * max(0, sentences - MEMORY_SENTENCES[0])
        more += self.an_entity * max(0, entities - MEMORY_ENTITIES[0])
        return self.base + (more + self.head_bytes(dimensions) * entities) / 2**20

    def head_bytes(self, dimensions: float) -> float:
        """Return what the head adds of each entity, beside that of the encoder that was measured."""
        trains = (self.step, self.role) == ("train-encoder", "command")
        return HEAD_BYTES * max(0, dimensions - MEMORY_DIMENSIONS) if trains else 0


def memory_lines(step: str) -> list[MemoryLine]:
    """Return a step's lines, one a role."""
    found = []
    for role, (base, *more) in MEMORY[step].items():
        slopes = (
            0 if value is None else max(0, value - base) * 2**20 / (large - small)
            for value, (small, large) in zip(more, (MEMORY_SENTENCES, MEMORY_ENTITIES), strict=True)
        )
        found.append(MemoryLine(step, role, base, *slopes))
    return found


def largest_at(step: str, sentences: float, entities: float, dimensions: float) -> MemoryLine:
    """Return the line of the role that takes most in a step at some size."""
    return max(memory_lines(step), key=lambda line: line.at(sentences, entities, dimensions))
