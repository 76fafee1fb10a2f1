"""Train an encoder on a workspace's inputs, and find the one that was trained last.

What ``train_encoder``, ``ablate`` and ``build_index`` share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from engine.corpus.inputs.format import Inputs, input_manifest, open_inputs
from engine.corpus.schema import read_manifest
from engine.errors import DamagedFileError, MissingFileError, StorageError, UserError
from engine.images.features import ImageFeatures
from engine.models.fingerprint import model_fingerprint
from engine.models.hub import EMBEDDED, NamedModel
from engine.models.text import TextEncoder
from engine.storage.parts import read_pointer, write_pointer
from engine.storage.store import Store, local_folder, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache
from engine.training.contexts import Contexts
from engine.training.contrast_lists import NEWEST, MinedLists
from engine.training.multimodal_data import mine_neighbor_lists, open_contexts
from engine.training.settings import BASELINES, Baseline, EncoderSettings, Modality, MultimodalSettings
from jobs.steps.frozen_cache import DTYPE, frozen_cache
from jobs.steps.lexical_view import lexical_view
from jobs.workers.encoder import JOB, ContrastRun, EncoderRun, MultimodalRun, WarmStart
from jobs.workers.executor import given_or_auto
from jobs.workers.summaries import finished_summary
from jobs.workers.trainer import cluster_for, train_or_load_summary


@dataclass(frozen=True)
class Trained:
    """A finished run: its name, the encoder's folder, the encoder that it began with, and its inputs."""

    name: str
    folder: Store
    model: str
    inputs_key: str
    features: str | None = None
    """Key of the image features, of a multi-modal run."""
    modality: Modality = "text"
    """Modality of the run, and so what is used of a context."""
    fingerprint: str | None = None
    """Fingerprint of the encoder that it began with; None: of a run of a version that kept none."""
    seed_text: bool = False
    """Whether it has learnt from sentences with seeds behind them (a contrastive run)."""
    lineage: str | None = None
    """What its corpus has in common with those that grew from it; None: of a run that kept none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the training."""
    lists: str | None = None
    """Key of the lists of a contrastive run."""

    def check_model(self) -> None:
        """Refuse to go on with another encoder than the one that the run began with, of the same name.

        The frozen layers come out of that one, and the last layer was trained for them.

        Raises:
            UserError: the encoder's files have changed since.
        """
        if self.fingerprint is not None:
            same = model_fingerprint(self.model) == self.fingerprint
        else:  # what was trained is the whole encoder, the frozen layers as they were
            trained = local_folder(self.folder.uri) + ("/text" if self.features else "")
            pair = (TextEncoder.load(name).lower_fingerprint() for name in (self.model, trained))
            same = next(pair) == next(pair)
        if not same:
            raise UserError(
                f"{self.folder.uri}: trained on the encoder {self.model} as it was then; its files have "
                "changed since, and the trained layer does not fit them: run `seedset train-encoder` again, "
                "or put the former files back"
            )

    def reads(self, workspace: Workspace, inputs: Inputs) -> bool:
        """Return whether the encoder reads some model input as it has learnt to.

        That is what it was trained on, or input written alike, of a corpus that has grown since.
        """
        if self.inputs_key == inputs.key:
            return True
        own = input_manifest(workspace, self.inputs_key)
        alike = own is not None and own.settings == inputs.manifest.settings
        return alike and self.lineage == read_manifest(workspace).line

    def is_of_corpus(self, workspace: Workspace) -> bool:
        """Return whether the run's model input is there, and of the corpus that the workspace holds now.

        Else the entities that the head predicts may be others, whatever their number.
        """
        try:
            open_inputs(workspace, self.inputs_key)
        except StorageError:
            return False
        return True


def trained_encoder(workspace: Workspace, job: str = JOB) -> Trained | None:
    """Return the encoder that a training of either kind trained last, or None if none was."""
    name = read_pointer(workspace.runs(job))
    return None if name is None else trained_run(workspace.runs(job) / name)


def trained_run(run: Store) -> Trained:
    """Return the encoder of a finished run, given its folder.

    Raises:
        StorageError: the run is not there, or not whole.
    """
    try:
        summary = finished_summary(run, EncoderRun.artifact)
    except (MissingFileError, DamagedFileError) as error:
        raise StorageError(
            f"{error}; train it again with the same settings: what is missing is made (--restart: all)"
        ) from None
    return Trained(
        run.name,
        run / "encoder",
        summary["model"],
        summary["inputs"],
        summary.get("features"),
        summary["settings"].get("modality", "text"),
        summary.get("model_fingerprint"),
        summary["settings"].get("ultra_fine", {}).get("seed_text", False),
        summary.get("lineage"),
        summary["settings"],
        summary.get("contrast_lists"),
    )


def train(
    workspace: Workspace,
    settings: EncoderSettings | MultimodalSettings,
    model: str | None = None,
    workers: int = 1,
    gpu: bool = False,
    dtype: str = DTYPE,
    restart: bool = False,
    checkpoint_seconds: float = 30,
    make_current: bool = True,
    lists: MinedLists | None = None,
    warm_start: str | None = None,
    inputs_key: str | None = None,
) -> dict[str, Any]:
    """Train on inputs of a workspace and return the run's summary.

    Args:
        workspace: with inputs from ``seedset preprocess``; receives ``runs/train_encoder/<name>``.
        settings: of the run, which say what is trained; they and the inputs make its name.
        model: encoder to start from; default: the one whose tokenizer made the inputs.
        workers: training processes.
        gpu: one GPU a worker, NCCL and bfloat16; else gloo on the CPU.
        dtype: of the cached states.
        restart: forget the checkpoints of a run with the same name.
        checkpoint_seconds: time between checkpoints; one more is made at the end.
        make_current: let what reads the workspace's encoder read this one from now on.
        lists: that a contrastive training contrasts, of the workspace.
        warm_start: the run of the same kind that the training begins with, or "newest"; None: it begins with
            the encoder as it came.
        inputs_key: of the model input that is trained on; None: what was made last.
    """
    inputs = open_inputs(workspace, inputs_key)
    job = ContrastRun.job if lists else EncoderRun.job
    start = _warm_start(workspace, job, warm_start, model) if warm_start else None
    model = model or (start.model if start else inputs.manifest.model)
    with cluster_for(workers, gpu, workspace.root):
        cache = frozen_cache(workspace, inputs, model, dtype)
        run = _describe(workspace, cache, model, settings, gpu, checkpoint_seconds, dtype, lists, start)
        summary = train_or_load_summary(run, workers, restart)
    if make_current:
        write_pointer(workspace.runs(run.job), run.name)
    return summary


