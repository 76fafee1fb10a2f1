"""One file, one `ray job submit` entry: Ray Data and Ray Train live here."""

import os

import engine  # noqa: F401  it says what is missing where the client alone is installed

# How often a thread of torch looks for its next piece of work before it sleeps. By default it looks for
# about a millisecond, and so keeps the core that the other thread waits for: beside one busy process a
# training on two cores was twelve times slower; with this it is three times. A quiet machine loses 5 %.
# It is read when torch is imported, hence here; workers of a cluster that a job starts inherit it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
