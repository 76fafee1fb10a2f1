"""Define the settings of a served application: validated once, refused with a clear line when wrong."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cluster.capacity import TensorParallel, check_group_gpus, in_whole_ones
from cluster.methods import Changes, MethodSettings
from cluster.options import Secret, declared
from engine.query import MAX_TOP_K
from engine.renames import with_current_names

NAME = "seedset"
"""The application's name on a cluster."""

HOST, PORT = "127.0.0.1", 8000
"""Address and port of the proxy by default: this machine alone."""

NONE = "none"
"""In the place of a file of named sets, or of an overlay: none is kept."""

HOST_NAME = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[?[0-9A-Fa-f:.]+\]?")
ORIGIN = re.compile(r"\*|https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)(:\d{1,5})?")
"""A setting of a host: ``example.org``, ``*.example.org``, an address, or ``*``."""

RENAMED_STAGES = {"Describe": "EncodeNewEntities"}
"""Former names of stages, as the keys of ``stages`` may still have them."""

RENAMED_SETTINGS = {"watch_s": "bundle_poll_interval_s"}
"""Former names of settings of the application, which are still accepted."""

DIGEST = re.compile("[0-9a-f]{64}")


def _digest(given: Any) -> str:
    """Return a digest as it is compared. What is none may be the token itself, so it is not repeated."""
    digest = given.strip().lower() if isinstance(given, str) else ""
    if not DIGEST.fullmatch(digest):
        hint = "" if isinstance(given, str) else " (in quotes)"
        raise ValueError(
            f"write the sha256 of the token in 64 hex digits{hint}, as `seedset token` prints it, "
            "not the token itself"
        )
    return digest


Digest = Annotated[str, BeforeValidator(_digest)]
"""The sha256 of a bearer token, in hex: the token itself is in no file."""

Right = Literal["read", "curate", "publish"]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""What a token may do: ask, change named sets, change what is served. Each includes those before it."""


class Grant(BaseModel):
    """A token and what it may do."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sha256: Digest = Field(description="The sha256 of the token, as `seedset token` prints it.")
    rights: Right = Field(description="What it may do: read, curate (also change named sets), publish (all).")


def _grant(given: Any) -> Any:
    """Take a digest alone too, as settings had it before there were rights: it may do all."""
    if isinstance(given, dict | Grant):
        return given
    return {"sha256": _digest(given), "rights": RIGHTS[-1]}


Token = Annotated[Grant, BeforeValidator(_grant)]


