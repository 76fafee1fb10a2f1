"""Run stages on queries of a batch or a request, and explain what they answer."""
