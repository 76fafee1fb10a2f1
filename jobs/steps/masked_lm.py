"""Make a masked language model of an encoder, and read every mention by it.

The view "adapted" is made of that, and what `cgexpan` asks of a bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from engine.corpus.inputs.masking import load_tokenizer
from engine.corpus.schema import read_manifest
from engine.errors import UserError
from engine.models.device import worker_device
from engine.models.fingerprint import model_fingerprint
from engine.models.hub import NamedModel
from engine.models.mask_states import mask_states
from engine.models.masked_lm import lacks_head, with_new_head, with_own_head
from engine.models.text import BARE_TOKENS, TextEncoder
from engine.retrieval.index import Vectors, unit
from engine.retrieval.mention_states import MentionStates
from engine.retrieval.views import EntitySums, mean_view
from engine.storage.parts import content_key
from engine.storage.store import Store, machine_cache
from engine.storage.whole import safetensors_header
from engine.storage.workspace import Workspace
from engine.training.cache import CachedPart, FrozenCache
from engine.training.input_rows import InputRows
from engine.training.masked_lm import Masking, Sentence, passes_over, recipe, train
from jobs import console
from jobs.settings import MASKED_LM_SENTENCES
from jobs.workers.executor import Executor, in_order

SEED = 13
ROWS = 256

MASKED_LMS = "masked-lm"
"""The folder of a workspace's runs with models that were trained; each says of which corpus."""
CORPUS = "corpus"
"""The entry of a model's metadata that does so."""


@dataclass(frozen=True)
class MaskedLmUse:
    """What a masked language model is wanted for, and on how many sentences it is trained at most.

    Args:
        adapt: a view of the mentions' mean states by it.
        class_names: what ``cgexpan`` asks.
        sentences: it is trained on, at most.
    """

    adapt: bool = False
    class_names: bool = False
    sentences: int = MASKED_LM_SENTENCES


NO_MASKED_LM = MaskedLmUse()


@dataclass(frozen=True)
class ProbedModel:
    """A masked language model: an encoder with the head that it brings, or trained on the corpus.

    Args:
        base: the encoder.
        weights: all of them but the decoder's where it is tied to the word embeddings; None: the base's own.
    """

    base: str
    weights: Store | None = None

    def load(self) -> PreTrainedModel:
        """Return the model.

        Raises:
            UserError: it brings no head, and has no weights.
        """
        if self.weights is None:
            way_out = ", with `seedset preprocess --model`, or leave --class-names out"
            return with_own_head(NamedModel.open(self.base, "encoder"), way_out)
        model = _untrained(self.base)
        model.load_state_dict(load_file(self.weights.local_copy(machine_cache())), strict=False)
        return model.eval()


class PartStates(NamedTuple):
    """Entities of a part's sentences, int64 [n], and the unit states at their masks, float16 [n, D]."""

    entities: npt.NDArray[np.int64]
    states_nD: npt.NDArray[np.float16]


class CachedMentionWorker:
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


class MentionWorker:
    """A worker that does so by a model trained on the corpus, of which no cache holds states."""

    def __init__(self, model: ProbedModel) -> None:
        base: Any = model.load().base_model
        self._encoder = TextEncoder(base).to(worker_device())

    def __call__(self, part: Store) -> PartStates:
        """Return the states of a part, in the order of its sentences."""
        own = InputRows.read(part.local_copy(machine_cache()))
        rows = np.flatnonzero(own.lengths > BARE_TOKENS)
        ids = [own.ids[own.offsets[row] : own.offsets[row + 1]] for row in rows]
        states = mask_states(self._encoder, ids, own.mask_index[rows].tolist())
        return PartStates(own.entity_id[rows], unit(states).astype(np.float16))


def _part_states(
    cache: FrozenCache, model: ProbedModel, executor: Executor
) -> Iterator[tuple[int, PartStates]]:
    """Yield the states of each part's sentences that have text, with the part's number, as they are done."""
    results = (
        executor.map(CachedMentionWorker, (model.base,), cache.parts, gpu=True)
        if model.weights is None
        else executor.map(MentionWorker, (model,), cache.inputs.parts, gpu=True)
    )
    with console.meter("states of mentions, sentences", cache.inputs.manifest.mentions) as meter:
        for part, states in results:
            yield part, states
            meter.add(cache.inputs.rows[part])


def mean_states(cache: FrozenCache, model: ProbedModel, n_entities: int, executor: Executor) -> Vectors:
    """Return the unit mean of every entity's states, [N, D], as :func:`mention_states` has them.

    Of the states of each part the sums alone are kept, and those of all parts added up.
    """
    return mean_view(map(_sums, in_order(_part_states(cache, model, executor))), n_entities)


def _sums(states: PartStates) -> EntitySums:
    ids, places = np.unique(states.entities, return_inverse=True)
    sums_nD = np.zeros((len(ids), states.states_nD.shape[1]))
    np.add.at(sums_nD, places, states.states_nD.astype(np.float64))
    return EntitySums(ids, sums_nD)


