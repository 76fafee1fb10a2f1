"""Define the settings of a served application: validated once, refused with a clear line when wrong."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.query import MAX_TOP_K
from engine.renames import with_current_names

NAME = "seedset"
"""The application's name on a cluster."""

HOST, PORT = "127.0.0.1", 8000
"""Address and port of the proxy by default: this machine alone."""

RENAMED_STAGES = {"Describe": "EncodeNewEntities"}
"""Former names of stages, as the keys of ``stages`` may still have them."""

Token = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""The sha256 of a bearer token, in hex: the token itself is in no file."""


class Autoscaling(BaseModel):
    """The autoscaling of a deployment by its requests in flight (Ray Serve's own rules)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(default=1, ge=1, le=1000)
    max_replicas: int = Field(default=4, ge=1, le=1000)
    target_ongoing_requests: float = Field(default=4, gt=0, description="a replica, before one more starts")
    upscale_delay_s: float = Field(default=10, ge=0)
    downscale_delay_s: float = Field(default=300, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}"
            )
        return self


class StageSettings(BaseModel):
    """The settings of one deployment; those not given are the application's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int | None = Field(default=None, ge=1, le=1000)
    autoscaling: Autoscaling | None = None
    num_cpus: float | None = Field(default=None, gt=0)
    num_gpus: float | None = Field(default=None, ge=0)
    batch_budget: int | None = Field(
        default=None,
        ge=1,
        description="cost of a batch, in the stage's own unit: tokens, candidates, queries",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("give replicas or autoscaling, not both")
        return self


class ServeSettings(BaseModel):
    """Settings of the served application; unknown keys are refused.

    They come from a command line (``key=value``) or a Serve config file (``args``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace: str = Field(min_length=1, description="folder or s3:// prefix with published bundles")
    bundle: str | None = Field(
        default=None, description="bundle id, for good; default: the current one, and each that follows it"
    )
    methods: tuple[str, ...] = Field(
        default=(), description="methods to serve; default: all that the bundle has the files for"
    )

    fused: bool = Field(
        default=True,
        description="all stages in one deployment, or a deployment for each stage",
    )
    replicas: int = Field(default=1, ge=1, le=1000, description="replicas of each stage deployment")
    num_cpus: float | None = Field(
        default=None, gt=0, description="cores of a stage replica; default: what the stage asks for"
    )
    stages: dict[str, StageSettings] = Field(
        default={}, description="by deployment (Retrieve, Generate …; Pipeline when fused)"
    )
    index_shards: int = Field(
        default=1, ge=1, le=1000, description="deployments over which the vectors are spread"
    )
    ingress_replicas: int = Field(
        default=1, ge=1, le=1000, description="replicas of what takes requests and hands them on"
    )

    batch_wait_ms: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="time to wait for company; 0: what came while the last batch ran",
    )
    max_queued: int = Field(
        default=512, ge=1, description="queries under way before new ones get 503, whatever they cost"
    )
    max_wait_s: float = Field(
        default=5, gt=0, description="expected wait for its turn above which a query gets 503"
    )
    timeout_s: float = Field(default=30, gt=0, le=3600, description="a query's time, if it names no less")
    watch_s: float = Field(default=2, gt=0, le=3600, description="how often the current bundle is looked up")

    body_timeout_s: float = Field(default=10, gt=0, le=3600, description="time for a body to arrive")
    max_body_bytes: int = Field(
        default=1 << 20, ge=1024, description="size of a body above which it gets 413"
    )
    max_queries: int = Field(default=256, ge=1, description="queries in one batch request")
    max_top_k: int = Field(default=1000, ge=1, le=MAX_TOP_K, description="entities that a query may ask for")

    tokens: dict[str, Token] = Field(
        default={}, description="sha256 of bearer tokens, by a name for the logs; empty: open to all"
    )
    rate_per_minute: int | None = Field(
        default=None, ge=1, description="queries a token may ask in a minute; default: no limit"
    )
    burst: int = Field(default=20, ge=1, description="queries above that rate that may come at once")

    @field_validator("methods", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """Take ``a,b`` too: the command line of ``serve run`` knows only strings."""
        if isinstance(given, str):
            return tuple(part.strip() for part in given.split(",") if part.strip())
        return given

    @field_validator("stages", mode="before")
    @classmethod
    def _rename_stages(cls, given: Any) -> Any:
        return with_current_names("stages", given, RENAMED_STAGES)

    def of(self, deployment: str) -> StageSettings:
        """Return the settings of a deployment, the application's filled in."""
        own = self.stages.get(deployment, StageSettings())
        several = {"num_cpus": own.num_cpus if own.num_cpus is not None else self.num_cpus}
        if own.replicas is None and own.autoscaling is None:
            several["replicas"] = self.replicas
        return own.model_copy(update=several)
