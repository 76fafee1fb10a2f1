"""What a served application is told: validated once, refused with a clear line when it is wrong."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.query import MAX_TOP_K

NAME = "seedset"
"""The application's name on a cluster."""


class ServeSettings(BaseModel):
    """Settings of the served application; unknown keys are refused.

    They come from a command line (``key=value``) or a Serve config file (``args``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace: str = Field(min_length=1, description="folder or s3:// prefix with published bundles")
    bundle: str | None = Field(default=None, description="bundle id; default: the current one")
    methods: tuple[str, ...] = Field(
        default=(), description="methods to serve; default: all that the bundle has the files for"
    )
    fused: bool = Field(
        default=True,
        description="all stages in one deployment; false: a deployment for each stage",
    )
    replicas: int = Field(default=1, ge=1, le=1000, description="replicas of each stage deployment")
    ingress_replicas: int = Field(default=1, ge=1, le=1000)
    num_cpus: float | None = Field(
        default=None, gt=0, description="cores of a stage replica; default: what the stage asks for"
    )
    max_batch_size: int = Field(default=32, ge=1, le=1024, description="queries computed together")
    batch_wait_ms: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="time to wait for company; 0: what came while the last batch ran",
    )
    max_queued: int = Field(
        default=512, ge=1, description="requests waiting for a stage before new ones get 503"
    )
    timeout_s: float = Field(default=30, gt=0, le=3600, description="a request's time before 504")
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    max_queries: int = Field(default=256, ge=1, description="queries in one batch request")
    max_top_k: int = Field(default=1000, ge=1, le=MAX_TOP_K)

    @field_validator("methods", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """Take ``a,b`` too: the command line of ``serve run`` knows only strings."""
        if isinstance(given, str):
            return tuple(part.strip() for part in given.split(",") if part.strip())
        return given
