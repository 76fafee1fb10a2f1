"""What an operator runs beside the service: bundles, tokens, files for `serve deploy`."""
