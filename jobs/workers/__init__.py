"""What runs on a cluster's nodes, and what starts it there."""
