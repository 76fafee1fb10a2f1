"""A small sample data set of true, public facts, written out by ``examples.make_sample``."""
