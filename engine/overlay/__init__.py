"""Lay entities that were added or deleted since a bundle was made over it; merged at the next build."""
