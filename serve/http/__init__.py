"""Speak HTTP: routes, requests and responses, errors, authentication."""
