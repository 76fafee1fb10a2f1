"""Limit how often a caller asks: token buckets, in one process or shared by the replicas of the ingress."""
