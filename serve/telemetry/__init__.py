"""Observe the service: metrics, logs, and a dashboard that shows them."""