def _warm_start(workspace: Workspace, job: str, name: str, model: str | None) -> Trained:
    """Return the run that a training begins with.

    Raises:
        UserError: there is none, its entities have other ids, or it began with another encoder.
    """
    runs = workspace.runs(job)
    newest = read_pointer(runs) if name == NEWEST else name
    if newest is None or not (runs / newest).exists():
        raise UserError(
            f"--warm-start {name}: no such run in {runs.uri}; leave the option out to begin with the encoder "
            "as it came"
        )
    found = trained_run(runs / newest)
    if found.lineage != read_manifest(workspace).line:
        raise UserError(
            f"--warm-start {name}: {newest} was trained on a corpus that this one did not grow from by "
            "`seedset import --append`, so that its ids mean other entities; leave the option out"
        )
    if model not in (None, found.model):
        raise UserError(
            f"--warm-start {name}: {newest} began with the encoder {found.model}, and --model {model} is "
            "another; leave one of them out"
        )
    found.check_model()
    return found


def check_modality(workspace: Workspace, data: Contexts, modality: Modality) -> None:
    """See to it that a training has what its modality names.

    Raises:
        UserError: no context has anything of it; or no image can be used, and it names images.
    """
    if "image" in modality and not len(data.usable("image")):
        about = data.features.manifest
        raise UserError(
            f"{workspace.root.uri}: no context has an image that can be used ({about.refused} of "
            f"{about.images} images were refused, see {workspace.corpus.uri}/quarantine). Mend them and run "
            "`seedset image-features` again, or train with --modality text"
        )
    if not len(data.usable(modality)):
        raise UserError(f"{workspace.root.uri}: no context has anything of --modality {modality}")


def check_baseline(features: ImageFeatures, baseline: Baseline) -> None:
    """See to it that the image features are those of a baseline.

    Raises:
        UserError: they are not of the last block's whole input, or of another family of backbones.
    """
    about, row = features.manifest, BASELINES[baseline]
    make = "seedset image-features --patches tokens --model"
    if about.settings.patches != "tokens":
        raise UserError(
            f"{features.uri}: holds {about.settings.patches} features of {about.model}; baseline {baseline} "
            f"trains the backbone's last block: run `{make} {about.model}` first"
        )
    kind = NamedModel.open(about.model, "image features of").config().model_type
    if row.families and kind not in row.families:
        raise UserError(
            f"{features.uri}: made by {about.model}, of type {kind}; baseline {baseline} is of a backbone of "
            f"type {row.families[0]}: run `{make} MODEL` with one first, or take --baseline "
            f"{'image' if row.modality == 'image' else 'two-towers'}, which is any"
        )


def _describe(
    workspace: Workspace,
    cache: FrozenCache,
    model: str,
    settings: EncoderSettings | MultimodalSettings,
    gpu: bool,
    checkpoint_seconds: float,
    dtype: str,
    lists: MinedLists | None,
    start: Trained | None,
) -> EncoderRun:
    data = None
    if isinstance(settings, MultimodalSettings):
        text, states = TextEncoder.load(model), cache.open_rows()
        data = open_contexts(workspace, cache.inputs, states, None, text, model)
    about = f"-{data.features.key}-{data.features.digest}" if data else ""
    fingerprint = model_fingerprint(model)
    # The embedded encoder is always the same: its runs keep their names, as those with the usual states do.
    about += "" if model == EMBEDDED else f" {fingerprint}"
    about += "" if dtype == DTYPE else f" {dtype}"
    about += "" if lists is None else f" {lists.key}"
    begun = WarmStart(start.name, start.folder.uri, model_fingerprint(start.folder.uri)) if start else None
    about += "" if begun is None else f" {begun.run} {begun.fingerprint}"
    content = settings.model_dump_json(by_alias=True) + cache.inputs.key + model + about
    name = f"{cache.inputs.key}-e{settings.epochs}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    n_entities = pq.read_metadata(workspace.entities.local_copy(machine_cache())).num_rows
    run = EncoderRun(
        workspace=workspace.root.uri,
        inputs=cache.inputs,
        states=cache.states,
        model=model,
        fingerprint=fingerprint,
        name=name,
        n_entities=n_entities,
        lineage=read_manifest(workspace).line,
        settings=settings,
        gpu=gpu,
        checkpoint_seconds=checkpoint_seconds,
        warm_start=begun,
    )
    if lists is not None:
        return ContrastRun(**vars(run), lists_key=lists.key)
    if data is None or not isinstance(settings, MultimodalSettings):
        return run
    check_modality(workspace, data, settings.modality)
    lexical = None
    if settings.modality != "image":
        with given_or_auto(None, workspace.root) as executor:
            lexical = lexical_view(workspace, executor).vectors
    near = mine_neighbor_lists(data, n_entities, settings.modality, lexical)
    return MultimodalRun(**vars(run), features=data.features.key, lists=near)