class Autoscaling(BaseModel):
    """The autoscaling of a deployment by its requests in flight (Ray Serve's own rules)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(default=1, ge=1, le=1000)
    max_replicas: int = Field(default=4, ge=1, le=1000)
    target_ongoing_requests: float = Field(
        default=4, gt=0, description="Requests a replica has under way before one more replica starts."
    )
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
        description="Fill a batch up to this cost, in the stage's own unit: tokens, candidates, queries.",
    )

    _whole_gpus = field_validator("num_gpus")(in_whole_ones)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("give replicas or autoscaling, not both")
        return self


class ServeSettings(BaseModel):
    """Settings of the served application; unknown keys are refused.

    They come from a command line (``key=value``) or a Serve config file (``args``).
    """

    # Serve writes what pydantic says to its logs: what stands where a digest belongs may be a token.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    workspace: str = Field(min_length=1, description="Folder or s3:// prefix with published bundles.")
    bundle: str | None = Field(
        default=None,
        description="Serve the bundle of this id, and no later one.  [default: the current one, and each "
        "that follows it]",
    )
    methods: tuple[str, ...] = Field(
        default=(),
        description="Serve these methods, with commas between them; also ones that packages installed, and "
        "module:NAME of pipelines of your own.  [default: all of --list-methods but the ablations that the "
        "bundle has the files for]",
    )
    set: Changes = declared(MethodSettings, "set")

    fused: bool = Field(
        default=True,
        description="Put all stages into one deployment, or each into its own.",
    )
    replicas: int = Field(
        default=1, ge=1, le=1000, description="Run this many replicas of each deployment of stages."
    )
    num_cpus: float | None = Field(
        default=None,
        gt=0,
        description="Reserve this many cores for a replica of a stage.  [default: what the stage asks for]",
    )
    gpu: float | None = Field(
        default=None,
        ge=0,
        description="Reserve this share of a GPU, or so many whole ones, for each replica with a language "
        "model.  [default: one, or the share that all replicas have, where the cluster has GPUs]",
    )
    tensor_parallel: TensorParallel = 1
    stages: dict[str, StageSettings] = Field(
        default={},
        description="Settings of single deployments, by name (Retrieve, LanguageModel …; Pipeline when "
        "fused).",
    )
    index_shards: int = Field(
        default=1, ge=1, le=1000, description="Spread the vectors over this many deployments."
    )
    ingress_replicas: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Run this many replicas of the ingress, which takes requests and hands them on.",
    )

    batch_wait_ms: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="Wait this long for more queries before a batch begins; 0 takes what came while the last "
        "one ran.",
    )
    max_queued: int = Field(
        default=512,
        ge=1,
        description="Answer new queries with 503 while this many are under way, whatever they cost.",
    )
    max_wait_s: float = Field(
        default=5, gt=0, description="Answer a query with 503 if it would wait longer than this for its turn."
    )
    timeout_s: float = Field(
        default=30, gt=0, le=3600, description="Give a query this much time, if it names no less."
    )
    drain_timeout_s: float = Field(
        default=30,
        ge=0,
        le=3600,
        description="Wait this long for the requests under way when the service stops; new ones are refused.",
    )
    bundle_poll_interval_s: float = Field(
        default=2,
        gt=0,
        le=3600,
        description="Look for a new current bundle this often, in seconds.",
    )

    trace_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        description="Send spans of requests and stages to this OTLP/HTTP collector, such as "
        "http://collector:4318/v1/traces.  [default: none are made]",
    )

    body_timeout_s: float = Field(
        default=10, gt=0, le=3600, description="Wait this long for the body of a request."
    )
    max_body_bytes: int = Field(default=1 << 20, ge=1024, description="Answer a larger body with 413.")
    max_queries: int = Field(
        default=256, ge=1, description="Take at most this many queries in one batch request."
    )
    max_top_k: int = Field(
        default=1000, ge=1, le=MAX_TOP_K, description="Let a query ask for at most this many entities."
    )

    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Answer requests that name these hosts, with commas between them, besides this machine's "
        "loopback names; *.example.org stands for all below it, * for every host.  [default: every "
        "host; over loopback without tokens, loopback names alone]",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Let web pages of these origins ask, with commas between them, such as "
        "https://app.example.org; * stands for every one.  [default: this service's own page alone]",
    )
    sets: str | None = Field(
        default=None,
        min_length=1,
        description="Keep named sets in this SQLite file, on a local disk of the cluster's head; none keeps "
        "no sets.  [default: sets/sets.sqlite in the workspace, where that is local]",
    )
    audit: str | None = Field(
        default=None,
        min_length=1,
        description="Write who asked, curated and published what to this file, a JSON object a line, on a "
        "local disk of the cluster's head.  [default: it is not written]",
    )
    audit_file_bytes: int = Field(
        default=64 << 20, ge=1 << 16, description="Begin a new file of the audit log at this size."
    )
    audit_files: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Keep this many full files of the audit log; older ones are deleted.",
    )
    overlay: str | None = Field(
        default=None,
        min_length=1,
        description="Keep entities that are added and deleted without a new bundle in this SQLite file, on a "
        "local disk of the cluster's head; none refuses such changes.  [default: overlay/overlay.sqlite in "
        "the workspace, where that is local]",
    )
    tokens: Annotated[dict[str, Token], Secret()] = Field(
        default={},
        description="Bearer tokens by a name for logs and sets: the sha256 and the rights (read, curate or "
        "publish) of each; a sha256 alone may do all. Without any the service is open to all.",
    )
    token_file: str | None = Field(
        default=None,
        min_length=1,
        description="Read more tokens from this YAML file, a line each, as `seedset token` prints it, and "
        "again when it changes.  [default: none; the variable SEEDSET_TOKENS may hold such lines, too]",
    )
    rate_per_minute: int | None = Field(
        default=None, ge=1, description="Let a token ask this many queries in a minute.  [default: no limit]"
    )
    burst: int = Field(default=20, ge=1, description="Let this many queries above that rate come at once.")

    _whole_gpus = field_validator("gpu")(in_whole_ones)

    @field_validator("methods", "allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """Take ``a,b`` too: the command line of ``serve run`` knows only strings."""
        if isinstance(given, str):
            return tuple(part.strip() for part in given.split(",") if part.strip())
        return given

    @field_validator("sets", "audit", "overlay")
    @classmethod
    def _is_local(cls, given: str | None) -> str | None:
        if given is not None and "://" in given:
            raise ValueError(f"{given!r} is no file of this machine: it needs a local disk")
        return given

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [host for host in given if not HOST_NAME.fullmatch(host)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no host: write example.org, without http:// and port")
        return given

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [origin for origin in given if not ORIGIN.fullmatch(origin)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no origin: write https://app.example.org, without a path")
        return given

    @model_validator(mode="before")
    @classmethod
    def _rename_settings(cls, given: Any) -> Any:
        return with_current_names("serve settings", given, RENAMED_SETTINGS)

    @model_validator(mode="after")
    def _gpu_for_each_process(self) -> Self:
        check_group_gpus(self.gpu, self.tensor_parallel)
        return self

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
