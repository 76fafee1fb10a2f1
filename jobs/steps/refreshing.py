"""Find what a workspace holds of a former corpus, and make it anew, in order and with its own settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.corpus.inputs.format import InputManifest, input_manifest
from engine.corpus.schema import CorpusManifest, check_whole
from engine.errors import BundleError, StorageError, UserError
from engine.images.features import ImageManifest
from engine.retrieval.code_building import AUTO
from engine.retrieval.mention_states import PROBING
from engine.storage.bundle import Manifest, current_id, manifest_of
from engine.storage.parts import MANIFEST, read_model, read_pointer
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import MinedLists, open_lists
from engine.training.settings import ContrastiveSettings, EncoderSettings, MultimodalSettings
from jobs.settings import TEMPERATURE, Making, TrainingProcesses
from jobs.steps.encoder_training import Trained, train, trained_encoder
from jobs.steps.masked_lm import MaskedLmUse
from jobs.steps.model_input import preprocess
from jobs.workers.encoder import CONTRAST_JOB, JOB, MULTIMODAL_JOB
from jobs.workers.executor import AutoExecutor


@dataclass(frozen=True)
class HowRefreshed:
    """How what is stale is made anew.

    Args:
        epochs: of trainings that begin with the earlier run; 0: that one stays.
        warm: begin with it, or let it stay, where the corpus has grown from the one that it saw.
        processes: of trainings.
        workers: actors of a pool; None: the cluster's CPUs.
    """

    epochs: int
    warm: bool
    processes: TrainingProcesses
    workers: int | None


@dataclass(frozen=True)
class Step:
    """One thing that is stale: the command that makes its like, what it is, why it is stale, and the work."""

    command: str
    what: str
    why: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Stale:
    """A trained run whose corpus is not the one that is there now."""

    trained: Trained
    settings: EncoderSettings | MultimodalSettings
    inputs: InputManifest
    lists: MinedLists | None = None


class Refresh:
    """What is to be made anew in a workspace.

    Args:
        workspace: with a corpus.
        how: it is made.

    Raises:
        StorageError: there is no corpus, or it is not whole.
        BundleError: what the current bundle holds is gone or damaged.
    """

    def __init__(self, workspace: Workspace, how: HowRefreshed) -> None:
        self._workspace, self._how = workspace, how
        self._corpus: CorpusManifest = check_whole(workspace)
        self.notes: list[str] = []
        """What stays as it is though it has not seen the new corpus, and what can be done about it."""
        trainings = list(self._encoders())
        self.steps = [*self._inputs(), *self._images(), *trainings, *self._index(bool(trainings))]
        self._note_language_model()

    @cached_property
    def before(self) -> Manifest | None:
        """The bundle that is current now; None if none was published."""
        try:
            return manifest_of(self._workspace, current_id(self._workspace))
        except BundleError:
            if self._workspace.bundles.files(f"/{MANIFEST}"):
                raise
            return None

    def _is_old(self, digest: object) -> bool:
        return digest != self._corpus.digest

    def _read(self, key: object) -> InputManifest | None:
        """Return the manifest of model input that something was made from; None: it is gone."""
        return input_manifest(self._workspace, key) if isinstance(key, str) and key else None

    @cached_property
    def _runs(self) -> dict[str, Trained]:
        found = {job: trained_encoder(self._workspace, job) for job in (JOB, MULTIMODAL_JOB, CONTRAST_JOB)}
        return {job: trained for job, trained in found.items() if trained is not None}

    @cached_property
    def _used_inputs(self) -> dict[str, InputManifest]:
        """Model input that the current runs, the current bundle and the pointer name; the pointer's last."""
        keys: list[str | None] = [one.inputs_key for one in self._runs.values()]
        keys += [self.before.settings.get("inputs")] if self.before else []
        keys += [read_pointer(self._workspace.inputs())]
        found: dict[str, InputManifest] = {}
        for key in keys:
            if manifest := self._read(key):
                found.pop(str(key), None)
                found[str(key)] = manifest
        return found

    def _inputs(self) -> Iterator[Step]:
        made: set[str] = set()
        for key, manifest in self._used_inputs.items():
            new = manifest.settings.key(self._corpus.digest)
            whole = self._read(new)
            if new in made or (whole is not None and whole.sources):
                continue
            made.add(new)

            def run(manifest: InputManifest = manifest) -> None:
                with AutoExecutor(self._how.workers, [self._workspace.root.uri]) as executor:
                    preprocess(self._workspace, manifest.model, manifest.settings, executor)

            why = "made from the corpus before" if manifest.sources else "made by an earlier version"
            yield Step("preprocess", key, why, run)

    def _images(self) -> Iterator[Step]:
        from jobs.steps.image_features import make_image_features

        key = read_pointer(self._workspace.root / "images")
        if key is None:
            return
        manifest = read_model(
            self._workspace.images(key) / MANIFEST, ImageManifest, "run `seedset image-features` again"
        )
        if not self._is_old(manifest.corpus_digest):
            return
        settings = manifest.settings
        making = Making(model=manifest.model, patches=settings.patches, grid=settings.grid)

        def run() -> None:
            with AutoExecutor(self._how.workers, [self._workspace.root.uri]) as executor:
                make_image_features(self._workspace, making, executor=executor)

        yield Step("image-features", key, "made from the images of the corpus before", run)

    def _encoders(self) -> Iterator[Step]:
        for job, trained in self._runs.items():
            inputs = self._read(trained.inputs_key)
            if inputs is not None and inputs.sources and not self._is_old(inputs.corpus_digest):
                continue
            if inputs is None:
                self.notes.append(
                    f"{job}/{trained.name}: its model input {trained.inputs_key} is gone; run `seedset "
                    "preprocess` and `seedset train-encoder` with the settings that you want"
                )
                continue
            if not self._how.epochs and self._goes_on(job, trained):
                self.notes.append(
                    f"{job}/{trained.name}: has not learnt from what is new in the corpus; it stays, and "
                    "reads it. `--epochs 1` trains it on"
                )
                continue
            settings, lists = _settings_of(trained), None
            if isinstance(settings, ContrastiveSettings):
                try:
                    lists = open_lists(self._workspace, trained.lists or "")
                except StorageError as error:
                    self.notes.append(
                        f"{job}/{trained.name}: {error}; then `seedset train-encoder --contrast`"
                    )
                    continue
            yield self._training(job, Stale(trained, settings, inputs, lists))

    def _goes_on(self, job: str, trained: Trained) -> bool:
        """Return whether a run fits the corpus that is there now, and a training can begin with it."""
        return self._how.warm and job != MULTIMODAL_JOB and trained.lineage == self._corpus.line

    def _training(self, job: str, stale: Stale) -> Step:
        trained, settings, how = stale.trained, stale.settings, self._how
        warm = self._goes_on(job, trained)
        if warm:
            settings = settings.model_copy(update={"epochs": how.epochs})

        def run() -> None:
            train(
                self._workspace,
                settings,
                trained.model,
                how.processes.workers,
                how.processes.gpu,
                lists=stale.lists,
                warm_start=trained.name if warm else None,
                inputs_key=stale.inputs.settings.key(self._corpus.digest),
            )

        begin = "goes on from it" if warm else "begins anew"
        why = f"trained on the corpus before; {begin}, {settings.epochs} epochs"
        return Step("train-encoder", f"{job}/{trained.name}", why, run)

    def _index(self, trained_anew: bool) -> Iterator[Step]:
        about = self.before.settings if self.before else {}
        if self.before is None or "views" not in about:
            return
        old = self._is_old(about.get("corpus"))
        if not (old or trained_anew or self._has_newer_encoder(about)):
            return
        inputs = self._read(about.get("inputs"))
        if inputs is None:
            self.notes.append(
                f"bundle {self.before.id}: its model input {about.get('inputs')} is gone; run `seedset "
                "build-index` with the settings that you want"
            )
            return
        why = "made from the corpus before" if old else "made by the encoder before"
        yield Step("build-index", f"bundle {self.before.id}", why, lambda: self._build(about, inputs))

    def _has_newer_encoder(self, about: dict[str, Any]) -> bool:
        """Return whether a run that the index was made by is no more the newest of its kind."""
        used = {
            JOB: about.get("trained"),
            MULTIMODAL_JOB: about.get("multimodal", {}).get("trained"),
            CONTRAST_JOB: about.get("contrast", {}).get("trained"),
        }
        return any(name and self._runs[job].name != name for job, name in used.items() if job in self._runs)

    def _build(self, about: dict[str, Any], inputs: InputManifest) -> None:
        from jobs.steps.index_building import NO_LISTS, build

        predicted = about.get("text_distributions")
        temperature = (predicted or about.get("multimodal") or {}).get("temperature", TEMPERATURE)
        with AutoExecutor(self._how.workers, [self._workspace.root.uri]) as executor:
            build(
                self._workspace,
                about.get("trained") is None,
                executor,
                temperature,
                inputs.settings.key(self._corpus.digest),
                about.get("distributions", predicted is not None),
                self._masked_lm(about),
                about.get("types", {}).get("model"),
                about.get("discriminant", {}).get("lists", NO_LISTS),
                about.get("index", {}).get("asked", AUTO),
            )

    def _masked_lm(self, about: dict[str, Any]) -> MaskedLmUse:
        if "masked_lm" in about:
            return MaskedLmUse(**about["masked_lm"])
        files = self.before.files if self.before else {}  # of an earlier version
        return MaskedLmUse("adapted" in about["views"], any(name.startswith(f"{PROBING}/") for name in files))

    def _note_language_model(self) -> None:
        model = self.before.settings.get("lm") if self.before else None
        if model and self._is_old(model.get("corpus")):
            self.notes.append(
                f"language model {model.get('run')}: has not read what is new in the corpus; it stays, with "
                "a trie of all names. `seedset pretrain-lm` makes one that has"
            )


def _settings_of(trained: Trained) -> EncoderSettings | MultimodalSettings:
    """Return the settings of a run.

    Raises:
        UserError: it is of a version that had others.
    """
    kind: type[EncoderSettings | MultimodalSettings] = EncoderSettings
    if "ultra_fine" in trained.settings:
        kind = ContrastiveSettings
    elif trained.features:
        kind = MultimodalSettings
    try:
        return kind.model_validate(trained.settings)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{trained.folder.uri}: its settings cannot be read by this version ({first}); run `seedset "
            "train-encoder` with the settings that you want"
        ) from None
