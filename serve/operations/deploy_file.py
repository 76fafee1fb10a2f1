"""Write files for ``serve deploy`` from settings, and check them without a cluster.

Ray Serve's own schema lets unknown keys at the top pass, and takes a file that is not there for the name
of a module; so a file is checked here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import FormatError, UserError
from engine.repeated_keys import other_than_text
from serve.http.errors import in_words
from serve.http.heads import is_loopback
from serve.settings import HOST, NAME, PORT, ServeSettings
from serve.yaml_files import read_text, read_yaml

IMPORT_PATH = "serve.app:build"

EVERYWHERE = "0.0.0.0"
"""Where `serve deploy` listens by a file that does not say where."""


class Http(BaseModel):
    """The HTTP options of the proxy."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(
        default=HOST,
        description="Listen at this address; 0.0.0.0 lets other machines in, so set tokens first.",
    )
    port: int = Field(default=PORT, ge=1, le=65535, description="Listen at this port.")
    request_timeout_s: float | None = Field(default=None, gt=0)
    keep_alive_timeout_s: int | None = Field(default=None, gt=0)


class ApplicationEntry(BaseModel):
    """One application of a deploy file."""

    model_config = ConfigDict(extra="forbid")

    name: str = NAME
    route_prefix: str | None = Field(default="/", pattern="^/([^{}]*[^{}/])?$")
    import_path: str
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    args: dict[str, Any]


class DeployFile(BaseModel):
    """A file for ``serve deploy``."""

    model_config = ConfigDict(extra="forbid")

    proxy_location: str = Field(default="EveryNode", pattern="^(EveryNode|HeadOnly|Disabled)$")
    http_options: Http = Field(default_factory=Http)
    logging_config: dict[str, Any] = Field(default_factory=dict)
    applications: list[ApplicationEntry] = Field(min_length=1)


def deploy_config(settings: ServeSettings, host: str, port: int) -> str:
    """Return the YAML that ``serve deploy`` takes: for a cluster that outlives this process."""
    application = {
        "name": NAME,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": settings.model_dump(mode="json", exclude_unset=True),
    }
    config = {"http_options": {"host": host, "port": port}, "applications": [application]}
    return str(yaml.safe_dump(config, sort_keys=False))


def open_to_all(host: str, applications: Sequence[ServeSettings]) -> str | None:
    """Return a warning where other machines are let in and no token is wanted; None if that is not so."""
    if is_loopback(host) or all(one.tokens or one.token_file for one in applications):
        return None
    return f"{host} lets in everybody who reaches this machine; set tokens (seedset token)"


def check_deploy_file(path: Path) -> tuple[list[ServeSettings], str | None]:
    """Return the settings of a deploy file's applications, and what to be warned of.

    Raises:
        FormatError: the file is not there, is no YAML, or holds what is not known; says where.
    """
    given = read_yaml(path, scalars_as_text=False)  # as `serve deploy` reads it
    if odd := other_than_text(read_text(path)):
        key, line = odd
        raise FormatError(f"{path}: line {line}: write {key!r} in quotes: unquoted, YAML reads no text in it")
    try:
        checked = DeployFile.model_validate(given)
    except ValidationError as error:
        raise FormatError(f"{path}: {in_words(error.errors())}") from None
    found: list[ServeSettings] = []
    for number, application in enumerate(checked.applications):
        where = f"{path}: applications.{number}"
        if application.import_path != IMPORT_PATH:
            raise FormatError(f"{where}.import_path: {application.import_path!r}; write {IMPORT_PATH}")
        found.append(settings_of(application.args, f"{where}.args"))
    http = checked.http_options
    warning = open_to_all(http.host if "host" in http.model_fields_set else EVERYWHERE, found)
    if warning and "host" not in http.model_fields_set:
        warning = f"no http_options.host is given, so `serve deploy` listens on {EVERYWHERE}; {warning}"
    return found, None if checked.proxy_location == "Disabled" else warning


def settings_of(given: dict[str, Any], where: str) -> ServeSettings:
    """Return checked settings.

    Raises:
        UserError: what is wrong, and where.
    """
    try:
        return ServeSettings.model_validate(given)
    except ValidationError as error:
        quotes = any(found["type"] == "string_type" for found in error.errors())
        hint = "; text wants quotes where YAML reads something else in it" if quotes else ""
        raise UserError(f"{where}: {in_words(error.errors())}{hint}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Return what a YAML or JSON file of settings says, unchecked.

    Raises:
        FormatError: it is not there, or no mapping.
    """
    given = read_yaml(path, scalars_as_text=True)
    if not isinstance(given, dict):
        raise FormatError(f"{path}: not a mapping of settings, such as `workspace: work`")
    return given
