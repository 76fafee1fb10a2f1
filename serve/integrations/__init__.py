"""Offer a service to other programs' frameworks; each needs an extra of its own, and the client alone."""
