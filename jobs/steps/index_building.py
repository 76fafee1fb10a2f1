"""Make the vectors of every view of a workspace's entities, and publish them as a bundle."""

from __future__ import annotations

from engine.catalogue.sentences import SENTENCES
from engine.corpus.blocks.format import read_descriptions
from engine.corpus.inputs.format import open_inputs
from engine.corpus.inputs.masking import load_tokenizer
from engine.corpus.sentences import write_sentences
from engine.entity_types import TYPES
from engine.errors import StorageError
from engine.models.text import TextEncoder
from engine.retrieval.code_building import AUTO
from engine.retrieval.entity_sentences import CONTRAST
from engine.retrieval.mention_states import PROBING
from engine.retrieval.skipgrams import SKIPGRAMS
from engine.stages.type_mentions import TYPING
from engine.storage.bundle import Manifest
from engine.storage.parts import read_pointer
from engine.storage.staging import staged_removed
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import MinedLists, open_lists
from engine.typing.labels_file import LabelsFile
from jobs import console
from jobs.settings import TEMPERATURE
from jobs.steps.encoder_training import trained_encoder
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.index_writing import add_codes
from jobs.steps.kept_model import keep_language_model
from jobs.steps.masked_lm import NO_MASKED_LM, MaskedLmUse, check_adaptable
from jobs.steps.publishing import check_before_work, publish_beside
from jobs.steps.typing import typing_model
from jobs.steps.view_builder import BuiltViews, Encoders, Sources
from jobs.steps.views import BUILDERS, OWN_SETTINGS
from jobs.workers.encoder import MULTIMODAL_JOB
from jobs.workers.executor import Executor, given_or_auto

NO_LISTS = "none"
"""In place of a key: the joint view knows of no query's seeds."""


def build(
    workspace: Workspace,
    untrained: bool = False,
    executor: Executor | None = None,
    temperature: float = TEMPERATURE,
    inputs: str | None = None,
    distributions: bool = True,
    masked_lm: MaskedLmUse = NO_MASKED_LM,
    types: str | None = None,
    lists: str | None = None,
    index: str = AUTO,
) -> Manifest:
    """Make all views of all entities and publish them; returns the new bundle's manifest.

    Args:
        workspace: with a corpus, inputs, and (unless ``untrained``) a trained encoder.
        untrained: take the encoder as it came.
        executor: where encoders run; default: see :class:`jobs.workers.executor.AutoExecutor`.
        temperature: of predicted distributions.
        inputs: key of the model input whose sentences are encoded; default: what the encoder was trained on.
        distributions: make those of the text, where the text encoder is trained.
        masked_lm: what a masked language model is wanted for.
        types: the typing model that types every entity: its folder, its run, or "newest"; None: no types.
        lists: key of mined lists, of whose queries the joint view tells apart what the seeds tell apart, or
            "none"; None: those that were mined last, where there are any.
        index: how the views are searched; see :func:`engine.retrieval.code_building.kind_for`.
    """
    with staged_removed():
        with given_or_auto(executor, workspace.root) as where:
            sources = _open_sources(
                workspace, untrained, where, temperature, inputs, distributions, masked_lm, types, lists
            )
            made = BuiltViews(workspace.bundles.staging())
            for builder in BUILDERS:
                builder(sources, made)
        return _publish(sources, made, index)


def _open_sources(
    workspace: Workspace,
    untrained: bool,
    executor: Executor,
    temperature: float,
    key: str | None,
    distributions: bool,
    masked_lm: MaskedLmUse,
    types: str | None,
    lists: str | None,
) -> Sources:
    check_before_work(workspace, makes="index")
    if types is not None:
        types = typing_model(workspace, types)
        LabelsFile.read(types)  # which refuses what is no typing model
    trained = None if untrained else trained_encoder(workspace)
    if trained:
        trained.check_model()
    inputs = open_inputs(workspace, key or (trained.inputs_key if trained else None))
    if trained and inputs.key != trained.inputs_key:
        console.say(f"sentences are encoded as {inputs.key}; the encoder was trained on {trained.inputs_key}")
    base = trained.model if trained else inputs.manifest.model
    if masked_lm.adapt:
        check_adaptable(base)
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
        distributions=distributions,
        masked_lm=masked_lm,
        types=types,
        lists=_lists(workspace, lists),
        executor=executor,
    )


def _lists(workspace: Workspace, key: str | None) -> MinedLists | None:
    """Return the mined lists of a key, or the newest that fit the corpus, or None where there are none.

    Raises:
        StorageError: those of the key are not there, or of another corpus.
    """
    if key == NO_LISTS:
        return None
    if key is not None:
        return open_lists(workspace, key)
    if read_pointer(workspace.contrast()) is None:
        return None
    try:
        return open_lists(workspace)
    except StorageError as error:
        console.say(f"the joint view is made without the seeds of mined lists: {error}")
        return None


def _publish(sources: Sources, made: BuiltViews, index: str) -> Manifest:
    workspace, inputs, encoders = sources.workspace, sources.cache.inputs, sources.encoders
    staged = made.staged
    workspace.entities.fetch(staged / "entities.parquet")
    write_sentences(workspace, staged / SENTENCES, len(sources.descriptions), made.refused_images)
    TextEncoder.load(encoders.of_mask_view).save(staged / "encoder")
    load_tokenizer(encoders.base).save_pretrained(staged / "encoder")
    settings = {
        **keep_language_model(workspace, staged),
        "encoder": encoders.base,
        "trained": sources.trained.name if sources.trained else None,
        "trained_inputs": sources.trained.inputs_key if sources.trained else None,
        "inputs": inputs.key,
        "corpus": inputs.manifest.corpus_digest,
        "distributions": sources.distributions,
        "max_length": inputs.manifest.settings.max_length,
        "views": {name: view.shape[1] for name, view in made.views.items()},
        "index": add_codes(staged, made.views, index),
        **made.settings,
    }
    folders = ("index", "encoder", "distributions", SKIPGRAMS, PROBING, CONTRAST, TYPING)
    replaced = [*(f"{folder}/" for folder in folders), SENTENCES, TYPES]
    return publish_beside(workspace, staged, settings, replaced, inputs.manifest.corpus_digest, OWN_SETTINGS)
