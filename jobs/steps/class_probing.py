"""Make what `cgexpan` asks of a bundle: a masked language model, and the state of every mention by it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, PreTrainedModel

from engine.corpus.inputs.masking import load_tokenizer
from engine.corpus.schema import read_manifest
from engine.errors import UserError
from engine.models.device import worker_device
from engine.models.fingerprint import model_fingerprint
from engine.models.hub import NamedModel
from engine.models.masked_lm import lacks_head, with_new_head, with_own_head
from engine.models.plain_text import token_ids
from engine.models.text import TextEncoder
from engine.retrieval.index import unit
from engine.retrieval.mention_states import MentionStates
from engine.storage.parts import content_key
from engine.storage.store import machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import CachedPart, FrozenCache
from engine.training.mlm_head import (
    EPOCHS,
    RECIPE,
    class_nouns,
    mask_tokens,
    states_at_masks,
    train_head,
)
from jobs import console
from jobs.workers.executor import Executor

SEED = 13
ROWS = 256


class PartStates(NamedTuple):
    """Entities of a part's sentences, int64 [n], and the unit states at their masks, float16 [n, D]."""

    entities: npt.NDArray[np.int64]
    states_nD: npt.NDArray[np.float16]


class MentionWorker:
    """A worker that computes the state of every mention of a part, by the encoder as it came."""

    def __init__(self, base: str) -> None:
        self._encoder = TextEncoder.load(base).to(worker_device())

    def __call__(self, part: CachedPart) -> PartStates:
        """Return the states of a part, in the order of its sentences."""
        data = part.open()
        with_text, device = data.with_text, next(self._encoder.last.parameters()).device
        found = np.zeros((len(with_text), self._encoder.dim), np.float16)
        with torch.inference_mode():
            for start in range(0, len(with_text), ROWS):
                states, lengths, mask, _ = (
                    t.to(device) for t in data.gather(with_text[start : start + ROWS])
                )
                found[start : start + ROWS] = unit(self._encoder.last(states, lengths, mask).cpu().numpy())
        return PartStates(data.entity_id[with_text], found)


def mention_states(cache: FrozenCache, base: str, n_entities: int, executor: Executor) -> MentionStates:
    """Return the states of all drawn sentences that have text, by the encoder as it came.

    Args:
        cache: of its frozen layers.
        base: the encoder.
        n_entities: of the vocabulary.
        executor: where it runs.
    """
    found: dict[int, PartStates] = {}
    with console.meter("states of mentions, sentences", cache.inputs.manifest.mentions) as meter:
        for part, states in executor.map(MentionWorker, (base,), cache.parts, gpu=True):
            found[part] = states
            meter.add(cache.inputs.rows[part])
    parts = [found[part] for part in sorted(found)]
    entities = np.concatenate([part.entities for part in parts])
    order = np.argsort(entities, kind="stable")
    starts = np.searchsorted(entities[order], np.arange(n_entities + 1)).astype(np.int64)
    return MentionStates(starts, np.concatenate([part.states_nD for part in parts])[order])


def masked_lm(workspace: Workspace, base: str, head_sentences: int) -> PreTrainedModel:
    """Return the encoder with a masked-language-model head.

    One without a head gets one that is trained on the corpus; it is kept in the workspace by what it was made
    of, and another run takes it from there.

    Args:
        workspace: with the corpus.
        base: the encoder.
        head_sentences: to train a head on, at most.

    Raises:
        UserError: the encoder has no head, and is of a family whose head is not trained here.
    """
    named = NamedModel.open(base, "encoder")
    if lacks_head(named):
        return _trained(workspace, base, head_sentences)
    return with_own_head(named, ", with `seedset preprocess --model`, or leave --class-names out")


def _trained(workspace: Workspace, base: str, head_sentences: int) -> BertForMaskedLM:
    """Return the encoder with a head trained on the corpus, or trained there before."""
    encoder = TextEncoder.load(base)
    model = with_new_head(encoder)
    head: Any = model.cls.predictions
    key = content_key(read_manifest(workspace).digest, model_fingerprint(base), f"{head_sentences} {RECIPE}")
    file = workspace.runs("masked-lm") / f"{key}.safetensors"
    if file.exists():
        console.say(f"masked language model: its head is kept from before ({file.uri})")
        head.load_state_dict(load_file(file.local_copy(machine_cache())), strict=False)
    else:
        texts = _sentences(workspace, head_sentences)
        _train(texts, base, encoder.to(worker_device()), model)
        weights = {name: t.contiguous() for name, t in head.state_dict().items() if "decoder" not in name}
        with file.writing() as path:
            save_file(weights, path)
    return model.eval()


def _train(texts: list[str], base: str, encoder: TextEncoder, model: BertForMaskedLM) -> None:
    tokenizer = load_tokenizer(base)
    sentences = mask_tokens(tokenizer, token_ids(tokenizer, texts), class_nouns(tokenizer), SEED)
    if not sentences:
        raise UserError(
            "--class-names: the corpus has no English plural that a head could learn to name a class by; "
            "name an encoder whose folder has that head with `seedset preprocess --model`"
        )
    with console.meter("masked language model, sentences", len(sentences)) as meter:
        states, targets = states_at_masks(encoder, sentences, meter.add)
    with console.meter("masked language model, masks", EPOCHS * len(states)) as meter:
        losses = train_head(model, states, targets, SEED, meter.add)
    console.say(f"masked language model: trained on {len(states)} masks to {losses[-1]:.2f} nats a mask")


def _sentences(workspace: Workspace, at_most: int) -> list[str]:
    """Return at most so many different sentences of the corpus, drawn at random, in its order."""
    distinct: dict[str, None] = {}
    for part in workspace.mentions():
        with part.open_input() as stream:
            distinct.update(
                dict.fromkeys(pq.read_table(stream, columns=["sentence"])["sentence"].to_pylist())
            )
    distinct.pop("", None)
    texts = list(distinct)
    if len(texts) <= at_most:
        return texts
    drawn = np.random.default_rng(SEED).choice(len(texts), at_most, replace=False)
    return [texts[place] for place in np.sort(drawn).tolist()]
