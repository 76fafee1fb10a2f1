"""Train a causal language model further on the corpus, and publish it with the trie of all names.

Ray Data packs the sentences into blocks, Ray Train starts the workers, DeepSpeed takes the steps. A run
that was stopped goes on from its last checkpoint, also on another number of workers or ZeRO stage.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import RUN, CommandSettings, Former, Group
from engine.corpus.blocks.settings import BlockSettings
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.layout import Layout
from engine.training.settings import LORA_RATE, LmSettings, rate_by_size
from jobs import console
from jobs.settings import CORPUS, DATA, MODEL, TRAINING, TrainingProcesses, presets

if TYPE_CHECKING:
    from engine.training.lm_models import Origin

EXAMPLES = """
  seedset pretrain-lm --workspace demo-workspace/workspace --init-from-config tiny --vocab-size 2048
  seedset pretrain-lm --workspace work --init-from-config small --neighbor-lists 40
  seedset pretrain-lm --workspace work --init-from-config small --neighbor-lists 40 --neighbor-view joint
  seedset pretrain-lm --workspace work --model smollm2 --neighbor-lists 20
  seedset pretrain-lm --workspace work --model gpt2 --lora --lora-rank 8 --keep-adapter
  seedset pretrain-lm --workspace work --model gpt2 --epochs 0
  seedset pretrain-lm --workspace work --model NousResearch/Llama-2-7b-hf --gpu --workers 8 --zero-stage 3 \\
      --weights bfloat16 --plan
  ray job submit --working-dir . -- python -m jobs.pretrain_lm --workspace s3://bucket/work \\
      --model NousResearch/Llama-2-7b-hf --gpu --workers 6 --zero-stage 2 --batch-size 192 --micro-batch 4 \\
      --activation-checkpointing
"""


FROM_SCRATCH = LmSettings(epochs=3, learning_rate=1.5e-3, weight_decay=0.1, beta2=0.95)
"""Settings of a new model where none are given; those of an existing one are the paper's but for the rate."""

TRAINING_ALONE = (
    *("learning_rate", "weight_decay", "beta2", "clip", "warmup", "activation_checkpointing"),
    *("neighbor_lists", "checkpoint_seconds", "checkpoint_share"),
)
"""Options that do nothing where no step is taken; how blocks are spread counts for the perplexity, too."""


LORA_ALONE = ("lora_rank", "lora_alpha", "lora_targets", "quantize", "keep_adapter")
"""Options of adapters."""


class PretrainLmSettings(CommandSettings):
    """The settings of the command: which model, which texts, and how it is trained."""

    workspace: str = Field(description="Folder or s3:// prefix with an imported corpus.")
    model: str | None = Field(default=None, description="Train this model further: a folder or a hub name.")
    init_from_config: str | None = Field(
        default=None,
        description="Begin a new model: tiny (1.8M parameters), small (7M), or that of a config.json.",
    )
    tokenizer: str | None = Field(
        default=None,
        description='Use this tokenizer: a folder, a hub name, or "corpus" for one trained on it.  [default: '
        "the model's; corpus if new]",
    )
    texts: Annotated[BlockSettings, Group(without=["tokenizer", "neighbours"])] = BlockSettings(
        tokenizer="", vocab_size=8192
    )
    further: Annotated[LmSettings, Group(without=["learning_rate"])] = LmSettings()
    new: Annotated[LmSettings, Group(label="if new", without=["learning_rate"])] = FROM_SCRATCH
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Let the schedule peak at this learning rate.  [default: by the model's size: 2e-4 up to "
        "135M parameters, 1e-5 (the paper's) from 6.7B, between them 4.3e-5 at 1B; with --lora 2e-4; if new "
        "0.0015]",
    )
    processes: TrainingProcesses = TrainingProcesses()
    layout: Layout = Layout()
    checkpoint_seconds: float = Field(
        default=60, ge=0, description="Write a checkpoint after this many seconds."
    )
    checkpoint_share: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Write checkpoints less often where writing them would take more than this share of the "
        "time.",
    )
    restart: bool = Field(default=False, description="Begin again, and forget the checkpoints.")
    plan: bool = Field(
        default=False,
        description="Show the memory of each worker and the size of a checkpoint; train nothing.",
    )

    def unused(self) -> dict[str, str]:
        """Return the options that the texts asked for do without, and why."""
        found = {} if self.texts.neighbor_lists else {"neighbor_view": "without --neighbor-lists"}
        if (self.tokenizer or self.model or CORPUS) != CORPUS:
            found["vocab_size"] = "with a tokenizer that is there"
        if not (self.new if self.init_from_config else self.further).lora:
            found |= dict.fromkeys(LORA_ALONE, "without --lora")
        if not (self.new if self.init_from_config else self.further).epochs:
            found |= dict.fromkeys(TRAINING_ALONE, "with --epochs 0, which trains nothing")
        return found

    def training(self, parameters: int) -> LmSettings:
        """Return the settings of the training that was asked for, of a model of so many parameters."""
        chosen, rate = (self.new if self.init_from_config else self.further), self.learning_rate
        if rate is None:
            known = LORA_RATE if chosen.lora else rate_by_size(parameters)
            rate = chosen.learning_rate if self.init_from_config else known
        return chosen.model_copy(update={"learning_rate": rate})


