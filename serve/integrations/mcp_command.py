"""Run the tools over MCP, or say what they need where that is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(given: Sequence[str] | None = None) -> None:
    """Run :func:`serve.integrations.mcp_server.main`; the script is there also without the extra."""
    try:
        from serve.integrations import mcp_server
    except ImportError as error:
        sys.exit(f"seedset-mcp: {error}")
    mcp_server.main(given)


if __name__ == "__main__":
    main()
