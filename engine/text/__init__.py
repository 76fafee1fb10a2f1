"""Compare spellings and find words, in every script; knows nothing of entities or files."""
