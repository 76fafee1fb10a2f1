"""What is installed in Serve's proxies: load shedding and time-outs of connections."""
