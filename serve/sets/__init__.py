"""Keep named sets: what was accepted and rejected, by whom, when and why. Knows no HTTP."""
