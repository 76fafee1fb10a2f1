"""Makes a bearer token for a served application: ``python -m serve.operations.token --name page``."""

from __future__ import annotations

import re
import secrets
from typing import Annotated

import typer

from cluster.commandline import run_app
from engine.errors import UserError
from serve.http.auth import digest_of

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

EXAMPLES = """\b
Examples:
  python -m serve.operations.token --name page
  python -m serve.run --workspace W --settings settings.yaml      # with the line in that file
  python -m serve.run --workspace W --print-config > serve.yaml   # or under args: in this one
  curl -H "Authorization: Bearer TOKEN" localhost:8000/v1/methods
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLES)
def main(
    name: Annotated[str, typer.Option(help="Of the caller, for you: it stands in no answer.")] = "caller",
) -> None:
    """Print a new random token and the line that lets it in.

    The token goes to the caller, who sends it with every request; the line goes into the settings: a file
    for `serve.run --settings`, or `args` of the file for `serve deploy`. Only the token's sha256 stands
    there, so who reads the settings cannot ask. A token is taken back by deleting its line. Without any
    line the service is open to all.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: write letters, digits, _ and -, at most 64")
    token = secrets.token_urlsafe(32)
    print(f"token, for the caller; it is kept nowhere:\n  {token}")
    print(f"line, for the settings:\n  tokens: {{{name}: {digest_of(token.encode())}}}")


if __name__ == "__main__":
    run_app(app)
