"""The Ray Serve application: an ingress and one deployment per stage."""
