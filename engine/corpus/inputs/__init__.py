"""Make training inputs of encoders: drawn sentences, their mentions masked and tokenised."""
