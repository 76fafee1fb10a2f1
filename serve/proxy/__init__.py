"""Extend Serve's HTTP proxies: load shedding and time-outs of connections."""
