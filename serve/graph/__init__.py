"""Run the graph on Ray Serve: admission, dispatch, deployments, and the bundle that they hold."""
