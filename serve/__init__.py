"""Serve expansions on Ray Serve: an ingress and one deployment per stage."""
