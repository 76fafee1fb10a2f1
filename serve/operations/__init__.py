"""Operating a service: metrics, logs, bundles, tokens, deploy files."""
