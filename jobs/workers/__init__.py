"""Run work on a cluster's nodes, and start it there."""
