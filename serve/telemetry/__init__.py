"""What the service tells of itself: metrics, logs, and a dashboard that shows them."""
