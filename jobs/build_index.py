"""Turn the trained encoder and the corpus into entity vectors, and publish them as a bundle.

A pool of actors computes each mention's state from the cached frozen states; the driver adds them up
per entity. Beside that view stand the description, the words, and the three together. With the vectors
go the encoder, which places entities that are not in the corpus, and sentences to be shown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from cluster.session import session
from engine.catalogue import SENTENCES
from engine.corpus.blocks.format import read_descriptions
from engine.corpus.documents import documents
from engine.corpus.inputs.format import open_inputs
from engine.corpus.inputs.masking import load_tokenizer
from engine.corpus.sentences import write_sentences
from engine.models.hub import model_path
from engine.models.pooling import describe
from engine.models.text import TextEncoder
from engine.retrieval.distributions import SparseDistributions, distributions_folder
from engine.retrieval.index import VectorIndex, Vectors, unit
from engine.retrieval.views import centred, hubness, joint_view, lexical_view, of_even_spread
from engine.storage.bundle import Manifest, derive
from engine.storage.store import local_folder, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import CachedStates, InputRows, masked_sums
from engine.training.contexts import Modality
from jobs import console
from jobs.steps.frozen_cache import FrozenCache, frozen_cache
from jobs.steps.multimodal_data import image_view
from jobs.steps.multimodal_views import Source, multimodal_view
from jobs.train_encoder import trained_encoder
from jobs.workers.encoder import MULTIMODAL_JOB
from jobs.workers.executor import pooled

EXAMPLES = """
  python -m jobs.build_index --workspace work
  python -m jobs.build_index --workspace work --untrained
  python -m jobs.build_index --workspace s3://bucket/work --workers 16
"""

DESCRIPTIONS_A_TASK = 512

STATE_WEIGHT = 2**0.5
"""Of the multi-modal state beside the words in the joint view: it is two modalities, the words are one."""

TEMPERATURE = 4.0
"""Of predicted distributions. 1 is the paper's; a head that knows its few contexts by heart predicts little
but the entity itself, and says most of what it is like in what it all but excludes."""


@dataclass(frozen=True)
class Encoders:
    """Which encoder makes which view."""

    base: str
    """The encoder before training: frozen layers, and descriptions."""
    last: str | None
    """Folder of the trained encoder, whose last layer makes the mask view; None: the base's own."""

    def of_mask_view(self) -> TextEncoder:
        """Load the encoder that makes the mask view."""
        return TextEncoder.load(self.base if self.last is None else local_folder(self.last))


def build(
    workspace: Workspace,
    untrained: bool = False,
    workers: int | None = None,
    temperature: float = TEMPERATURE,
) -> Manifest:
    """Make all views of all entities and publish them; returns the new bundle's manifest.

    Args:
        workspace: with a corpus, inputs, and (unless ``untrained``) a trained encoder.
        untrained: take the encoder as it came.
        workers: actors a pool; default: the CPUs of the cluster.
        temperature: of predicted distributions, in a workspace with a multi-modal encoder.
    """
    trained = None if untrained else trained_encoder(workspace)
    inputs = open_inputs(workspace, trained.inputs_key if trained else None)
    base = trained.model if trained else inputs.manifest.model
    encoders = Encoders(base, trained.folder.uri if trained else None)
    if not trained and not untrained:
        console.say("no trained encoder in this workspace: the index is made with the encoder as it came")
    texts = read_descriptions(workspace)
    with session():
        cache = frozen_cache(workspace, inputs, base, workers=workers)
        mask = _mask_view(workspace, cache, encoders, len(texts), workers)
        description = _description_view(encoders, texts, workers)
        seen = _seen(workspace, cache, len(texts), temperature, workers)
    console.say("lexical view")
    lexical = lexical_view(documents(workspace))
    views = {"mask": mask, "description": description, "lexical": lexical}
    joined = [centred(mask), centred(description), lexical]
    if seen is not None:
        views |= {"image": seen.image, "multimodal": seen.states}
        joined = seen.joined([*([centred(mask)] if trained else []), centred(description), lexical])
    views["joint"] = joint_view(joined)
    settings = {
        "encoder": encoders.base,
        "trained": trained.name if trained else None,
        "inputs": inputs.key,
        "max_length": inputs.manifest.settings.max_length,
        "views": {name: view.shape[1] for name, view in views.items()},
    }
    if seen is not None:
        settings["multimodal"] = seen.settings
    return _publish(workspace, views, encoders, settings, seen)


