"""Say what a corpus and its models take, step by step, from what was measured.

Every line shows its arithmetic, so that a reader can put other figures in.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from cluster import measured as m
from cluster.options import CommandSettings

GIB = 2**30
VECTOR_BYTES, STATE_BYTES, TOKEN_BYTES = 4, 2, 4
"""Bytes of a number in an entity's vector (float32), in frozen states (bfloat16), and of a token (int32)."""

PARAMETER_BYTES = 16
"""Of a parameter in training: weights and gradients in bfloat16, and in float32 a copy and Adam's two
moments."""


class SizeSettings(CommandSettings):
    """The settings of the command."""

    entities: float = Field(ge=1, description="Entities of the vocabulary.")
    sentences: float = Field(ge=1, description="Sentences of the corpus.")
    images: float = Field(default=0, ge=0, description="Images, one a sentence at most.")
    patches: int = Field(default=50, ge=1, description="Keep this many patch features of each image.")
    image_dimensions: int = Field(default=768, ge=1, description="Dimensions of a patch feature.")
    tokens: float = Field(default=m.TOKENS.value, gt=0, description="Tokens of a sentence, on average.")
    layers: int = Field(default=m.ENCODER_LAYERS, ge=1, description="Layers of the encoder.")
    dimensions: int = Field(default=m.ENCODER_DIMENSIONS, ge=1, description="Dimensions of the encoder.")
    epochs: float = Field(default=12, gt=0, description="Epochs of the encoder's training.")
    views: int = Field(default=3, ge=1, description="Views of an entity: matrices of vectors in the bundle.")
    queries: float = Field(default=0, ge=0, description="Queries to expand in one batch.")
    language_model_parameters: float = Field(
        default=0,
        ge=0,
        description="Parameters of a language model that is trained and served.  [default: none]",
    )
    hours: float = Field(default=8, gt=0, description="From the corpus to a published bundle, and the batch.")
    node_cores: int = Field(default=8, ge=1, description="Cores of a node.")
    node_memory_gib: float = Field(default=32, gt=0, description="Memory of a node.")
    node_disk_gib: float = Field(default=200, gt=0, description="Disk of a node that Ray may use.")
    gpu_memory_gib: float = Field(default=80, gt=0, description="Memory of a GPU.")
    gpu_teraflops: float = Field(
        default=0,
        ge=0,
        description="Train the language model on GPUs that each keep up this many; assumed, not measured."
        "  [default: on cores]",
    )
    efficiency: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Share of a core's rate that is left where many nodes work; assumed.",
    )


class Line(NamedTuple):
    """One line of the plan.

    Args:
        what: it is of.
        arithmetic: that gives the value.
        value: in ``unit``.
        unit: of the value.
    """

    what: str
    arithmetic: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.what}: {self.arithmetic} = {short(self.value)} {self.unit}"


def short(value: float) -> str:
    """Return a number as people write it: whole ones with commas, small ones with three figures."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def tokens_of(settings: SizeSettings) -> str:
    """Return the tokens of the corpus, as the lines show them."""
    return f"{settings.sentences * settings.tokens:.3g}"


def encoder_factor(settings: SizeSettings) -> float:
    """Return a layer stack's products over the embedded encoder's: by layers and dimensions squared."""
    own = m.ENCODER_LAYERS * m.ENCODER_DIMENSIONS**2
    return settings.layers * settings.dimensions**2 / own


def core_hours(settings: SizeSettings) -> list[Line]:
    """Return the work that is spread over cores, in core-hours."""
    s, tokens, factor = settings.sentences, settings.tokens / m.TOKENS.value, encoder_factor(settings)
    layer = (settings.dimensions / m.ENCODER_DIMENSIONS) ** 2
    n, cores = short(s), m.CORES
    frozen, trained = m.FROZEN_LAYERS.value, m.TRAINING.value
    lines = [
        Line(
            "frozen layers of the encoder, once",
            f"{n} sentences x {tokens:.3g} (length) x {factor:.3g} (encoder) / ({frozen:g}/s / {cores} "
            "cores)",
            s * tokens * factor / (frozen / cores) / 3600,
            "core-hours",
        ),
        Line(
            "training of its last layer",
            f"{n} sentences x {settings.epochs:g} epochs x {layer:.3g} (dimensions) / ({trained:g}/s / "
            f"{cores} cores)",
            s * settings.epochs * layer / (trained / cores) / 3600,
            "core-hours",
        ),
        Line(
            "vectors of the entities, taken as one more epoch",
            f"{n} sentences x {layer:.3g} (dimensions) / ({trained:g}/s / {cores} cores)",
            s * layer / (trained / cores) / 3600,
            "core-hours",
        ),
    ]
    if settings.queries:
        lines.append(_batch(settings))
    if settings.language_model_parameters and not settings.gpu_teraflops:
        rate = flops_a_core()
        lines.append(
            Line(
                "language model, one pass over the corpus",
                f"6 x {settings.language_model_parameters:.3g} parameters x {tokens_of(settings)} tokens "
                f"/ {rate:.3g} operations/s of a core",
                lm_operations(settings) / rate / 3600,
                "core-hours",
            )
        )
    return lines


def _batch(settings: SizeSettings) -> Line:
    queries = short(settings.queries)
    if not settings.language_model_parameters:
        return Line(
            "batch of `retexpan`",
            f"{queries} queries x {m.QUERY.value:g} s x {m.CORES} cores",
            settings.queries * m.QUERY.value * m.CORES / 3600,
            "core-hours",
        )
    ratio = settings.language_model_parameters / m.SERVED_PARAMETERS
    return Line(
        "batch with a language model",
        f"{queries} queries x {m.GENERATION.value:g} s x {m.CORES} cores x {ratio:.3g} (parameters)",
        settings.queries * m.GENERATION.value * m.CORES * ratio / 3600,
        "core-hours",
    )


def lm_operations(settings: SizeSettings) -> float:
    """Return the operations of one pass of a language model's training: six a parameter and token."""
    return 6 * settings.language_model_parameters * settings.sentences * settings.tokens


