"""Train a causal language model on a workspace's corpus, and publish it with the trie of all names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.corpus.blocks.settings import BlockSettings
from engine.errors import UserError
from engine.generation.names import ANOTHER, SHOWN, made_one, name_trie, shown
from engine.generation.tokenizers import fingerprint, load_tokenizer
from engine.models.fit import text_positions
from engine.storage.bundle import Manifest
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.layout import Layout
from engine.training.lm_models import Origin, check, config_of, existing, read_config
from engine.training.quantized import check_installed
from engine.training.settings import LmSettings, named_settings
from engine.vocabulary import Vocabulary
from jobs import console
from jobs.settings import CORPUS
from jobs.steps.lm_blocks import corpus_tokenizer, make_blocks
from jobs.steps.publishing import check_before_work, publish_beside
from jobs.steps.unknown_tokens import check_words, sampled_sentences
from jobs.workers.lm import LmRun
from jobs.workers.trainer import cluster_for, train_or_load_summary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLED_NAMES = 512
"""Names whose tokens are looked at besides sentences'."""


@dataclass(frozen=True)
class Start:
    """The inputs of a run: the model, its tokenizer (a name that every node can read), and the texts."""

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
    check_before_work(workspace, makes="language model")  # before anything is trained or fetched
    name = tokenizer or model or CORPUS
    if name == CORPUS:
        name = corpus_tokenizer(workspace, vocab_size, texts)
    loaded = load_tokenizer(name, "--tokenizer" if tokenizer else "--model")
    filled = {"tokenizer": fingerprint(loaded), "vocab_size": len(loaded)}  # before use, as the workers do
    origin = existing(model) if model else read_config(str(config), loaded)
    described = config_of(origin)
    check(described, origin.name, loaded, texts.block)
    label = f"--model {model}" if model and not tokenizer else f"--tokenizer {tokenizer or CORPUS}"
    _check_texts(workspace, loaded, label, text_positions(described))
    return Start(origin, name, texts.model_copy(update=filled))


def _check_texts(
    workspace: Workspace, tokenizer: PreTrainedTokenizerBase, label: str, positions: int | None
) -> None:
    """Check that a tokenizer can write the names of a corpus, and knows its words, before hours of training.

    Raises:
        UserError: it cannot, or too many names or words are the same to it.
    """
    names = Vocabulary.read(workspace.entities.local_copy(machine_cache())).names
    try:
        trie = name_trie(tokenizer, names, positions)
    except UserError as error:
        raise UserError(f"{label}: {error}") from None
    if alike := made_one(trie, names):
        examples = "; ".join(" = ".join(map(shown, group[:SHOWN])) for group in alike[:SHOWN])
        count = sum(map(len, alike))
        found = f"{label}: its tokenizer writes {count} of {len(names)} names like another's ({examples})"
        if count > len(names) / 2:
            raise UserError(f"{found}, so most names cannot be told apart; name {ANOTHER}")
        console.say(f"{found}: they are generated and scored as one")
    check_words([*sampled_sentences(workspace), *names[:SAMPLED_NAMES]], tokenizer, label, ANOTHER)


def pretrain(
    workspace: Workspace,
    begin: Start,
    settings: LmSettings,
    layout: Layout | None = None,
    workers: int = 1,
    gpu: bool = False,
    restart: bool = False,
    checkpoint_seconds: float = 60,
    checkpoint_share: float = 0.05,
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
        checkpoint_seconds: time between checkpoints at least; one more is made at the end.
        checkpoint_share: of the time, which writing them takes at most but for the last one.
    """
    if settings.lora and begin.origin.config is not None:
        raise UserError("--lora: a new model has nothing to keep; name the one to adapt with --model")
    if settings.quantize:
        if not settings.lora:
            raise UserError("--quantize 4bit: packed weights do not learn; add --lora, or leave it out")
        check_installed()
    with cluster_for(workers, gpu, workspace.root):
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
            checkpoint_seconds=checkpoint_seconds,
            checkpoint_share=checkpoint_share,
        )
        summary = train_or_load_summary(run, workers, restart)
    model, corpus = run.folder / run.artifact, blocks.manifest.corpus_digest
    return summary, publish_model(workspace, model, summary, corpus)


def _name(begin: Start, blocks_key: str, settings: LmSettings) -> str:
    content = named_settings(settings) + blocks_key + begin.origin.identity
    return f"{blocks_key}-e{settings.epochs}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def publish_model(workspace: Workspace, model: Store, summary: dict[str, Any], corpus: str) -> Manifest:
    """Publish a bundle with a trained model and the trie of all names, beside what the current one holds.

    Args:
        workspace: whose entities are named.
        model: folder of the model.
        summary: of its run.
        corpus: digest of the one that it was trained on.
    """
    staged = workspace.bundles.staging()
    entities = workspace.entities.fetch(staged / "entities.parquet")
    for file in model.files():
        file.link_or_fetch(staged / "lm" / file.name)  # a finished run is not written to
    names = Vocabulary.read(entities).names
    console.say(f"trie of {len(names)} names")
    name_trie(load_tokenizer(staged / "lm"), names).save(staged / "trie")
    told = ("run", "model", "tokenizer", "perplexity_before", "perplexity_after")
    lists = {key: summary.get(key) for key in ("neighbor_lists", "neighbor_view")}
    settings = {"lm": {key: summary[key] for key in told} | {"corpus": corpus} | lists}
    return publish_beside(workspace, staged, settings, ["lm/", "trie/"], corpus)
