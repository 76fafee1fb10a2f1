"""Connect to a cluster, check it, and start one here."""
