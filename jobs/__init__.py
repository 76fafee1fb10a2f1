"""One file, one `ray job submit` entry: Ray Data and Ray Train live here."""
