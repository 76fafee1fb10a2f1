"""What the jobs need to know of a cluster."""
