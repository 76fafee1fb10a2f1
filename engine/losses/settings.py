"""Define which objectives are trained together, and their weights (MESED, section "Methods").

Masked entity prediction has the weight 1 alone, 0.5 beside contrast, and 0.8
beside clustering without contrast. Contrast weighs 0.5, clustering 0.2, momentum distillation 0.02.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


class Weights(NamedTuple):
    """The weight of each objective; 0: it is not trained."""

    prediction: float
    contrastive: float
    clustering: float
    distillation: float


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
    contrast: ContrastSettings = ContrastSettings()

    @model_validator(mode="after")
    def _has_one(self) -> Schedule:
        if not (self.prediction or self.contrastive or self.clustering):
            raise ValueError("nothing would be learnt: leave prediction, contrast or clustering on")
        return self

    @property
    def paired(self) -> bool:
        """True if an objective compares pairs of contexts."""
        return self.contrastive or self.clustering

    def weights(self) -> Weights:
        """Return the weights of the objectives that are on."""
        alone = 0.5 if self.contrastive else 0.8 if self.clustering else 1.0
        return Weights(
            alone * self.prediction,
            0.5 * self.contrastive,
            0.2 * self.clustering,
            0.02 * self.distillation,
        )
