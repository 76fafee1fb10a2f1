"""What several jobs do on the way: caches, blocks, views."""
