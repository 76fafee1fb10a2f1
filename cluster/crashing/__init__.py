"""Kill parts of a cluster while it works, and check what must hold. Knows neither jobs nor serving."""
