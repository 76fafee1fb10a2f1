"""Define which objectives are trained together, and their weights (MESED, section "Methods").

The weights are those of the authors' program, of which the paper prints none: contrast weighs 0.5,
clustering 0.2, and masked entity prediction 1, but 0.5 where contrast is all that is beside it, and 0.8 where
clustering is. Momentum distillation takes 0.02 of the prediction's weight: 0.98 of the cross-entropy and 0.02
of the divergence from the teacher.

Two ways to train several objectives. "separate", the authors': an epoch is two passes of contrast, two of
clustering and one of prediction, each step of one objective. "sum", ours: an epoch is one pass, and each step
is of the weighted sum.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

Objective = Literal["contrastive", "clustering", "prediction"]
"""What a pass of separate passes trains, in the order of an epoch."""

PASSES: dict[Objective, int] = {"contrastive": 2, "clustering": 2, "prediction": 1}
"""Passes of an epoch in the authors' program."""

LARGE_VOCABULARY = 200_000
"""Entities from which on the entity prediction objective is estimated from a sample by default."""


class ContrastSettings(BaseModel):
    """Temperature t, class prior tau, and concentration on hard negatives beta."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(
        default=0.5,
        gt=0,
        description="Divide the similarities of the contrast by this temperature (t of equation 9).",
    )
    prior: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Expect this share of unknown positives among the negatives (tau of the contrast).",
    )
    concentration: float = Field(
        default=1.0, ge=0, description="Concentrate this much on hard negatives (beta of the contrast)."
    )


class UltraFineSettings(BaseModel):
    """The contrast of mined lists (RetExpan, section 5.1.2), and how a batch of it is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    contrast_learning_rate: float = Field(
        default=3e-4,
        gt=0,
        description="Let the schedule peak at this learning rate in passes of the contrast (the paper's is "
        "1e-6).",
    )
    infonce_temperature: float = Field(
        default=0.5, gt=0, description="Divide the similarities of mined lists' contrast by this temperature."
    )
    hard_negatives: bool = Field(
        default=True, description="Push the two lists of a query, L_pos and L_neg, away from each other."
    )
    normal_negatives: bool = Field(
        default=False,
        description="Push both lists away from entities that the query did not recall, too (the paper does).",
    )
    list_positives: bool = Field(
        default=True,
        description="Bring the entities of one list together; without, only sentences of the same entity.",
    )
    seed_text: bool = Field(
        default=False,
        description="Append the query's seeds to each sentence of the contrast, as the paper does. All "
        "layers then run for it, and --method retexpan+contrast-conditioned can be asked.",
    )
    prediction_seed_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Append a random query's seeds to this share of the sentences of entity prediction, too.",
    )
    contrast_passes: int | None = Field(
        default=None,
        ge=1,
        description="Draw from all lists so many times in each pass over the contexts.  [default: as many as "
        "take about as many steps as entity prediction does]",
    )
    lists_per_batch: int = Field(default=4, ge=1, description="Take this many queries' lists a step.")
    list_entities: int = Field(
        default=3,
        ge=1,
        description="Draw so many entities of each of a query's two lists; with normal negatives twice as "
        "many others.",
    )
    entity_sentences: int = Field(
        default=2, ge=1, description="Draw so many sentences of each entity of a list, one of each other."
    )

    @model_validator(mode="after")
    def _has_negatives(self) -> UltraFineSettings:
        if not (self.hard_negatives or self.normal_negatives):
            raise ValueError("a contrast needs negatives: let the hard or the normal ones be on")
        return self


class Weights(NamedTuple):
    """The weight of each objective; 0: it is not trained."""

    prediction: float
    contrastive: float
    clustering: float
    distillation: float
    """The share of the prediction's weight that the divergence from the teacher has."""


class Schedule(BaseModel):
    """The objectives of a run; each can be switched off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prediction: bool = Field(default=True, description="Train masked entity prediction.")
    contrastive: bool = Field(
        default=True, description="Train the contrastive objective, with hard negatives."
    )
    clustering: bool = Field(default=True, description="Train the clustering objective.")
    distillation: bool = Field(default=True, description="Train momentum distillation.")
    smoothing: float = Field(default=0.075, ge=0, lt=1, description="Smooth the labels by this share.")
    clusters: int = Field(default=16, ge=2, description="Tell this many classes apart in clustering.")
    """The paper takes those of its queries, and one more."""
    passes: Literal["sum", "separate"] = Field(
        default="sum",
        description='"sum" takes each step on the weighted sum of the objectives. "separate", as the authors '
        "do, gives an epoch two passes of contrast, two of clustering and one of entity prediction, and each "
        "step one objective.",
    )
    refresh_pairs: int = Field(
        default=0,
        ge=0,
        description="Take the pairs of contrast and clustering anew every so many epochs, out of what the "
        "model itself finds near; the first are near by words and images.  [0: these alone]",
    )
    """The paper's "previous iteration" is a training of its own; :mod:`engine.training.pairs`."""
    contrast: ContrastSettings = ContrastSettings()

    @model_validator(mode="after")
    def _has_one(self) -> Schedule:
        if not (self.prediction or self.contrastive or self.clustering):
            raise ValueError("nothing would be learnt: leave prediction, contrast or clustering on")
        if self.passes == "separate" and self.distillation and not self.prediction:
            raise ValueError(
                "distillation has no pass of its own: leave prediction on, switch distillation off, or train "
                "the sum of the objectives in one pass"
            )
        return self

    @property
    def paired(self) -> bool:
        """True if an objective compares pairs of contexts."""
        return self.contrastive or self.clustering

    @property
    def refreshes(self) -> bool:
        """True if pairs are mined anew while the model is trained."""
        return self.paired and self.refresh_pairs > 0

    def epoch(self) -> tuple[Objective | None, ...]:
        """Return the objective of each pass of an epoch, in order; None: the sum of all."""
        if self.passes == "sum":
            return (None,)
        return tuple(name for name, times in PASSES.items() if getattr(self, name) for _ in range(times))

    def weights(self) -> Weights:
        """Return the weights of the objectives that are on.

        The authors train contrast alone and clustering alone beside prediction without distillation; with
        it, as with both, we let prediction weigh 1 as in all other of their trainings.
        """
        beside = (self.contrastive, self.clustering, self.distillation)
        prediction = {(True, False, False): 0.5, (False, True, False): 0.8}.get(beside, 1.0)
        return Weights(
            prediction * self.prediction,
            0.5 * self.contrastive,
            0.2 * self.clustering,
            0.02 * self.distillation,
        )
