"""Make blocks of tokens that a causal language model is trained on."""
