"""Measure speed and memory, one script a claim: a table for people, then one JSON line."""