@dataclass(frozen=True)
class Seen:
    """What a multi-modal bundle holds besides."""

    image: Vectors
    states: Vectors
    distributions: SparseDistributions
    modality: Modality
    refused: list[str]
    """Addresses of images that could not be used."""
    settings: dict[str, Any]

    def joined(self, texts: list[Vectors]) -> list[Vectors]:
        """Return the joint view's parts: the state, and with it those views of the text that there are."""
        if self.modality == "image":
            return [self.states]
        told = [of_even_spread(text) for text in texts if text.any()]
        return [*told, STATE_WEIGHT * of_even_spread(self.states)]


def _seen(
    workspace: Workspace, cache: FrozenCache, n_entities: int, temperature: float, workers: int | None
) -> Seen | None:
    """Return the multi-modal views; None where no multi-modal encoder was trained on these inputs."""
    trained = trained_encoder(workspace, MULTIMODAL_JOB)
    if trained is None:
        return None
    if trained.inputs_key != cache.inputs.key:
        console.say(
            f"the multi-modal encoder {trained.name} was trained on other inputs than {cache.inputs.key} and "
            "is left out; train it again on these"
        )
        return None
    source = Source(workspace.root.uri, trained, cache, trained.modality, temperature)
    states, distributions = multimodal_view(source, n_entities, workers)
    contexts = source.contexts()
    looks = centred(image_view(contexts, n_entities))
    about = {
        "trained": trained.name,
        "modality": trained.modality,
        "features": trained.features,
        "temperature": temperature,
    }
    return Seen(looks, states, distributions, trained.modality, contexts.features.refused, about)


def _publish(
    workspace: Workspace,
    views: dict[str, Vectors],
    encoders: Encoders,
    settings: dict[str, Any],
    seen: Seen | None,
) -> Manifest:
    staged = workspace.bundles.staging()
    workspace.entities.fetch(staged / "entities.parquet")
    write_sentences(workspace, staged / SENTENCES, len(views["mask"]), seen.refused if seen else ())
    encoders.of_mask_view().save(staged / "encoder")
    load_tokenizer(model_path(encoders.base)).save_pretrained(staged / "encoder")
    for name, vectors in views.items():
        VectorIndex(vectors).write(staged / "index" / f"{name}.faiss")
    np.save(staged / "index" / "joint.hubness.npy", hubness(views["joint"]), allow_pickle=False)
    if seen is not None:
        seen.distributions.write(staged / distributions_folder("multimodal"))
    replaced = ["index/", "encoder/", "distributions/", SENTENCES]
    manifest, left_out = derive(workspace, staged, settings, replaces=replaced)
    if left_out:
        console.say(left_out)
    return manifest


def _mask_view(
    workspace: Workspace, cache: FrozenCache, encoders: Encoders, n_entities: int, workers: int | None
) -> Vectors:
    """Return unit means of the states at the mask, [N, D]."""
    items = [{"part": i} for i in range(len(cache.inputs.parts))]
    arguments = (workspace.root.uri, cache, encoders)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    with console.meter("mask view, sentences", cache.inputs.manifest.mentions) as meter:
        for row in pooled(items, MentionSums, arguments, workers, gpu=True):
            part = int(row["part"])
            ids = np.frombuffer(row["ids"], np.int64)
            found[part] = ids, np.frombuffer(row["sums"], np.float64).reshape(len(ids), int(row["dim"]))
            meter.add(cache.inputs.manifest.parts[part])
    dim = next((sums.shape[1] for ids, sums in found.values() if len(ids)), 1)
    total = np.zeros((n_entities, dim))
    for part in sorted(found):  # in order, so that the sums do not depend on who was first
        ids, sums = found[part]
        if len(ids):
            total[ids] += sums
    return unit(total)