def flops_a_core() -> float:
    """Return the operations in a second that a core kept up in the training that was measured."""
    return 6 * m.LM_TRAINING_PARAMETERS * m.LM_TRAINING.value / m.CORES


def serial_hours(settings: SizeSettings) -> Line:
    """Return what one process does alone."""
    rate = m.IMPORT.value
    return Line(
        "import, one process",
        f"{short(settings.sentences)} sentences / {short(rate)}/s",
        settings.sentences / rate / 3600,
        "hours",
    )


def _grown(line: m.MemoryLine, settings: SizeSettings) -> str:
    """Return the arithmetic of a process' memory."""
    terms = [f"{line.base} MiB ({line.role})"]
    of_corpus = (
        (line.a_sentence, settings.sentences, m.MEMORY_SENTENCES[0], "sentences"),
        (line.an_entity, settings.entities, m.MEMORY_ENTITIES[0], "entities"),
    )
    for slope, number, measured, what in of_corpus:
        if slope and number > measured:
            terms.append(f"{slope:.3g} bytes x ({short(number)} - {measured:,}) {what}")
    if head := line.head_bytes(settings.dimensions):
        terms.append(f"{head:.0f} bytes x {short(settings.entities)} entities (head)")
    return " + ".join(terms)


def memory(settings: SizeSettings) -> list[Line]:
    """Return the memory that a process or a node must have, in GiB."""
    lines = []
    size = settings.sentences, settings.entities, settings.dimensions
    for step in m.MEMORY:
        found = m.largest_at(step, *size)
        lines.append(
            Line(f"largest process of {step}", _grown(found, settings), found.at(*size) / 1024, "GiB")
        )
    lines.append(
        Line(
            "vectors, on each node that searches",
            f"{short(settings.entities)} entities x {settings.dimensions} x {VECTOR_BYTES} bytes x "
            f"{settings.views} views",
            settings.entities * settings.dimensions * VECTOR_BYTES * settings.views / GIB,
            "GiB",
        )
    )
    if settings.language_model_parameters:
        parameters = settings.language_model_parameters
        lines += [
            Line(
                "names of the entities for generation",
                f"{short(settings.entities)} x {m.TRIE.value:g} bytes",
                settings.entities * m.TRIE.value / GIB,
                "GiB",
            ),
            Line(
                "language model, served",
                f"{parameters:.3g} parameters x 2 bytes",
                parameters * 2 / GIB,
                "GiB",
            ),
            Line(
                "language model in training, of all workers together (ZeRO-3, without activations)",
                f"{parameters:.3g} parameters x {PARAMETER_BYTES} bytes",
                parameters * PARAMETER_BYTES / GIB,
                "GiB",
            ),
        ]
    return lines


def disk(settings: SizeSettings) -> list[Line]:
    """Return what the workspace grows by, in GiB."""
    s = short(settings.sentences)
    lines = [
        Line(
            "model input",
            f"{s} sentences x {settings.tokens:g} tokens x {TOKEN_BYTES} bytes",
            settings.sentences * settings.tokens * TOKEN_BYTES / GIB,
            "GiB",
        ),
        Line(
            "frozen states, until training ends",
            f"{s} sentences x {settings.tokens:g} tokens x {settings.dimensions} x {STATE_BYTES} bytes",
            settings.sentences * settings.tokens * settings.dimensions * STATE_BYTES / GIB,
            "GiB",
        ),
        Line(
            "vectors, in each bundle that is kept",
            f"{short(settings.entities)} entities x {settings.dimensions} x {VECTOR_BYTES} bytes x "
            f"{settings.views} views",
            settings.entities * settings.dimensions * VECTOR_BYTES * settings.views / GIB,
            "GiB",
        ),
    ]
    if settings.images:
        lines.append(
            Line(
                "patch features",
                f"{short(settings.images)} images x {settings.patches} x {settings.image_dimensions} x "
                f"{STATE_BYTES} bytes",
                settings.images * settings.patches * settings.image_dimensions * STATE_BYTES / GIB,
                "GiB",
            )
        )
    return lines
