"""Make a corpus' blocks of tokens.

Not a job of its own: ``pretrain_lm`` calls it, and it makes only what is missing.
"""

from __future__ import annotations

import hashlib

import numpy as np

from engine.corpus.blocks.format import (
    BlockCounts,
    BlockManifest,
    Blocks,
    block_manifests,
    block_parts,
    corpus_texts,
    named_plans,
    open_blocks,
    pack,
    plan_parts,
    write_part,
)
from engine.corpus.blocks.settings import FIRST_LIST_VIEW, BlockSettings
from engine.corpus.blocks.worker import BlockWorker
from engine.corpus.schema import check_same_corpus, read_manifest
from engine.errors import UserError
from engine.generation.lists import list_lines, neighbour_lists
from engine.generation.tokenizers import load_tokenizer, train_tokenizer
from engine.models.plain_text import token_ids
from engine.retrieval.index import VectorIndex
from engine.retrieval.views import hubness
from engine.storage.bundle import Bundle
from engine.storage.manifests import made_by_after, makers_of
from engine.storage.parts import MANIFEST, PartFolder, content_key, write_model
from engine.storage.whole import fault_in
from engine.storage.workspace import Workspace
from engine.versions import OF_TOKENS, versions_of
from jobs import console
from jobs.workers.executor import Executor, given_or_auto, make_parts

LIST_HUBNESS = 0.6
"""Share of an entity's hubness that is taken off, as where the joint view is searched."""


def corpus_tokenizer(workspace: Workspace, vocab_size: int, settings: BlockSettings) -> str:
    """Return the folder of a tokenizer trained on a corpus; one that is there is kept.

    Args:
        workspace: receives ``inputs/tokenizer-V<size>-<digest>``.
        vocab_size: tokens at most.
        settings: which texts it is trained on; its tokenizer does not matter.
    """
    which = settings.model_dump_json(include={"descriptions", "held_out", "seed"})
    digest = hashlib.sha256((which + read_manifest(workspace).digest).encode()).hexdigest()[:8]
    folder = workspace.inputs(f"tokenizer-V{vocab_size}-{digest}")
    last = "tokenizer_config.json"
    if not (folder / last).exists() or fault_in(folder):
        console.say(f"training a tokenizer of {vocab_size} tokens on the corpus")
        staged = folder.staging()
        train_tokenizer(corpus_texts(workspace, settings), vocab_size, staged)
        folder.publish_folder(staged, last=last)
    return folder.uri


def make_blocks(
    workspace: Workspace, tokenizer: str, settings: BlockSettings, executor: Executor | None = None
) -> Blocks:
    """Return the blocks of a workspace's corpus, after what was missing was made.

    Args:
        workspace: receives ``inputs/<key>`` and the parts that it names.
        tokenizer: a folder or a hub name that every node can read.
        settings: made with that tokenizer's fingerprint.
        executor: where parts are made; default: see :class:`jobs.workers.executor.AutoExecutor`.
    """
    corpus = read_manifest(workspace)
    key = settings.key(corpus.digest)
    if there := open_blocks(workspace, key):
        return there
    _tell_of_former_default(workspace, settings, corpus.digest)
    folder = block_parts(workspace, settings)
    plans = named_plans(workspace, plan_parts(workspace, settings))
    arguments = (workspace.root.uri, tokenizer, settings)
    with given_or_auto(executor, workspace.root) as where:
        made = make_parts(
            folder,
            plans,
            BlockWorker,
            arguments,
            where,
            "blocks, sentences",
            size=lambda plan: len(plan.rows),
            check=lambda: check_same_corpus(workspace, corpus.digest),
        )
    parts = made.parts
    if settings.neighbor_lists:
        parts |= _list_part(workspace, tokenizer, settings, folder)
    makers = makers_of(block_manifests(workspace, settings.parts_key()), made.parts) if made.kept else ()
    manifest = BlockManifest(
        settings=settings,
        corpus_digest=corpus.digest,
        parts=parts,
        made_by=made_by_after(makers, versions_of(OF_TOKENS) if made.made else None),
    )
    write_model(workspace.inputs(key) / MANIFEST, manifest)
    return Blocks(key, manifest, folder.folder)


def _tell_of_former_default(workspace: Workspace, settings: BlockSettings, corpus_digest: str) -> None:
    """Say which option goes on with blocks and runs that read descriptions, once the default."""
    former = settings.model_copy(update={"descriptions": True})
    if not settings.descriptions and open_blocks(workspace, former.key(corpus_digest)):
        console.say(
            "sentences alone are read now; --descriptions goes on with the blocks and runs of this corpus "
            "that read descriptions, too"
        )


def neighbours_of(bundle: Bundle, view: str) -> str:
    """Return the checksum of the index that lists are made of: later bundles with the same one give the same.

    Raises:
        UserError: the bundle has no such view.
        BundleError: the file is damaged.
    """
    name = _index(view)
    if name not in bundle.manifest.files:
        there = [file.removesuffix(".faiss").removeprefix("index/") for file in bundle.manifest.files]
        known = ", ".join(sorted(one for one in there if _index(one) in bundle.manifest.files)) or "none"
        raise UserError(
            f"--neighbor-view {view}: bundle {bundle.id} has no such view; it has {known} "
            "(`seedset build-index` makes them)"
        )
    bundle.path(name)
    return bundle.manifest.files[name].sha256


def _index(view: str) -> str:
    return f"index/{view}.faiss"


def _list_part(
    workspace: Workspace, tokenizer: str, settings: BlockSettings, parts: PartFolder[BlockCounts]
) -> dict[str, BlockCounts]:
    """Return the counts of the part that holds lists of neighbours, by its name; made unless it is there."""
    bundle, view = Bundle.open(workspace), settings.neighbor_view
    if neighbours_of(bundle, view) != settings.neighbours:
        raise UserError(f"bundle {bundle.id} was published meanwhile, with another index; run the job again")
    entities = bundle.manifest.files["entities.parquet"].sha256
    drawn = f"{settings.neighbor_lists} {settings.seed}"
    drawn += "" if view == FIRST_LIST_VIEW else f" {view}"
    name = content_key("lists", settings.neighbours, entities, drawn)
    if there := parts.finished([name]):
        return there
    index = bundle.once(_index(view), VectorIndex.read)
    kept = f"index/{view}.hubness.npy"
    known = kept in bundle.manifest.files
    hubs = np.load(bundle.path(kept), allow_pickle=False) if known else hubness(index.vectors_ND)
    console.say(f"{settings.neighbor_lists} lists of neighbours an entity, by {view} of bundle {bundle.id}")
    lists = neighbour_lists(index.vectors_ND, LIST_HUBNESS * hubs, settings.neighbor_lists, settings.seed)
    loaded = load_tokenizer(tokenizer)
    lines = list(list_lines(bundle.vocabulary.names, lists, settings.seed))
    tokens = np.fromiter((i for ids in token_ids(loaded, lines) for i in ids), settings.dtype)
    blocks = pack(tokens, settings, loaded.bos_token_id)
    begins = len(blocks) if loaded.bos_token_id is not None else 0
    counts = BlockCounts(
        sentences=0,
        descriptions=0,
        held_out=0,
        blocks=len(blocks),
        tokens=len(tokens),
        padding=blocks.size - len(tokens) - begins,
    )
    write_part(parts, name, blocks, np.empty(0, settings.dtype), counts)
    return {name: counts}
