"""Measure methods and write reports."""
