"""Connect to a cluster, check it, and start one here."""

import engine  # noqa: F401  it says what is missing where the client alone is installed