def mention_states(
    cache: FrozenCache, model: ProbedModel, n_entities: int, executor: Executor, folder: Path
) -> MentionStates:
    """Write the states of all drawn sentences that have text, by the model that is asked for class names.

    Args:
        cache: of the base's frozen layers.
        model: its states at the masks.
        n_entities: of the vocabulary.
        executor: where it runs.
        folder: receives them.
    """
    counts_N = np.zeros(n_entities, np.int64)
    for part in cache.inputs.parts:
        rows = InputRows.read(part.local_copy(machine_cache()), with_ids=False)
        counts_N += np.bincount(rows.entity_id[rows.lengths > BARE_TOKENS], minlength=n_entities)
    dim, parts = TextEncoder.load(model.base).dim, in_order(_part_states(cache, model, executor))
    return MentionStates.write_parts(folder, counts_N, dim, parts)


def check_adaptable(base: str) -> None:
    """Refuse an encoder of a family that is not trained as a masked language model here (UserError)."""
    family = NamedModel.open(base, "encoder").config().model_type
    if family != "bert":
        raise UserError(
            f"--adapt: the encoder {base} is of the family {family}, and only those of the family bert are "
            "trained as masked language models; leave --adapt out"
        )


def masked_lm(workspace: Workspace, base: str, use: MaskedLmUse) -> ProbedModel:
    """Return the masked language model of an encoder.

    One without a head is trained on the corpus, and one that is to be adapted; its weights are kept in the
    workspace by what they were made of, and another run takes them from there.

    Args:
        workspace: with the corpus.
        base: the encoder.
        use: whether it is adapted, and on how many sentences it is trained at most.

    Raises:
        UserError: the encoder has no head, and is of a family that is not trained here; or the corpus has no
            sentence.
    """
    own_head = not lacks_head(NamedModel.open(base, "encoder"))
    if own_head and not use.adapt:
        return ProbedModel(base)
    corpus = read_manifest(workspace).digest
    key = content_key(corpus, model_fingerprint(base), f"{use.sentences} {recipe(own_head)}")
    file = workspace.runs(MASKED_LMS) / f"{key}.safetensors"
    if file.exists():
        console.say(f"masked language model: kept from before ({file.uri})")
        return ProbedModel(base, file)
    model = _trained(_sentences(workspace, use.sentences), base, own_head)
    with file.writing() as path:
        save_file(_kept_weights(model.cpu()), path, {CORPUS: corpus})
    return ProbedModel(base, file)


def _untrained(base: str) -> PreTrainedModel:
    """Return an encoder with the head that it brings, or with one that was drawn at random."""
    named = NamedModel.open(base, "encoder")
    if lacks_head(named):
        return with_new_head(TextEncoder.load(base))
    return with_own_head(named, "")


def _kept_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return a model's weights, without the decoder's where it is tied to the word embeddings."""
    decoder, words = model.get_output_embeddings(), model.get_input_embeddings()
    tied = decoder.weight is words.weight
    return {
        name: t.clone(memory_format=torch.contiguous_format)  # of its own memory, as safetensors asks
        for name, t in model.state_dict().items()
        if not (tied and ".decoder." in name)
    }


def corpus_of(file: Store) -> str | None:
    """Return the digest of the corpus that a kept model was trained on; None: it does not say, or is cut."""
    try:
        return str(safetensors_header(file)[0]["__metadata__"][CORPUS])
    except (ValueError, KeyError, TypeError):
        return None


def _trained(sentences: list[Sentence], base: str, own_head: bool) -> PreTrainedModel:
    masking = Masking(load_tokenizer(base), SEED)
    passes = [masking.one_pass(sentences) for _ in range(passes_over(len(sentences)))]
    if not all(passes):
        raise UserError(
            "--adapt, --class-names: the corpus has no sentence to train a masked language model on; leave "
            "--adapt out, and for --class-names name an encoder whose folder has its head with `seedset "
            "preprocess --model`"
        )
    model: Any = _untrained(base)
    torch.nn.Module.to(model, worker_device())
    with console.meter("masked language model, sentences", sum(map(len, passes))) as meter:
        losses = train(model, passes, SEED, meter.add, own_head)
    masks = sum(len(one.places) for own in passes for one in own)
    console.say(f"masked language model: trained on {masks} masks to {losses[-1]:.2f} nats a mask")
    return model


def _sentences(workspace: Workspace, at_most: int) -> list[Sentence]:
    """Return at most so many different sentences of the corpus, drawn at random, in its order."""
    found: dict[str, Sentence] = {}
    for part in workspace.mentions():
        with part.open_input() as stream:
            table = pq.read_table(stream, columns=["sentence", "start", "end"])
        for text, *span in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
            if text:
                found.setdefault(text, Sentence(text, [])).mentions.append((span[0], span[1]))
    sentences = list(found.values())
    if len(sentences) <= at_most:
        return sentences
    drawn = np.random.default_rng(SEED).choice(len(sentences), at_most, replace=False)
    return [sentences[place] for place in np.sort(drawn).tolist()]
