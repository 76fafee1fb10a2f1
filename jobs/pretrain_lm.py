"""Train a causal language model further on the corpus, and publish it with the trie of all names.

Ray Data packs the sentences into blocks, Ray Train starts the workers, DeepSpeed takes the steps. A run
that was stopped goes on from its last checkpoint, also on another number of workers or ZeRO stage.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from cluster.session import session
from engine.corpus.blocks.format import BlockSettings
from engine.corpus.schema import read_manifest
from engine.errors import UserError
from engine.generation.names import name_trie
from engine.generation.tokenizers import fingerprint, load_tokenizer
from engine.storage.bundle import Bundle, Manifest, derive
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.lm import Layout, LmSettings, named_settings
from engine.training.lm_models import Origin, check, config_of, read_config
from engine.vocabulary import Vocabulary
from jobs import console
from jobs.steps.lm_blocks import corpus_tokenizer, make_blocks, neighbours_of
from jobs.workers.lm import LmRun
from jobs.workers.trainer import check_gpu, cores_of_a_worker, train_or_load_summary

EXAMPLES = """
  python -m jobs.pretrain_lm --workspace work --init-from-config small
  python -m jobs.pretrain_lm --workspace work --model gpt2
  python -m jobs.pretrain_lm --workspace work --model gpt2 --epochs 0
  python -m jobs.pretrain_lm --workspace s3://bucket/work --model NousResearch/Llama-2-7b-hf --gpu
      --workers 6 --zero-stage 2 --batch-size 192 --micro-batch 4 --activation-checkpointing
"""

CORPUS = "corpus"
"""The tokenizer's name that stands for one trained on the corpus."""

FROM_SCRATCH = {"epochs": 3, "learning_rate": 1.5e-3, "weight_decay": 0.1, "beta2": 0.95}
"""Settings of a new model where none are given; those of an existing one are the paper's."""


@dataclass(frozen=True)
class Start:
    """What a run begins with: the model, its tokenizer (a name that every node can read), and the texts."""

    origin: Origin
    tokenizer: str
    blocks: BlockSettings


def start(
    workspace: Workspace,
    model: str | None,
    config: str | None,
    tokenizer: str | None,
    vocab_size: int,
    texts: BlockSettings,
) -> Start:
    """Open tokenizer and configuration, and check that they fit each other and the blocks.

    Args:
        workspace: with a corpus.
        model: an existing model, or None.
        config: a preset or a file, for a new model.
        tokenizer: :data:`CORPUS`, a name, or None: the model's own, or the corpus' for a new one.
        vocab_size: of a tokenizer trained on the corpus.
        texts: size of the blocks and choice of the texts; the tokenizer is filled in.

    Raises:
        UserError: not exactly one of model and config, or what is given does not fit together.
    """
    if (model is None) == (config is None):
        raise UserError("give either --model (train it further) or --init-from-config (begin a new one)")
    read_manifest(workspace)  # no corpus: say so before anything is trained or fetched
    name = tokenizer or model or CORPUS
    if name == CORPUS:
        name = corpus_tokenizer(workspace, vocab_size, texts)
    loaded = load_tokenizer(name, "--tokenizer" if tokenizer else "--model")
    origin = Origin(name=model) if model else read_config(str(config), loaded)
    check(config_of(origin), origin.name, loaded, texts.block)
    filled = {"tokenizer": fingerprint(loaded), "vocab_size": len(loaded)}
    return Start(origin, name, texts.model_copy(update=filled))


def pretrain(
    workspace: Workspace,
    begin: Start,
    settings: LmSettings,
    layout: Layout | None = None,
    workers: int = 1,
    gpu: bool = False,
    restart: bool = False,
    checkpoint_seconds: float = 60,
) -> tuple[dict[str, Any], Manifest]:
    """Train on a workspace's corpus; return the run's summary and the manifest of the published bundle.

    Args:
        workspace: with a corpus; receives ``runs/pretrain_lm/<name>`` and a bundle.
        begin: from :func:`start`.
        settings: of the run; they, the blocks and the model make its name.
        layout: how it is spread; like ``workers`` and ``gpu`` it may change when a run goes on.
        workers: training processes.
        gpu: one GPU a worker and NCCL; else gloo on the CPU.
        restart: forget the checkpoints of a run with the same name.
        checkpoint_seconds: time between checkpoints; one more is made at the end.
    """
    with session():
        check_gpu(gpu)
        blocks = make_blocks(workspace, begin.tokenizer, begin.blocks)
        if settings.epochs and not blocks.manifest.total("blocks"):
            raise UserError(f"{workspace.corpus.uri}: the corpus has no sentence to train on")
        run = LmRun(
            workspace=workspace.root.uri,
            name=_name(begin, blocks.key, settings),
            origin=begin.origin,
            tokenizer=begin.tokenizer,
            blocks=blocks,
            settings=settings,
            layout=layout or Layout(),
            gpu=gpu,
            cores=cores_of_a_worker(workers),
            checkpoint_seconds=checkpoint_seconds,
        )
        summary = train_or_load_summary(run, workers, restart)
    return summary, publish_model(workspace, run.folder / run.artifact, summary)


