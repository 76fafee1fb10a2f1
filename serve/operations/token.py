"""Make a bearer token for a served application: ``seedset token --name anna --rights curate``."""

from __future__ import annotations

import re
import secrets

import yaml
from pydantic import Field, field_validator

from cluster.commandline import command
from cluster.options import CommandSettings
from serve.http.auth import digest_of
from serve.settings import RIGHTS, Right

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

EXAMPLES = """
  seedset token --name anna --rights curate
  seedset serve --workspace work --token-file tokens.yaml      # with the line in that file
  seedset serve --workspace work --settings settings.yaml      # or below tokens: in this one
  seedset serve --workspace work --print-config > serve.yaml   # or under args: in this one
  curl -H "Authorization: Bearer TOKEN" localhost:8000/v1/methods
"""


class TokenSettings(CommandSettings):
    """The settings of the command."""

    name: str = Field(
        default="caller",
        description="Name of the caller, for your settings and logs; it stands in no answer.",
    )

    rights: Right = Field(
        default=RIGHTS[0],
        description="What the caller may do: read (ask), curate (also change named sets), publish (also "
        "change what is served, and read the audit log).",
    )

    @field_validator("name")
    @classmethod
    def _fits_a_line(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("write letters, digits, _ and -, at most 64")
        return name


@command(EXAMPLES)
def main(settings: TokenSettings) -> None:
    """Print a new random token and the line that lets it in.

    The token goes to the caller, who sends it with every request; the line goes into the file that
    --token-file of `seedset serve` names, or below `tokens:` of its settings or of `args` of the file for
    `serve deploy`. Only the token's sha256 stands there, so who reads the file cannot ask. A token is taken
    back by deleting its line: from the file within seconds, elsewhere by serving anew. Without any line the
    service is open to all.
    """
    token = secrets.token_urlsafe(32)
    print(f"token, for the caller; it is kept nowhere:\n  {token}")
    grant = {"rights": settings.rights, "sha256": digest_of(token.encode())}
    # YAML itself knows which names want quotes: "no", "007".
    line = yaml.safe_dump({settings.name: grant}, default_flow_style=None, width=1000).strip()
    print(f"line, for the file of tokens:\n  {line}")


if __name__ == "__main__":
    main.run()