@command(
    EXAMPLES,
    headings={
        "init_from_config": MODEL,
        "model": MODEL,
        "tokenizer": MODEL,
        "texts": DATA,
        "texts.seed": TRAINING,
        "further": TRAINING,
        "learning_rate": TRAINING,
        "layout": RUN,
    },
    former={"lists": Former("neighbor_lists")},
    presets=presets("pretrain-lm"),
    writes=Writes("pretrain-lm", unless="plan"),
)
def main(settings: PretrainLmSettings) -> None:
    """Train a causal language model on the corpus and publish it with the trie of all names.

    Writes runs/pretrain_lm/RUN: the model (lm/), checkpoints, summary.json, TensorBoard events, and a
    bundle that holds what the current one does besides. The same settings again go on where they were.
    """
    if settings.plan:
        show_plan(settings)
        return
    from jobs.steps.lm_blocks import neighbours_of
    from jobs.steps.lm_pretraining import pretrain, start

    started = time.monotonic()
    place, texts = Workspace.open(settings.workspace), settings.texts
    if texts.neighbor_lists:
        checksum = neighbours_of(Bundle.open(place), texts.neighbor_view)
        texts = texts.model_copy(update={"neighbours": checksum})
    chosen = settings.model, settings.init_from_config, settings.tokenizer
    begin = start(place, *chosen, texts.vocab_size, texts)
    training = _chosen(settings, begin.origin)
    summary, manifest = pretrain(
        place,
        begin,
        training,
        settings.layout,
        settings.processes.workers,
        settings.processes.gpu,
        settings.restart,
        settings.checkpoint_seconds,
        settings.checkpoint_share,
    )
    console.result(
        run=summary["run"],
        bundle=manifest.id,
        steps=summary["steps"],
        blocks=summary["blocks"],
        tokens=summary["tokens"],
        held_out_blocks=_heldout(summary),
        perplexity_before=f"{summary['perplexity_before']:.2f}",
        perplexity_after=f"{summary['perplexity_after']:.2f}",
        tokens_per_second=summary["tokens_per_second"],
        peak_memory_mib=max(summary["peak_memory_mib"].values()),
        seconds=f"{time.monotonic() - started:.1f}",
    )


def _chosen(settings: PretrainLmSettings, origin: Origin) -> LmSettings:
    """Return the settings of the training of a model, after a word on what learns and its checkpoints."""
    from engine.training.lm_models import config_of, parameters_of, trained_of
    from jobs.steps.lm_plan import checkpoint_in_words

    config = config_of(origin)
    parameters = parameters_of(config)
    training = settings.training(parameters)
    trained = trained_of(config, training, f"the model {origin.name!r}")
    if training.epochs:
        learns = f", of which {trained / 1e6:,.2f}M learn" if trained != parameters else ""
        console.say(f"{parameters / 1e6:,.1f}M parameters{learns}, learning rate {training.learning_rate:g}")
        console.say(checkpoint_in_words(trained, settings.checkpoint_seconds, settings.checkpoint_share))
    return training


def show_plan(settings: PretrainLmSettings) -> None:
    """Show what a run with these settings would take."""
    from rich.console import Console

    from engine.training.lm_models import config_of, packed_of, shape_of, trained_of
    from engine.training.memory import GB, checkpoint_bytes
    from jobs.steps.lm_plan import HEADER, checkpoint_in_words, plan_rows, planned_model

    origin = planned_model(settings.model, settings.init_from_config, settings.texts.vocab_size)
    config = config_of(origin)
    shape, name = shape_of(config), origin.name
    training, layout, workers = (
        settings.training(shape.parameters),
        settings.layout,
        settings.processes.workers,
    )
    share = -(-training.batch_size // workers)
    rows = min(layout.micro_batch or share, share)
    narrow = training.precision == "bfloat16" or (training.precision == "auto" and settings.processes.gpu)
    trained = trained_of(config, training, f"the model {name!r}")
    packed = packed_of(config, training)
    memory, shown = plan_rows(
        name, shape, trained, layout, workers, rows, settings.texts.block, narrow, packed
    )
    title = f"{workers} workers, {rows} blocks of {settings.texts.block} tokens at once"
    Console().print(console.table(title, HEADER, shown, texts=2))
    console.say(checkpoint_in_words(trained, settings.checkpoint_seconds, settings.checkpoint_share))
    console.result(
        parameters=shape.parameters,
        card_gb=f"{memory.card / GB:.2f}",
        host_gb=f"{memory.offloaded / GB:.2f}",
        disk_gb=f"{memory.disk / GB:.2f}",
        trained=trained,
        checkpoint_gb=f"{checkpoint_bytes(trained) / GB:.2f}",
    )


def _heldout(summary: dict[str, Any]) -> str:
    """Return how many held-out blocks the perplexity is of, and of how many: ``64/215``."""
    measured = summary.get("held_out_blocks", "all")  # the run of a version that measured all of them
    return (
        f"{measured}/{summary['held_out_blocks_in_all']}" if "held_out_blocks_in_all" in summary else measured
    )


if __name__ == "__main__":
    main.run()
