"""Turn the trained encoder and the corpus into entity vectors, and publish them as a bundle.

The mean of each entity's states at the mask, computed from the cached frozen states, is one view; beside it
stand the description, the words, images where there are any, and all together. With the vectors go the
encoder, which places entities that are not in the corpus, and sentences to be shown.
"""

from __future__ import annotations

import time

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.catalogue import SENTENCES
from engine.corpus.blocks.format import read_descriptions
from engine.corpus.inputs.format import open_inputs
from engine.corpus.inputs.masking import load_tokenizer
from engine.corpus.sentences import write_sentences
from engine.retrieval.index import VectorIndex
from engine.storage.bundle import Manifest, derive
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.encoder_training import trained_encoder
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.views import BUILDERS, TEMPERATURE, BuiltViews, Encoders, Sources
from jobs.workers.encoder import MULTIMODAL_JOB
from jobs.workers.executor import AutoExecutor, Executor, given_or_auto

EXAMPLES = """
  python -m jobs.build_index --workspace work
  python -m jobs.build_index --workspace work --untrained
  python -m jobs.build_index --workspace s3://bucket/work --workers 16
"""


def build(
    workspace: Workspace,
    untrained: bool = False,
    executor: Executor | None = None,
    temperature: float = TEMPERATURE,
) -> Manifest:
    """Make all views of all entities and publish them; returns the new bundle's manifest.

    Args:
        workspace: with a corpus, inputs, and (unless ``untrained``) a trained encoder.
        untrained: take the encoder as it came.
        executor: where encoders run; default: see :class:`jobs.workers.executor.AutoExecutor`.
        temperature: of predicted distributions, in a workspace with a multi-modal encoder.
    """
    with given_or_auto(executor) as where:
        sources = _open_sources(workspace, untrained, where, temperature)
        made = BuiltViews()
        for builder in BUILDERS:
            builder(sources, made)
    return _publish(sources, made)


def _open_sources(workspace: Workspace, untrained: bool, executor: Executor, temperature: float) -> Sources:
    trained = None if untrained else trained_encoder(workspace)
    inputs = open_inputs(workspace, trained.inputs_key if trained else None)
    base = trained.model if trained else inputs.manifest.model
    # Beside a multi-modal encoder the text encoder is meant to be as it came.
    if not trained and not untrained and not trained_encoder(workspace, MULTIMODAL_JOB):
        console.say("no trained encoder in this workspace: the index is made with the encoder as it came")
    return Sources(
        workspace=workspace,
        cache=frozen_cache(workspace, inputs, base, executor=executor),
        encoders=Encoders(base, trained.folder.uri if trained else None),
        trained=trained,
        descriptions=read_descriptions(workspace),
        temperature=temperature,
        executor=executor,
    )


def _publish(sources: Sources, made: BuiltViews) -> Manifest:
    workspace, inputs, encoders = sources.workspace, sources.cache.inputs, sources.encoders
    staged = workspace.bundles.staging()
    workspace.entities.fetch(staged / "entities.parquet")
    write_sentences(workspace, staged / SENTENCES, len(sources.descriptions), made.refused_images)
    encoders.of_mask_view().save(staged / "encoder")
    load_tokenizer(encoders.base).save_pretrained(staged / "encoder")
    for name, vectors in made.views.items():
        VectorIndex(vectors).write(staged / "index" / f"{name}.faiss")
    for write in made.writers:
        write(staged)
    settings = {
        "encoder": encoders.base,
        "trained": sources.trained.name if sources.trained else None,
        "inputs": inputs.key,
        "max_length": inputs.manifest.settings.max_length,
        "views": {name: view.shape[1] for name, view in made.views.items()},
        **made.settings,
    }
    replaced = ["index/", "encoder/", "distributions/", SENTENCES]
    manifest, left_out = derive(workspace, staged, settings, replaces=replaced)
    if left_out:
        console.say(left_out)
    return manifest


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
    with AutoExecutor(settings.workers) as executor:
        manifest = build(place, settings.untrained, executor, settings.temperature)
    console.result(
        bundle=manifest.id,
        files=len(manifest.files),
        mib=sum(f.size for f in manifest.files.values()) >> 20,
        views=",".join(manifest.settings["views"]),
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
