"""Generate entities by a language model: prompts, trie, constrained decoding, likelihoods (GenExpan)."""
