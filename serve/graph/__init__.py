"""The graph on Ray Serve: ingress, dispatch, deployments, and the bundle that they hold."""