def _name(begin: Start, blocks_key: str, settings: LmSettings) -> str:
    content = named_settings(settings) + blocks_key + begin.origin.model_dump_json()
    return f"{blocks_key}-e{settings.epochs}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def publish_model(workspace: Workspace, model: Store, summary: dict[str, Any]) -> Manifest:
    """Publish a bundle with a trained model and the trie of all names, beside what the current one holds."""
    staged = workspace.bundles.staging()
    entities = workspace.entities.fetch(staged / "entities.parquet")
    for file in model.files():
        _copy(file, staged / "lm" / file.name)
    names = Vocabulary.read(entities).names
    console.say(f"trie of {len(names)} names")
    name_trie(load_tokenizer(staged / "lm"), names).save(staged / "trie")
    told = ("run", "model", "tokenizer", "perplexity_before", "perplexity_after")
    settings = {"lm": {key: summary[key] for key in told}}
    manifest, left_out = derive(workspace, staged, settings, replaces=["lm/", "trie/"])
    if left_out:
        console.say(left_out)
    return manifest


def _copy(file: Store, target: Path) -> None:
    """Bring a file of a run into a staged bundle; locally by a link: a finished run is not written to."""
    if not file.is_local:
        file.fetch(target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.path, target)
    except OSError:
        shutil.copyfile(file.path, target)


def main(
    workspace: str = typer.Option(..., help="Folder or s3:// prefix with an imported corpus."),
    model: str | None = typer.Option(None, help="Model to train further: a folder or a hub name."),
    init_from_config: str | None = typer.Option(
        None, help="Begin a new model: tiny (1.8M parameters), small (7M), or a config.json."
    ),
    tokenizer: str | None = typer.Option(
        None,
        help='"corpus" (trained on it), a folder, a hub name.  [default: the model\'s; corpus if new]',
    ),
    vocab_size: int = typer.Option(8192, help="Tokens of a tokenizer trained on the corpus."),
    block: int = typer.Option(256, min=8, help="Tokens of a block."),
    descriptions: bool = typer.Option(True, help="Read each entity's description before its sentences."),
    lists: int = typer.Option(
        0, min=0, help="Lists of neighbours an entity, from the bundle's index, read beside the corpus."
    ),
    held_out: float = typer.Option(
        0.01, min=0, max=0.5, help="Share of the sentences kept for the perplexity (2,000 at most)."
    ),
    epochs: int | None = typer.Option(
        None, min=0, help="Passes over the corpus; 0 publishes the model as it is.  [default: 1; 3 if new]"
    ),
    batch_size: int = typer.Option(16, min=1, help="Blocks a step, over all workers."),
    learning_rate: float | None = typer.Option(None, help="Peak.  [default: 1e-5; 1.5e-3 if new]"),
    weight_decay: float | None = typer.Option(None, min=0, help="[default: 1e-4; 0.1 if new]"),
    clip: float = typer.Option(1.0, help="Largest norm of the gradient."),
    warmup: float = typer.Option(0.03, min=0, help="Steps of the linear rise; below 1 a share of the run."),
    seed: int = typer.Option(13, min=0, help="Of a new model's weights, the order and the held-out draw."),
    precision: Literal["auto", "float32", "bfloat16"] = typer.Option(
        "auto", help="Of the products; auto: bfloat16 where the hardware is fast in it."
    ),
    workers: int = typer.Option(1, min=1, help="Training processes."),
    gpu: bool = typer.Option(False, "--gpu", help="One GPU a worker (NCCL)."),
    micro_batch: int | None = typer.Option(
        None, min=1, help="Blocks of a worker that pass at once.  [default: all of its share]"
    ),
    zero_stage: int = typer.Option(1, min=1, max=3, help="ZeRO: 1 optimiser, 2 gradients, 3 weights shared."),
    offload: bool = typer.Option(False, "--offload", help="Optimiser (at stage 3 weights too) on the host."),
    activation_checkpointing: bool = typer.Option(
        False, "--activation-checkpointing", help="Less memory, a third more work."
    ),
    checkpoint_seconds: float = typer.Option(60, min=0, help="Time between checkpoints."),
    restart: bool = typer.Option(False, "--restart", help="Begin again, forget the checkpoints."),
) -> None:
    """Train a causal language model on the corpus and publish it with the trie of all names.

    Writes runs/pretrain_lm/RUN: the model (lm/), checkpoints, summary.json, TensorBoard events, and a
    bundle that holds what the current one does besides. The same settings again go on where they were.
    """
    given = {"epochs": epochs, "learning_rate": learning_rate, "weight_decay": weight_decay}
    chosen = {k: v for k, v in given.items() if v is not None}
    fixed = {"batch_size": batch_size, "clip": clip, "warmup": warmup, "precision": precision, "seed": seed}
    settings = LmSettings.model_validate((FROM_SCRATCH if init_from_config else {}) | chosen | fixed)
    layout = Layout.model_validate(
        {
            "zero_stage": zero_stage,
            "micro_batch": micro_batch,
            "offload": offload,
            "activation_checkpointing": activation_checkpointing,
        }
    )
    started = time.monotonic()
    place = Workspace.open(workspace)
    texts = BlockSettings(
        tokenizer="",
        vocab_size=vocab_size,
        block=block,
        descriptions=descriptions,
        held_out=held_out,
        lists=lists,
        neighbours=neighbours_of(Bundle.open(place)) if lists else "",
        seed=seed,
    )
    begin = start(place, model, init_from_config, tokenizer, vocab_size, texts)
    summary, manifest = pretrain(place, begin, settings, layout, workers, gpu, restart, checkpoint_seconds)
    console.result(
        run=summary["run"],
        bundle=manifest.id,
        steps=summary["steps"],
        blocks=summary["blocks"],
        tokens=summary["tokens"],
        perplexity_before=f"{summary['perplexity_before']:.2f}",
        perplexity_after=f"{summary['perplexity_after']:.2f}",
        tokens_per_second=summary["tokens_per_second"],
        peak_memory_mib=max(summary["peak_memory_mib"].values()),
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
