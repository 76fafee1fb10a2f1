"""Expand entity sets: the methods. Imports no Ray: every file runs in one plain process."""