def _description_view(encoders: Encoders, texts: list[str], workers: int | None) -> Vectors:
    """Return unit vectors of the descriptions, [N, D]; zeros where there is none."""
    order = np.argsort([len(t) for t in texts], kind="stable")
    chunks = [order[i : i + DESCRIPTIONS_A_TASK] for i in range(0, len(order), DESCRIPTIONS_A_TASK)]
    items = [{"chunk": i, "texts": [texts[e] for e in chunk]} for i, chunk in enumerate(chunks)]
    vectors: np.ndarray | None = None
    with console.meter("description view, entities", len(texts)) as meter:
        for row in pooled(items, Describer, (encoders,), workers, gpu=True):
            chunk = chunks[int(row["chunk"])]
            found = np.frombuffer(row["vectors"], np.float32).reshape(len(chunk), -1)
            if vectors is None:
                vectors = np.zeros((len(texts), found.shape[1]), np.float32)
            vectors[chunk] = found
            meter.add(len(chunk))
    return unit(vectors if vectors is not None else np.zeros((len(texts), 1), np.float32))


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(1)
    return torch.device("cpu")


class MentionSums:
    """An actor: sums the states at the mask of one part, per entity."""

    def __init__(self, workspace: str, cache: FrozenCache, encoders: Encoders) -> None:
        self._cache, self._encoders = cache, encoders

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._encoders.of_mask_view().to(_device())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Return the entity ids of a part and the sum of each one's states."""
        part = int(batch["part"][0])
        rows = InputRows.read(self._cache.inputs.parts[part].local_copy(machine_cache()), with_ids=False)
        states = CachedStates([rows], [self._cache.states[part].local_copy(machine_cache())])
        ids, sums = masked_sums(self._encoder, states)
        return {"part": [part], "ids": [ids.tobytes()], "sums": [sums.tobytes()], "dim": [sums.shape[1]]}


class Describer:
    """An actor: encodes descriptions with the encoder as it was before training."""

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder.load(self._encoders.base).to(_device())

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(model_path(self._encoders.base))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Return one vector a text."""
        texts = [str(text) for text in batch["texts"][0]]
        vectors = describe(self._encoder, self._tokenizer, texts)
        return {"chunk": [int(batch["chunk"][0])], "vectors": [vectors.tobytes()]}


class BuildIndexSettings(CommandSettings):
    """What the command is told."""

    workspace: str = Field(description="Folder or s3:// prefix with model input.")
    untrained: bool = Field(default=False, description="Take the encoder as it came.")
    workers: int | None = Field(
        default=None, ge=1, description="Actors a pool.  [default: the cluster's CPUs]"
    )
    temperature: float = Field(
        default=TEMPERATURE,
        ge=0.01,
        description="Of predicted distributions (multi-modal encoder); the paper's: 1.",
    )


@command(EXAMPLES)
def main(settings: BuildIndexSettings) -> None:
    """Make the entity vectors of every view and publish them as the workspace's current bundle.

    A bundle holds the entities, the index of each view, the encoder, and the first sentences of each entity.
    """
    started = time.monotonic()
    place = Workspace.open(settings.workspace)
    manifest = build(place, settings.untrained, settings.workers, settings.temperature)
    console.result(
        bundle=manifest.id,
        files=len(manifest.files),
        mib=sum(f.size for f in manifest.files.values()) >> 20,
        views=",".join(manifest.settings["views"]),
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
