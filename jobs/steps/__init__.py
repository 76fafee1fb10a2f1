"""Share steps between commands: caches, blocks, views."""
