"""Operate the service: bundles, tokens, files for `serve deploy`."""

import engine  # noqa: F401  it says what is missing where the client alone is installed
