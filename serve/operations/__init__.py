"""Operate the service: bundles, tokens, files for `serve deploy`."""
