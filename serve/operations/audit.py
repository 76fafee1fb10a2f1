"""Read the audit log of a service: ``seedset audit --file audit.jsonl --who anna``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from serve.audit.entries import Event, GivenTime, Wanted
from serve.audit.log import read_entries

logger = logging.getLogger("seedset.serve")

EXAMPLES = """
  seedset audit --file audit.jsonl
  seedset audit --file audit.jsonl --who anna --event curated --since 2026-11-01
  seedset audit --file audit.jsonl --request-id 5f0c --limit 1
"""


class AuditSettings(CommandSettings):
    """The settings of the command."""

    file: Path = Field(description="The file that --audit of `seedset serve` names; full ones are read, too.")
    who: str = Field(default="", description="Only what the token of this name did.  [default: all]")
    event: Event | None = Field(
        default=None,
        description="Only asked, curated or published (by the right that was needed), served (bundles), or "
        "lost (entries that could not be written).  [default: all]",
    )
    request_id: str = Field(default="", description="Only the request of this id.  [default: all]")
    since: GivenTime | None = Field(
        default=None,
        description="Only from this time on, such as 2026-11-30T08:00; UTC.  [default: the first]",
    )
    until: GivenTime | None = Field(default=None, description="Only before this time.  [default: the last]")
    limit: int = Field(default=100, ge=1, description="Print at most this many, the newest.")


@command(EXAMPLES)
def main(settings: AuditSettings) -> None:
    """Print entries of the audit log, a JSON object a line, oldest first.

    It reads the file on the machine where it is: the cluster's head. Over HTTP, `/v1/audit` does the same for
    tokens with the right to publish.
    """
    given = settings
    wanted = Wanted(given.who, given.event or "", given.request_id, given.since, given.until, 0, given.limit)
    found = read_entries(given.file, wanted)
    for entry in reversed(found["entries"]):
        print(json.dumps(entry))
    if found["more"]:
        logger.warning("older entries fit, too: --limit %d", given.limit)
    if found["broken"]:
        logger.warning("%d lines of %s are no entries", found["broken"], given.file)


if __name__ == "__main__":
    main.run()
