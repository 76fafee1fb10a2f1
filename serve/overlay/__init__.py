"""Keep entities that were added or deleted since the bundle was made, and bring them to every replica."""
